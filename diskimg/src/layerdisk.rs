//! The builder of one layer disk.

use std::fs::File;
use std::io::Read;

use crate::data::DataArea;
use crate::erofs::{self, Summary};
use crate::error::{Bound, Error, Result};
use crate::layer::{Applier, LayerStats};
use crate::limits::Options;
use crate::tarball::TarReader;
use crate::tree::Tree;

/// Writes OCI layers, bottom-up, into one EROFS image.
///
/// File contents go straight into the output; names and attributes stay in memory until [`Self::finish`].
/// Blocking: call it off the async threads. The same archives give the same bytes.
///
/// Merging N layers shows what stacking N disks of one layer each would show, with these rules:
/// - whiteouts hide lower layers only; an opaque whiteout drops what lower layers have in the directory;
/// - a directory over a directory merges and takes the new owner, mode, time and attributes, anything else
///   replaces what was there;
/// - parents that no entry describes are directories of root's, mode 0755, dated 1970;
/// - symlinks in a parent path are followed inside the tree if they are of the same layer, else replaced by a
///   directory; `..` in an entry's path is refused;
/// - a hard link shares its target's metadata (its own header is ignored); the target is looked up in the
///   whole chain, so in a disk of one layer it must be in that layer;
/// - PAX extended attributes are kept, except `trusted.overlay.*` and namespaces EROFS cannot store, which
///   are counted in [`LayerStats::skipped_xattrs`].
pub struct LayerDisk {
    data: DataArea,
    tree: Tree,
    options: Options,
    layers: u32,
    entries: u64,
    failed: bool,
}

impl std::fmt::Debug for LayerDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the tree: it has millions of names.
        f.debug_struct("LayerDisk")
            .field("options", &self.options)
            .field("layers", &self.layers)
            .finish_non_exhaustive()
    }
}

impl LayerDisk {
    /// Starts an image in `out`, which is emptied. Write under a temporary name and rename after
    /// [`Self::finish`]: until then the file is no file system.
    ///
    /// # Errors
    /// [`Error::Io`] if `out` cannot be emptied.
    pub fn create(out: File, options: Options) -> Result<Self> {
        out.set_len(0).map_err(Error::io("empty the layer disk"))?;
        Ok(Self {
            data: DataArea::new(out, options.limits.max_bytes),
            tree: Tree::new(options.bottom),
            options,
            layers: 0,
            entries: 0,
            failed: false,
        })
    }

    /// Applies the next layer, a decompressed tar stream, over what is there. Reads `tar` to its end.
    ///
    /// # Errors
    /// [`Error::Entry`], [`Error::Limit`] and [`Error::Tar`] for bad archives, [`Error::Read`] and
    /// [`Error::Io`] for failing streams and disks. After any of them the disk must be discarded.
    pub fn apply(&mut self, tar: impl Read) -> Result<LayerStats> {
        if self.failed {
            return Err(Error::Unfinished);
        }
        self.failed = true;
        self.layers += 1;
        let limits = self.options.limits;
        let mut tar = TarReader::new(tar, limits.max_bytes);
        let mut applier = Applier {
            tree: &mut self.tree,
            data: &mut self.data,
            limits: &limits,
            bottom: self.options.bottom,
            layer: self.layers,
            stats: LayerStats::default(),
        };
        while let Some(entry) = tar.next_entry()? {
            self.entries += 1;
            if self.entries > limits.max_entries {
                return Err(Error::limit(&entry.path, Bound::Entries, limits.max_entries));
            }
            applier.entry(&mut tar, &entry)?;
            applier.check_limits(&entry)?;
        }
        tar.drain()?;
        let stats = applier.stats;
        self.failed = false;
        Ok(stats)
    }

    /// Writes the metadata and flushes the image to the disk.
    ///
    /// # Errors
    /// [`Error::Unfinished`] after a failed `apply`, [`Error::Limit`] if the image with its metadata is too
    /// large, [`Error::Io`].
    pub fn finish(self) -> Result<Summary> {
        if self.failed {
            return Err(Error::Unfinished);
        }
        erofs::write(&self.tree, self.data)
    }
}
