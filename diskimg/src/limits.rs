//! What one layer disk may hold at most, against layer bombs.

/// Upper bounds of one layer disk. Everything counted here costs host disk or memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the image, counting holes of sparse files and data that later layers replaced.
    pub max_bytes: u64,
    /// Live inodes: files, directories, links.
    pub max_inodes: u64,
    /// Entries read from all layers, live or not.
    pub max_entries: u64,
    /// Bytes of one path, and of a symlink's target.
    pub max_path_len: usize,
    /// Memory for inodes, names, symlink targets and extended attributes. The whole writer takes some 70 MiB more.
    pub max_metadata_bytes: u64,
}

impl Limits {
    /// The limits of a disk of `max_bytes` with `max_inodes` files: entries and memory follow from the latter.
    #[must_use]
    pub fn of(max_bytes: u64, max_inodes: u64) -> Self {
        Self {
            max_bytes,
            max_inodes,
            // Layers merged into one disk replace and delete files.
            max_entries: max_inodes.saturating_mul(4),
            max_path_len: 4095,
            // Measured: 300 to 350 bytes for a file with a name of ordinary length.
            max_metadata_bytes: max_inodes.saturating_mul(384),
        }
    }
}

impl Default for Limits {
    /// 64 GiB and two million files (some 750 MB of memory): above any sane image, below what hurts the host.
    fn default() -> Self {
        Self::of(64 << 30, 2_000_000)
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
