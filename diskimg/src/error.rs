//! The one error type of this crate, and what can be wrong with a single layer entry.

use std::io;
use std::path::PathBuf;

/// Result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a disk could not be written. Each message is complete: it holds its cause, so there is no `source()`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One entry of the layer is refused.
    #[error("layer entry {entry:?}: {fault}")]
    Entry {
        /// The entry's name as the archive has it (lossy UTF-8, shortened).
        entry: String,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The layer would exceed a limit; see [`crate::Limits`].
    #[error("layer entry {entry:?} exceeds the limit of {limit} {what}")]
    Limit {
        /// The entry at which the limit was hit.
        entry: String,
        /// What is counted.
        what: Bound,
        /// The largest allowed count.
        limit: u64,
    },
    /// The stream is not a well-formed tar archive.
    #[error("layer is not a valid tar archive at byte {offset}: {reason}")]
    Tar {
        /// Offset in the decompressed stream.
        offset: u64,
        /// What is malformed.
        reason: &'static str,
    },
    /// The layer stream could not be read (broken compression, truncated download, ...).
    #[error("cannot read the layer after {offset} bytes: {cause}")]
    Read {
        /// Bytes of the decompressed stream that were read before.
        offset: u64,
        /// The reader's error.
        cause: io::Error,
    },
    /// Host file operation failed.
    #[error("cannot {doing}: {cause}")]
    Io {
        /// What was being done.
        doing: String,
        /// The system's error.
        cause: io::Error,
    },
    /// An earlier `apply` failed, so the tree is incomplete.
    #[error("an earlier layer failed to apply; discard this disk and start again")]
    Unfinished,
    /// `mke2fs` is not installed.
    #[error(
        "mke2fs not found: install e2fsprogs (Debian: apt install e2fsprogs, macOS: brew install e2fsprogs)"
    )]
    MkfsMissing,
    /// `mke2fs` refused to make the file system.
    #[error("mke2fs failed ({status}): {stderr}")]
    MkfsFailed {
        /// Exit status in words.
        status: String,
        /// What it printed.
        stderr: String,
    },
    /// `mke2fs` did not finish in time.
    #[error("mke2fs did not finish in {seconds} s while writing {path}; is the disk hung or full?")]
    MkfsTimeout {
        /// The deadline.
        seconds: u64,
        /// The template being written.
        path: PathBuf,
    },
}

/// What [`crate::Limits`] count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bound {
    /// [`crate::Limits::max_bytes`], of the disk or of the archive itself.
    #[error("bytes")]
    Bytes,
    /// [`crate::Limits::max_inodes`]
    #[error("files")]
    Inodes,
    /// [`crate::Limits::max_entries`]
    #[error("archive entries")]
    Entries,
    /// [`crate::Limits::max_metadata_bytes`]
    #[error("bytes of names and attributes")]
    Metadata,
}

/// What is wrong with one layer entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A `..` component.
    #[error("path has a '..' component")]
    DotDot,
    /// A NUL byte in a name or link target.
    #[error("path holds a NUL byte")]
    Nul,
    /// Empty name where one is needed, or an empty symlink target.
    #[error("empty name or link target")]
    Empty,
    /// A path component over 255 bytes.
    #[error("a name is longer than 255 bytes")]
    NameTooLong,
    /// A path or symlink target over the limit.
    #[error("path is longer than allowed")]
    PathTooLong,
    /// More nested directories than a path can name.
    #[error("directories are nested too deep")]
    TooDeep,
    /// `.wh.` with nothing behind it, or a whiteout of `.` or `..`.
    #[error("whiteout names no file")]
    BadWhiteout,
    /// Symlinks in the parent path do not end.
    #[error("too many symbolic links in the parent path")]
    SymlinkLoop,
    /// A parent in the path is a file of the same layer.
    #[error("a parent of the path is not a directory")]
    NotADirectory,
    /// The root was given as something else than a directory.
    #[error("the root must be a directory")]
    RootNotDirectory,
    /// Hard link to something that this tree does not have.
    #[error("hard link target does not exist in this layer")]
    LinkTargetMissing,
    /// Hard link to a directory.
    #[error("hard link target is a directory")]
    LinkTargetDirectory,
    /// uid or gid that does not fit 32 bits.
    #[error("owner does not fit in 32 bits")]
    Owner,
    /// Device number Linux cannot hold (12 bits major, 20 bits minor).
    #[error("device number out of range")]
    Device,
    /// A tar entry type that is none of Unix's file types.
    #[error("unsupported tar entry type 0x{0:02x}")]
    Type(u8),
    /// Extended attributes of one inode over 64 KiB, or a name over 255 bytes.
    #[error("extended attributes are too large")]
    XattrsTooLarge,
    /// Sparse map that is unordered, overlapping or beyond the file's size.
    #[error("invalid sparse file map")]
    Sparse,
}

impl Error {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |cause| Self::Io { doing, cause }
    }

    pub(crate) fn entry(name: &[u8], fault: Fault) -> Self {
        Self::Entry { entry: printable(name), fault }
    }

    pub(crate) fn limit(name: &[u8], what: Bound, limit: u64) -> Self {
        Self::Limit { entry: printable(name), what, limit }
    }
}

/// Names come from untrusted archives: bounded, and made valid UTF-8 for a message.
fn printable(name: &[u8]) -> String {
    const SHOWN: usize = 200;
    let mut text = String::from_utf8_lossy(&name[..name.len().min(SHOWN)]).into_owned();
    if name.len() > SHOWN {
        text.push('…');
    }
    text
}
