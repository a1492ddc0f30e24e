//! `arca-init`: PID 1 of every Arca VM.
//!
//! One program, three lives: PID 1 (the [`server`] for the host), the single-threaded [`launch`]er that becomes a
//! container's process, and the minimal [`launch::init`] of containers run with `--init`.

#![allow(
    unsafe_code,
    reason = "PID 1 makes system calls that no safe wrapper has; each says why it is sound"
)]
#![cfg_attr(test, allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "test data"))]

mod boot;
mod container;
mod files;
#[doc(hidden)]
pub mod fuzzing;
mod launch;
mod log;
mod metrics;
mod process;
mod server;
mod sys;
mod users;

use std::process::ExitCode;

/// The program: which of its lives it is follows from its name and its pid.
#[must_use]
pub fn main() -> ExitCode {
    match std::env::args_os().next() {
        Some(name) if name == launch::ARGV0 => launch::main(),
        Some(name) if name == launch::init::ARGV0 => launch::init::main(),
        _ if std::process::id() == 1 => boot::main(),
        _ => {
            eprintln!("arca-init {} runs as PID 1 of a virtual machine only", env!("CARGO_PKG_VERSION"));
            ExitCode::from(2)
        }
    }
}
