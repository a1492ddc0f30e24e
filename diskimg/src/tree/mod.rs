//! The merged file tree in memory: inodes in an arena, names in directories. File contents are not here.

mod resolve;
mod whiteout;

use std::collections::BTreeMap;

use crate::data::Stored;
use crate::error::Fault;
use crate::xattr::Xattrs;

pub(crate) use resolve::Missing;

/// Index of an inode.
pub(crate) type Id = u32;

/// The root directory.
pub(crate) const ROOT: Id = 0;

/// Deepest nesting of directories; no path could name more, and recursion stays bounded.
pub(crate) const MAX_DEPTH: usize = 2048;

/// Memory of an inode and of its place in the image, for the metadata limit.
const NODE_WEIGHT: u64 = 256;

/// Memory of a name, in its directory and while that is written.
const NAME_WEIGHT: u64 = 96;

/// Permission bits, owner, time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    /// The low twelve bits of st_mode.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
}

impl Meta {
    /// Directories that no layer describes: root's, 0755, and of no date so that images are reproducible.
    pub(crate) const IMPLICIT_DIR: Self = Self { mode: 0o755, uid: 0, gid: 0, mtime: (0, 0) };
}

/// One inode.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) meta: Meta,
    pub(crate) xattrs: Xattrs,
    /// Names that point here; for directories see [`Tree::nlink`].
    pub(crate) names: u32,
    pub(crate) kind: Kind,
}

/// File types.
#[derive(Debug)]
pub(crate) enum Kind {
    Dir(Dir),
    File(Stored),
    Symlink(Box<[u8]>),
    CharDevice(u32),
    BlockDevice(u32),
    Fifo,
    /// overlayfs whiteout: a character device 0/0.
    Whiteout,
    /// Unused slot of the arena.
    Free,
}

/// A directory's names.
#[derive(Debug, Default)]
pub(crate) struct Dir {
    pub(crate) entries: BTreeMap<Box<[u8]>, Name>,
    /// Hides the directory of the same path in the disks below.
    pub(crate) opaque: bool,
    /// The layer that left nothing of lower layers in here: to look again would be quadratic.
    pruned: u32,
}

/// What a name points to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name {
    pub(crate) id: Id,
    /// The layer (1, 2, ... in order of application) that gave this name last.
    pub(crate) layer: u32,
}

/// The tree.
pub(crate) struct Tree {
    inodes: Vec<Inode>,
    free: Vec<Id>,
    /// Contents whose file is gone, for the data area to forget.
    pub(crate) forgotten: Vec<Stored>,
    /// Approximate bytes in memory.
    pub(crate) weight: u64,
    bottom: bool,
}

impl Tree {
    pub(crate) fn new(bottom: bool) -> Self {
        let root = Inode {
            meta: Meta::IMPLICIT_DIR,
            xattrs: Xattrs::default(),
            names: 1,
            kind: Kind::Dir(Dir::default()),
        };
        Self { inodes: vec![root], free: Vec::new(), forgotten: Vec::new(), weight: 0, bottom }
    }

    pub(crate) fn get(&self, id: Id) -> &Inode {
        &self.inodes[id as usize]
    }

    fn get_mut(&mut self, id: Id) -> &mut Inode {
        &mut self.inodes[id as usize]
    }

    /// Size of the arena: every id is below.
    pub(crate) fn capacity(&self) -> usize {
        self.inodes.len()
    }

    /// Inodes in use.
    pub(crate) fn live(&self) -> u64 {
        (self.inodes.len() - self.free.len()) as u64
    }

    pub(crate) fn dir(&self, id: Id) -> Option<&Dir> {
        match &self.get(id).kind {
            Kind::Dir(dir) => Some(dir),
            _ => None,
        }
    }

    pub(crate) fn name(&self, dir: Id, name: &[u8]) -> Option<Name> {
        self.dir(dir)?.entries.get(name).copied()
    }

    /// st_nlink.
    pub(crate) fn nlink(&self, id: Id) -> u32 {
        match self.dir(id) {
            Some(dir) => 2 + dir.entries.values().filter(|name| self.dir(name.id).is_some()).count() as u32,
            None => self.get(id).names,
        }
    }

    /// Describes the root.
    pub(crate) fn set_root(&mut self, meta: Meta, xattrs: Xattrs) {
        self.set_meta(ROOT, meta, xattrs);
    }

    fn set_meta(&mut self, id: Id, meta: Meta, xattrs: Xattrs) {
        let gained = xattrs.weight();
        let inode = self.get_mut(id);
        let lost = inode.xattrs.weight();
        (inode.meta, inode.xattrs) = (meta, xattrs);
        self.weight = self.weight + gained - lost;
    }

    /// A directory entry of layer `layer`: merges with a directory that is there, replaces anything else.
    pub(crate) fn put_dir(&mut self, parent: Id, name: &[u8], layer: u32, meta: Meta, xattrs: Xattrs) -> Id {
        if let Some(there) = self.name(parent, name) {
            match self.get(there.id).kind {
                Kind::Dir(_) => {
                    self.set_meta(there.id, meta, xattrs);
                    self.set_layer(parent, name, layer);
                    return there.id;
                }
                // overlayfs stops at a non-directory: what is below it must stay hidden under the new
                // directory as well.
                Kind::Whiteout => return self.new_dir(parent, name, layer, meta, xattrs, !self.bottom),
                _ if there.layer < layer => {
                    return self.new_dir(parent, name, layer, meta, xattrs, !self.bottom);
                }
                _ => {}
            }
        }
        self.new_dir(parent, name, layer, meta, xattrs, false)
    }

    fn new_dir(
        &mut self,
        parent: Id,
        name: &[u8],
        layer: u32,
        meta: Meta,
        xattrs: Xattrs,
        opaque: bool,
    ) -> Id {
        let dir = Dir { entries: BTreeMap::new(), opaque, pruned: layer };
        self.put(parent, name, layer, meta, xattrs, Kind::Dir(dir))
    }

    /// Any other entry: replaces what is there, a whole tree too.
    pub(crate) fn put(
        &mut self,
        parent: Id,
        name: &[u8],
        layer: u32,
        meta: Meta,
        xattrs: Xattrs,
        kind: Kind,
    ) -> Id {
        self.weight += NODE_WEIGHT + xattrs.weight() + kind_weight(&kind);
        let inode = Inode { meta, xattrs, names: 0, kind };
        let id = if let Some(id) = self.free.pop() {
            *self.get_mut(id) = inode;
            id
        } else {
            self.inodes.push(inode);
            // The inode limit keeps the arena far below 2^32.
            (self.inodes.len() - 1) as Id
        };
        self.link(parent, name, layer, id);
        id
    }

    /// A further name for `target`, which is not a directory.
    pub(crate) fn hard_link(&mut self, parent: Id, name: &[u8], layer: u32, target: Id) -> Result<(), Fault> {
        match self.get(target).kind {
            Kind::Dir(_) => return Err(Fault::LinkTargetDirectory),
            Kind::Whiteout | Kind::Free => return Err(Fault::LinkTargetMissing),
            _ => {}
        }
        if self.name(parent, name).is_some_and(|there| there.id == target) {
            self.set_layer(parent, name, layer);
            return Ok(());
        }
        self.link(parent, name, layer, target);
        Ok(())
    }

    fn link(&mut self, parent: Id, name: &[u8], layer: u32, id: Id) {
        self.get_mut(id).names += 1;
        let Kind::Dir(dir) = &mut self.get_mut(parent).kind else { return };
        let old = dir.entries.insert(name.into(), Name { id, layer });
        self.weight += name_weight(name);
        if let Some(old) = old {
            self.weight -= name_weight(name);
            self.drop_name(old.id);
        }
    }

    fn set_layer(&mut self, parent: Id, name: &[u8], layer: u32) {
        if let Kind::Dir(dir) = &mut self.get_mut(parent).kind
            && let Some(name) = dir.entries.get_mut(name)
        {
            name.layer = layer;
        }
    }

    /// Removes a name, with the tree below it.
    fn unlink(&mut self, parent: Id, name: &[u8]) {
        let Kind::Dir(dir) = &mut self.get_mut(parent).kind else { return };
        if let Some(old) = dir.entries.remove(name) {
            self.weight -= name_weight(name);
            self.drop_name(old.id);
        }
    }

    fn drop_name(&mut self, id: Id) {
        let mut doomed = vec![id];
        while let Some(id) = doomed.pop() {
            let inode = self.get_mut(id);
            inode.names -= 1;
            if inode.names > 0 {
                continue;
            }
            let xattrs = std::mem::take(&mut inode.xattrs);
            let kind = std::mem::replace(&mut inode.kind, Kind::Free);
            self.weight -= NODE_WEIGHT + xattrs.weight() + kind_weight(&kind);
            match kind {
                Kind::Dir(dir) => {
                    for (name, target) in dir.entries {
                        self.weight -= name_weight(&name);
                        doomed.push(target.id);
                    }
                }
                Kind::File(stored) => self.forgotten.push(stored),
                _ => {}
            }
            self.free.push(id);
        }
    }
}

fn name_weight(name: &[u8]) -> u64 {
    NAME_WEIGHT + name.len() as u64
}

fn kind_weight(kind: &Kind) -> u64 {
    match kind {
        Kind::Symlink(target) => target.len() as u64,
        _ => 0,
    }
}
