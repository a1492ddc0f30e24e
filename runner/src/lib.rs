//! The runner: one process beside each VM, and the daemon's side of it.
//!
//! [`serve`] is the body of `arca runner`: it owns the hypervisor, the main process's stdio, its log and its exit record,
//! and goes on while the daemon is down. [`launch`] and [`adopt`] are how the daemon gets a [`Handle`] to one;
//! [`logs`] is the json-file log both sides share; [`vmm`] hides the hypervisors.

#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "test data"))]

mod backlog;
mod bounded;
mod clock;
mod container;
mod error;
mod exit;
#[doc(hidden)]
pub mod fuzzing;
mod guest;
mod launch;
mod lock;
pub mod logs;
mod runner;
mod serve;
mod service;
mod setup;
mod silence;
mod spec;
mod state;
mod stdio;
pub mod vmm;

pub use error::Error;
pub use exit::{ExitRecord, clear_exit, read_exit};
pub use launch::{Handle, adopt, launch, resident};
pub use serve::serve;
pub use spec::{Accelerator, DISK_SLOTS, Disk, VmSpec};
pub use vmm::probe::pick_accelerator;
