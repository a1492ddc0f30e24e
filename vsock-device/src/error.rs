//! Errors of the crate.

use std::{io, path::PathBuf};

/// Why a device cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket cannot be bound: the folder is missing or not writable, or the path is longer than 107 bytes.
    #[error("cannot listen on {}: {source}; check the folder's permissions and that the path is under 108 bytes", path.display())]
    Bind {
        /// Where.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A guest's context id is 3 or more and below 2^32 - 1 (virtio 1.2, 5.10.4).
    #[error("{0} is not a guest's vsock context id; use 3 or more")]
    GuestCid(u64),
    /// The process is out of file descriptors, threads or memory.
    #[error("cannot set up the vsock device's {what}: {source}; raise the limit on open files or processes")]
    System {
        /// What was set up.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}
