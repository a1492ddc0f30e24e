//! The crate's error.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// What can go wrong around a VM.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file that Arca wrote does not parse.
    #[error("{} is damaged: {source}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it does not parse.
        source: serde_json::Error,
    },
    /// A program could not be started.
    #[error("cannot run {}: {source}; `arca doctor` tells what is missing", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The VM's vsock device cannot be served.
    #[error(transparent)]
    Vsock(#[from] vsock_device::Error),
    /// Another runner already owns this run folder.
    #[error("VM {vm_id} already has a runner in {}", run_dir.display())]
    Busy {
        /// The VM.
        vm_id: String,
        /// Its run folder.
        run_dir: PathBuf,
    },
    /// The VM specification cannot be satisfied.
    #[error("VM specification: {0}")]
    Spec(String),
    /// A stage was not reached in time.
    #[error("no {stage} within {after:?}{tail}")]
    Timeout {
        /// What was waited for.
        stage: &'static str,
        /// How long.
        after: Duration,
        /// Console or log tail, with its own leading punctuation; may be empty.
        tail: String,
    },
    /// The VM ended when it should not have.
    #[error("the VM ended: {0}")]
    Lost(String),
    /// An answer of the guest or of a runner.
    #[error("{}: {}", .0.code(), .0.message())]
    Rpc(Box<tonic::Status>),
}

impl Error {
    /// A closure for `map_err` on file operations.
    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }

    /// The gRPC status this becomes for a client of the runner; a status of the guest passes unchanged.
    pub(crate) fn into_status(self) -> tonic::Status {
        match self {
            Self::Rpc(status) => *status,
            Self::Timeout { .. } => tonic::Status::deadline_exceeded(self.to_string()),
            Self::Lost(_) => tonic::Status::failed_precondition(self.to_string()),
            Self::Spec(_) => tonic::Status::invalid_argument(self.to_string()),
            _ => tonic::Status::internal(self.to_string()),
        }
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        Self::Rpc(Box::new(status))
    }
}
