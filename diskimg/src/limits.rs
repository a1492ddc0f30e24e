//! What one layer disk may hold at most, against layer bombs.

/// Upper bounds of one layer disk. Everything counted here costs host disk or memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the image, counting holes of sparse files and data that later layers replaced.
    pub max_bytes: u64,
    /// Live inodes.
    pub max_inodes: u64,
    /// Entries read from all layers, live or not.
    pub max_entries: u64,
    /// Bytes of one path, and of a symlink's target.
    pub max_path_len: usize,
    /// Bytes of names, symlink targets and extended attributes held in memory.
    pub max_metadata_bytes: u64,
}

impl Default for Limits {
    /// 256 GiB and four million inodes: above any sane image, below what hurts the host.
    fn default() -> Self {
        Self {
            max_bytes: 256 << 30,
            max_inodes: 4_000_000,
            max_entries: 16_000_000,
            max_path_len: 4095,
            max_metadata_bytes: 512 << 20,
        }
    }
}

/// How a layer disk is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Upper bounds.
    pub limits: Limits,
    /// Nothing lies below this disk (a base layer, or a chain merged from the bottom): whiteouts delete and
    /// leave nothing. Otherwise they become overlayfs whiteouts and opaque directories.
    pub bottom: bool,
}

impl Options {
    /// A disk with nothing below it, default limits.
    #[must_use]
    pub fn bottom() -> Self {
        Self { limits: Limits::default(), bottom: true }
    }

    /// A disk that overlayfs stacks on others, default limits.
    #[must_use]
    pub fn upper() -> Self {
        Self { limits: Limits::default(), bottom: false }
    }
}
