//! One archive entry at a time into the tree: names, owners, whiteouts.

use std::io::Read;

use crate::data::DataArea;
use crate::error::{Bound, Error, Fault, Result};
use crate::limits::Limits;
use crate::path::components;
use crate::tarball::{Entry, EntryKind, TarReader};
use crate::tree::{Kind, Meta, Missing, ROOT, Tree};
use crate::xattr::Xattrs;

/// OCI image-spec, layer.md: prefix of whiteout files.
const WHITEOUT: &[u8] = b".wh.";
/// Names AUFS kept for itself; dockerd skips them in old layers.
const AUFS: &[u8] = b".wh..wh.";
/// Opaque whiteout.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What one layer brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LayerStats {
    /// Archive entries, whiteouts included.
    pub entries: u64,
    /// Bytes of regular files, holes included.
    pub file_bytes: u64,
    /// Whiteouts and opaque markers.
    pub whiteouts: u64,
    /// Extended attributes left out: `trusted.overlay.*`, and namespaces EROFS cannot store.
    pub skipped_xattrs: u64,
}

/// Applies the entries of one layer.
pub(crate) struct Applier<'a> {
    pub(crate) tree: &'a mut Tree,
    pub(crate) data: &'a mut DataArea,
    pub(crate) limits: &'a Limits,
    pub(crate) bottom: bool,
    /// Number of this layer, from 1.
    pub(crate) layer: u32,
    pub(crate) stats: LayerStats,
}

impl Applier<'_> {
    /// Applies `entry`, reading its content from `tar`.
    pub(crate) fn entry<R: Read>(&mut self, tar: &mut TarReader<R>, entry: &Entry) -> Result<()> {
        self.stats.entries += 1;
        let fault = |fault| Error::entry(&entry.path, fault);
        let path = components(&entry.path, self.limits.max_path_len).map_err(fault)?;
        let Some((&name, parents)) = path.split_last() else { return self.root(entry) };
        if parents.iter().any(|part| part.starts_with(AUFS)) {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(parents, name, hidden).map_err(fault);
        }
        // A link's target is looked up before anything is made: making parents may replace what it names.
        let mut target = None;
        if entry.kind == EntryKind::HardLink {
            let link = components(&entry.link, self.limits.max_path_len).map_err(fault)?;
            target = self.tree.lookup(&link, self.layer).map_err(fault)?;
            if target.is_none() {
                return Err(fault(Fault::LinkTargetMissing));
            }
        }
        let meta = meta(entry).map_err(fault)?;
        let xattrs = self.xattrs(entry).map_err(fault)?;
        let parent = self.tree.directory(parents, self.layer, Missing::Make).map_err(fault)?.unwrap_or(ROOT);
        let kind = match entry.kind {
            EntryKind::Directory => {
                self.tree.put_dir(parent, name, self.layer, meta, xattrs);
                return self.check_limits(entry);
            }
            EntryKind::HardLink => {
                let target = target.unwrap_or(ROOT);
                self.tree.hard_link(parent, name, self.layer, target).map_err(fault)?;
                return self.check_limits(entry);
            }
            EntryKind::File => {
                let mut content = tar.content(entry);
                let stored = self.data.store(&entry.path, &mut content, entry.size, xattrs.encoded_len())?;
                // What was stored is within the limits, so the sum cannot overflow.
                self.stats.file_bytes += entry.size;
                Kind::File(stored)
            }
            EntryKind::Symlink => Kind::Symlink(self.symlink(entry).map_err(fault)?),
            EntryKind::CharDevice => Kind::CharDevice(device(entry).map_err(fault)?),
            EntryKind::BlockDevice => Kind::BlockDevice(device(entry).map_err(fault)?),
            EntryKind::Fifo => Kind::Fifo,
        };
        self.tree.put(parent, name, self.layer, meta, xattrs, kind);
        self.check_limits(entry)
    }

    fn root(&mut self, entry: &Entry) -> Result<()> {
        let fault = |fault| Error::entry(&entry.path, fault);
        if entry.kind != EntryKind::Directory {
            return Err(fault(Fault::RootNotDirectory));
        }
        let xattrs = self.xattrs(entry).map_err(fault)?;
        self.tree.set_root(meta(entry).map_err(fault)?, xattrs);
        Ok(())
    }

    fn whiteout(&mut self, parents: &[&[u8]], name: &[u8], hidden: &[u8]) -> Result<(), Fault> {
        if name.starts_with(AUFS) && name != OPAQUE {
            return match &name[AUFS.len()..] {
                b"" => Err(Fault::BadWhiteout),
                _ => Ok(()),
            };
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Fault::BadWhiteout);
        }
        self.stats.whiteouts += 1;
        // In the bottom disk there is nothing to hide in a directory that is not there.
        let missing = if self.bottom { Missing::Stop } else { Missing::Make };
        if let Some(dir) = self.tree.directory(parents, self.layer, missing)? {
            if name == OPAQUE {
                self.tree.opaque(dir, self.layer);
            } else {
                self.tree.whiteout(dir, hidden, self.layer);
            }
        }
        Ok(())
    }

    fn xattrs(&mut self, entry: &Entry) -> Result<Xattrs, Fault> {
        let mut xattrs = Xattrs::default();
        for (name, value) in &entry.xattrs {
            if !xattrs.insert(name, value)? {
                self.stats.skipped_xattrs += 1;
            }
        }
        Ok(xattrs)
    }

    fn symlink(&self, entry: &Entry) -> Result<Box<[u8]>, Fault> {
        // Kept as it is, even when it points out of the tree: only the guest follows it, inside its own root.
        match &*entry.link {
            [] => Err(Fault::Empty),
            link if link.contains(&0) => Err(Fault::Nul),
            link if link.len() > self.limits.max_path_len => Err(Fault::PathTooLong),
            link => Ok(link.into()),
        }
    }

    pub(crate) fn check_limits(&mut self, entry: &Entry) -> Result<()> {
        for stored in self.tree.forgotten.drain(..) {
            self.data.forget(&stored);
        }
        if self.tree.live() > self.limits.max_inodes {
            return Err(Error::limit(&entry.path, Bound::Inodes, self.limits.max_inodes));
        }
        if self.tree.weight > self.limits.max_metadata_bytes {
            return Err(Error::limit(&entry.path, Bound::Metadata, self.limits.max_metadata_bytes));
        }
        Ok(())
    }
}

fn meta(entry: &Entry) -> Result<Meta, Fault> {
    // chown(2) takes (uid_t)-1 as "leave it".
    let owner = |id: u64| u32::try_from(id).ok().filter(|&id| id != u32::MAX).ok_or(Fault::Owner);
    Ok(Meta { mode: entry.mode, uid: owner(entry.uid)?, gid: owner(entry.gid)?, mtime: entry.mtime })
}

/// Linux `new_encode_dev`.
fn device(entry: &Entry) -> Result<u32, Fault> {
    match entry.device {
        (major, minor) if major < 1 << 12 && minor < 1 << 20 => {
            let (major, minor) = (major as u32, minor as u32);
            Ok((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
        }
        _ => Err(Fault::Device),
    }
}
