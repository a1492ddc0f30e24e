//! Decides where every inode goes before anything is written, since directories name inode numbers.

use std::collections::{BTreeMap, HashMap};

use super::dir::{self, Dirent};
use super::inode::{COMPACT, DiskInode, EXTENDED, FLAT_INLINE, FLAT_PLAIN};
use super::slots::{SLOT, Slots};
use crate::data::BLOCK;
use crate::tree::{Id, Inode, Kind, ROOT, Tree};
use crate::xattr::Xattrs;

/// An inode with its place.
pub(super) struct Planned {
    pub(super) id: Id,
    pub(super) disk: DiskInode,
    pub(super) extended: bool,
    /// Byte offset in the metadata area.
    pub(super) offset: u64,
    /// Blocks that directories and symlinks need, to be written after all file data.
    pub(super) own_blocks: u64,
}

/// The layout of an image's metadata.
pub(super) struct Plan {
    /// In the order of the walk.
    pub(super) inodes: Vec<Planned>,
    pub(super) build_time: (i64, u32),
    /// Parent of each directory, by id.
    parents: HashMap<Id, Id>,
    /// Position in `inodes`, by id.
    index: Vec<u32>,
    pub(super) meta_blocks: u64,
    pub(super) own_blocks: u64,
}

impl Plan {
    /// Lays out `tree`; blocks of directories are numbered from `first_block`.
    pub(super) fn new(tree: &Tree, first_block: u64) -> Self {
        let (order, parents) = walk(tree);
        let build_time = most_common_time(tree, &order);
        let mut plan = Self {
            inodes: Vec::with_capacity(order.len()),
            build_time,
            parents,
            index: vec![u32::MAX; tree.capacity()],
            meta_blocks: 0,
            own_blocks: 0,
        };
        let mut slots = Slots::new();
        for id in order {
            plan.index[id as usize] = plan.inodes.len() as u32;
            let planned = plan.inode(tree, id, first_block, &mut slots);
            plan.inodes.push(planned);
        }
        plan.meta_blocks = slots.blocks();
        plan
    }

    /// The inode number of an inode.
    pub(super) fn nid(&self, id: Id) -> u64 {
        self.inodes[self.index[id as usize] as usize].offset / SLOT
    }

    /// A directory's names with `.` and `..`, sorted.
    pub(super) fn dirents<'t>(&self, tree: &'t Tree, id: Id) -> Vec<Dirent<'t>> {
        let parent = self.parents.get(&id).copied().unwrap_or(ROOT);
        let mut out = vec![
            Dirent { name: b".", id, file_type: file_type(&tree.get(id).kind).0 },
            Dirent { name: b"..", id: parent, file_type: file_type(&tree.get(parent).kind).0 },
        ];
        if let Some(dir) = tree.dir(id) {
            out.extend(dir.entries.iter().map(|(name, to)| Dirent {
                name,
                id: to.id,
                file_type: file_type(&tree.get(to.id).kind).0,
            }));
        }
        out.sort_unstable_by_key(|entry| entry.name);
        out
    }

    fn inode(&mut self, tree: &Tree, id: Id, first_block: u64, slots: &mut Slots) -> Planned {
        let inode = tree.get(id);
        let (size, union) = match &inode.kind {
            Kind::Dir(_) => (dir::shape(&self.dirents(tree, id)).size(), 0),
            Kind::Symlink(target) => (target.len() as u64, 0),
            Kind::File(stored) => (stored.size, stored.block),
            Kind::CharDevice(device) | Kind::BlockDevice(device) => (0, *device),
            Kind::Fifo | Kind::Whiteout | Kind::Free => (0, 0),
        };
        let mut disk = DiskInode {
            layout: FLAT_PLAIN,
            xattr_len: xattrs(inode).encoded_len(),
            mode: inode.meta.mode | file_type(&inode.kind).1,
            nlink: tree.nlink(id),
            size,
            union,
            ino: self.inodes.len() as u32 + 1,
            uid: inode.meta.uid,
            gid: inode.meta.gid,
            mtime: inode.meta.mtime,
        };
        let extended = !disk.fits_compact(self.build_time);
        let head = if extended { EXTENDED } else { COMPACT } as u64 + disk.xattr_len as u64;
        let tail = size % BLOCK;
        let inline = match &inode.kind {
            Kind::File(stored) => stored.tail.is_some(),
            Kind::Dir(_) | Kind::Symlink(_) => tail > 0 && head + tail <= BLOCK,
            _ => false,
        };
        let mut need = head;
        if inline {
            disk.layout = FLAT_INLINE;
            need += tail;
        }
        let mut own_blocks = 0;
        if matches!(inode.kind, Kind::Dir(_) | Kind::Symlink(_)) {
            own_blocks = if inline { size / BLOCK } else { size.div_ceil(BLOCK) };
            // Checked against the image's limit before anything is written.
            disk.union = (first_block + self.own_blocks) as u32;
            self.own_blocks += own_blocks;
        }
        Planned { id, disk, extended, offset: slots.place(need), own_blocks }
    }
}

/// Attributes as stored: overlayfs finds its mark among them.
pub(super) fn xattrs(inode: &Inode) -> std::borrow::Cow<'_, Xattrs> {
    use std::borrow::Cow;
    match &inode.kind {
        Kind::Dir(dir) if dir.opaque => {
            let mut xattrs = inode.xattrs.clone();
            xattrs.set_opaque();
            Cow::Owned(xattrs)
        }
        _ => Cow::Borrowed(&inode.xattrs),
    }
}

/// `EROFS_FT_*` and `S_IFMT` bits.
fn file_type(kind: &Kind) -> (u8, u16) {
    match kind {
        Kind::File(_) => (1, 0o100_000),
        Kind::Dir(_) => (2, 0o040_000),
        Kind::CharDevice(_) | Kind::Whiteout => (3, 0o020_000),
        Kind::BlockDevice(_) => (4, 0o060_000),
        Kind::Fifo => (5, 0o010_000),
        Kind::Symlink(_) => (7, 0o120_000),
        Kind::Free => (0, 0),
    }
}

/// All inodes, each directory followed by its files and then its subdirectories, so that what is listed
/// together lies together; and the parents of directories.
fn walk(tree: &Tree) -> (Vec<Id>, HashMap<Id, Id>) {
    let mut order = vec![ROOT];
    let mut seen = vec![false; tree.capacity()];
    let mut parents = HashMap::new();
    let mut todo = vec![ROOT];
    seen[ROOT as usize] = true;
    while let Some(id) = todo.pop() {
        let Some(dir) = tree.dir(id) else { continue };
        let first = todo.len();
        for to in dir.entries.values() {
            if std::mem::replace(&mut seen[to.id as usize], true) {
                continue;
            }
            order.push(to.id);
            if tree.dir(to.id).is_some() {
                parents.insert(to.id, id);
                todo.push(to.id);
            }
        }
        todo[first..].reverse();
    }
    (order, parents)
}

/// The time that the most inodes share: those take half the space.
fn most_common_time(tree: &Tree, order: &[Id]) -> (i64, u32) {
    let mut counts: BTreeMap<(i64, u32), u32> = BTreeMap::new();
    for &id in order {
        *counts.entry(tree.get(id).meta.mtime).or_default() += 1;
    }
    counts.into_iter().max_by_key(|&(_, count)| count).map_or((0, 0), |(time, _)| time)
}
