//! The one error type of this crate. Messages are dockerd's, since tools match on them.

use std::{io, path::Path};

/// What went wrong, with dockerd's wording where dockerd has one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The image, manifest, repository or platform does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The image is in use or referenced; the message says whether force helps.
    #[error("{0}")]
    Conflict(String),
    /// The caller's input is wrong: a bad name, archive or platform.
    #[error("{0}")]
    InvalidParameter(String),
    /// The registry refused the credentials.
    #[error("{0}")]
    Unauthorized(String),
    /// Content did not match its digest or size, or is not what it claims to be.
    #[error("{0}")]
    Corrupt(String),
    /// A blob of this store no longer has its digest; it was removed, so that the next pull brings it again.
    #[error("{0}")]
    Damaged(String),
    /// A registry could not be reached or broke the protocol.
    #[error("{0}")]
    Registry(String),
    /// A deadline passed; the message names the stage reached.
    #[error("{0}")]
    Timeout(String),
    /// A file of the store could not be read or written.
    #[error("{context}: {source}{advice}", advice = advice(source))]
    Io {
        /// What was being done, with the path.
        context: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The metadata database failed.
    #[error("image database: {0}{advice}", advice = database_advice(.0))]
    Database(Box<redb::Error>),
    /// A bug or a dying runtime: a task ended without a result.
    #[error("{0}")]
    System(String),
}

/// Which HTTP status an [`Error`] answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// 404
    NotFound,
    /// 409
    Conflict,
    /// 400
    InvalidParameter,
    /// 401
    Unauthorized,
    /// 500
    System,
}

impl ErrorKind {
    /// The HTTP status code of dockerd for this kind.
    pub fn status(self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::InvalidParameter => 400,
            Self::Unauthorized => 401,
            Self::System => 500,
        }
    }
}

impl Error {
    /// The kind, for the API's status code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::InvalidParameter(_) => ErrorKind::InvalidParameter,
            Self::Unauthorized(_) => ErrorKind::Unauthorized,
            _ => ErrorKind::System,
        }
    }

    /// Builds an `Io` error naming what was done to which path.
    pub(crate) fn io(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let context = format!("{what} {}", path.display());
        move |source| Self::Io { context, source }
    }
}

/// What a user can do about a failing file operation.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": make room there (`docker image prune` removes unused images), then try again"
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            ": make it writable for the daemon's user, or choose another ARCA_HOME"
        }
        _ => "",
    }
}

fn database_advice(error: &redb::Error) -> &'static str {
    match error {
        redb::Error::Io(cause) => advice(cause),
        redb::Error::Corrupted(_) => {
            ": it is damaged; stop the daemon, move the folder `images` of ARCA_HOME away and pull the images again"
        }
        _ => "",
    }
}

macro_rules! from_redb {
    ($($source:ty),*) => {$(
        impl From<$source> for Error {
            fn from(e: $source) -> Self {
                Self::Database(Box::new(e.into()))
            }
        }
    )*};
}
from_redb!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError
);

impl From<tokio::task::JoinError> for Error {
    fn from(e: tokio::task::JoinError) -> Self {
        Self::System(format!("an image task ended abnormally: {e}"))
    }
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;
