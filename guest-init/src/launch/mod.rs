//! The launcher: a single-threaded process between PID 1 and a container's process.
//!
//! PID 1 ([`spawn`]) starts it from /proc/self/exe, already in the right PID namespace, with a socket as fd 0. Over it come
//! the [`config`] and descriptors; back go a terminal's master, then one word: ready, or the [`failure`]. The launcher
//! joins or makes the namespaces, sets the root up for a first process, drops its rights and becomes the command.

mod command;
pub(crate) mod config;
mod dev;
pub(crate) mod failure;
mod identity;
pub(crate) mod init;
mod masks;
mod mount;
mod namespaces;
pub(crate) mod options;
mod root;
mod run;
pub(crate) mod seccomp;
pub(crate) mod spawn;
mod stdio;
mod sysctl;

use std::{
    io::Read,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
};

use self::{
    config::{Config, FdRole},
    failure::Failure,
};
use crate::sys::fdpass;

/// Name under which PID 1 starts the launcher.
pub(crate) const ARGV0: &str = "arca-launch";

/// Longest configuration: environments of megabytes exist, more is a mistake.
const MAX_CONFIG: usize = 16 * 1024 * 1024;

/// First byte of what the launcher sends.
pub(crate) mod word {
    /// A terminal's master comes with it.
    pub(crate) const TERMINAL: u8 = b'T';
    /// The command comes next; the socket closes when it runs.
    pub(crate) const READY: u8 = b'R';
    /// The failure follows as JSON.
    pub(crate) const FAILED: u8 = b'E';
}

/// The launcher's life. Returns only when it failed.
pub(crate) fn main() -> ExitCode {
    // SAFETY: PID 1 made fd 0 our socket; it is open for the whole life of this borrow.
    let inherited = unsafe { BorrowedFd::borrow_raw(0) };
    let Ok(socket) = rustix::io::fcntl_dupfd_cloexec(inherited, 3) else { return ExitCode::from(125) };
    let socket = UnixStream::from(socket);
    // Nothing in the namespaces that we join may look into us.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let failure = match receive(&socket) {
        Ok((config, fds)) => match run::run(&socket, &config, fds) {
            Ok(never) => match never {},
            Err(failure) => failure,
        },
        Err(error) => Failure::setup("launch configuration", error),
    };
    let body = serde_json::to_vec(&failure).unwrap_or_default();
    let _ = fdpass::send(&socket, &[&[word::FAILED], body.as_slice()].concat(), &[]);
    ExitCode::from(125)
}

/// Reads the configuration and pairs the descriptors with their roles.
fn receive(mut socket: &UnixStream) -> std::io::Result<(Config, Vec<(FdRole, OwnedFd)>)> {
    let invalid = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    let mut length = [0; 4];
    let (n, fds) = fdpass::receive(socket, &mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if n != 4 || length > MAX_CONFIG {
        return Err(invalid("length"));
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body)?;
    let config: Config = serde_json::from_slice(&body).map_err(std::io::Error::other)?;
    if config.fds.len() != fds.len() {
        return Err(invalid("descriptors are missing"));
    }
    let fds = config.fds.iter().copied().zip(fds).collect();
    Ok((config, fds))
}
