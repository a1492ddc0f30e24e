//! What can go wrong with files of a container.

use std::io;

use rustix::io::Errno;

/// An error of the file operations; the variant tells the gRPC status.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    /// Nothing is there: `NOT_FOUND`; the host words it with the container's name.
    #[error("no such file or directory: {0}")]
    NotFound(String),
    /// A parent, or a path that ends in a slash, is no directory: `INVALID_ARGUMENT`.
    #[error("not a directory: {0}")]
    NotADirectory(String),
    /// The destination of an upload is no directory, in docker's words: `INVALID_ARGUMENT`.
    #[error("extraction point is not a directory")]
    ExtractionPoint,
    /// An upload would replace a directory, in docker's words: `INVALID_ARGUMENT`.
    #[error("cannot overwrite directory {0:?} with non-directory {1:?}")]
    DirectoryWithNonDirectory(String, String),
    /// An upload would replace something by a directory, in docker's words: `INVALID_ARGUMENT`.
    #[error("cannot overwrite non-directory {0:?} with directory {1:?}")]
    NonDirectoryWithDirectory(String, String),
    /// `docker cp` into a container run with `--read-only`, in docker's words: `PERMISSION_DENIED`.
    #[error("container rootfs is marked read-only")]
    ReadOnlyRootfs,
    /// A name in the uploaded tar leads out of the destination, in docker's words: `INVALID_ARGUMENT`.
    #[error("{0:?} is outside of {1:?}")]
    Breakout(String, String),
    /// The uploaded tar cannot be read: `INVALID_ARGUMENT`.
    #[error("invalid tar archive: {0}")]
    Tar(#[source] io::Error),
    /// The receiver or sender of the stream went away, or writing to it failed: `ABORTED`.
    #[error("archive stream ended early: {0}")]
    Stream(#[source] io::Error),
    /// A tree has more names than the guest keeps in memory: `RESOURCE_EXHAUSTED`.
    #[error("{0}: too many files to be listed")]
    TooMany(String),
    /// The kernel refused: `INTERNAL` (`RESOURCE_EXHAUSTED` when [`FilesError::is_full`]).
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
}

impl FilesError {
    /// The error of a system call on `path`.
    pub(crate) fn at(path: impl AsRef<[u8]>, errno: Errno) -> Self {
        let path = String::from_utf8_lossy(path.as_ref()).into_owned();
        match errno {
            Errno::NOENT => Self::NotFound(path),
            Errno::NOTDIR => Self::NotADirectory(path),
            Errno::TOOBIG => Self::TooMany(path),
            other => Self::Io(path, other.into()),
        }
    }

    /// Whether the container's disk (or its quota) is full.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Io(_, error)
            if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}
