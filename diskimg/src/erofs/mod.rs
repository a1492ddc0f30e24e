//! EROFS, uncompressed: block 0 with the super block, file data, blocks of directories, metadata last.
//!
//! Format: Linux 6.1 `fs/erofs/erofs_fs.h` and `Documentation/filesystems/erofs.rst`.

mod dir;
mod inode;
mod plan;
mod slots;
mod superblock;

use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use crate::data::{BLOCK, DataArea};
use crate::error::{Bound, Error, Result};
use crate::tree::{Kind, ROOT, Tree};
use inode::FLAT_INLINE;
use plan::{Plan, Planned};
use superblock::SuperBlock;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Size of the image in bytes, a multiple of 4096.
    pub bytes: u64,
    /// Inodes in it.
    pub inodes: u64,
    /// Derived from the content.
    pub uuid: [u8; 16],
    /// The layer hides everything below it. overlayfs ignores an opaque mark on the root of a disk, so the
    /// disks below must be left out of the stack.
    pub root_opaque: bool,
}

/// Whether `file` is an image that was written to its end: super block, checksum and size agree. Cheap; it
/// finds disks that are empty, cut or overwritten at the start, not a flipped bit in the middle.
pub fn is_whole(file: &std::fs::File) -> bool {
    let mut bytes = [0; 3072];
    file.read_exact_at(&mut bytes, superblock::OFFSET).is_ok()
        && superblock::blocks(&bytes)
            .is_some_and(|blocks| file.metadata().is_ok_and(|meta| meta.len() == blocks * BLOCK))
}

/// Completes the image.
pub(crate) fn write(tree: &Tree, mut data: DataArea) -> Result<Summary> {
    let plan = Plan::new(tree, data.next_block());
    if !data.has_room(plan.own_blocks + plan.meta_blocks) {
        return Err(Error::limit(b"(metadata)", Bound::Bytes, data.max_blocks() * BLOCK));
    }
    for planned in plan.inodes.iter().filter(|planned| planned.own_blocks > 0) {
        let content = own_content(tree, &plan, planned);
        let blocks = (planned.own_blocks * BLOCK) as usize;
        data.append(&content[..blocks.min(content.len())])?;
    }
    let meta_block = data.next_block();
    let uuid = write_metadata(tree, &plan, &mut data)?;
    let blocks = data.next_block();
    let superblock = SuperBlock {
        // The root is placed first, so its number is small.
        root_nid: plan.nid(ROOT) as u16,
        inodes: plan.inodes.len() as u64,
        build_time: plan.build_time,
        blocks: blocks as u32,
        meta_block: meta_block as u32,
        uuid,
    };
    let file = data.finish()?;
    let done = || {
        file.write_all_at(&superblock.encode(), superblock::OFFSET)?;
        // Zeros at the end may have been skipped.
        file.set_len(blocks * BLOCK)?;
        file.sync_all()
    };
    done().map_err(Error::io("write the layer disk"))?;
    Ok(Summary {
        bytes: blocks * BLOCK,
        inodes: superblock.inodes,
        uuid,
        root_opaque: tree.dir(ROOT).is_some_and(|root| root.opaque),
    })
}

/// Writes the inodes with their attributes and inline data; the UUID is a digest of that.
fn write_metadata(tree: &Tree, plan: &Plan, data: &mut DataArea) -> Result<[u8; 16]> {
    const BATCH: usize = 256 * BLOCK as usize;
    let mut order: Vec<&Planned> = plan.inodes.iter().collect();
    order.sort_unstable_by_key(|planned| planned.offset);
    let mut hash = Sha256::new();
    let mut out = Vec::with_capacity(BATCH);
    // Offset in the metadata area of the start of `out`.
    let mut base = 0u64;
    for planned in order {
        let at = (planned.offset - base) as usize;
        if at >= BATCH {
            // Inodes are in order and only ever need whole earlier blocks: cut at the last boundary.
            let cut = at - at % BLOCK as usize;
            out.resize(out.len().max(cut), 0);
            hash.update(&out[..cut]);
            data.append(&out[..cut])?;
            out.drain(..cut);
            base += cut as u64;
        }
        out.resize((planned.offset - base) as usize, 0);
        planned.disk.encode(planned.extended, &mut out);
        let inode = tree.get(planned.id);
        plan::xattrs(inode).encode(&mut out);
        if planned.disk.layout == FLAT_INLINE {
            match &inode.kind {
                Kind::File(stored) => out.extend_from_slice(stored.tail.as_deref().unwrap_or_default()),
                _ => {
                    let content = own_content(tree, plan, planned);
                    out.extend_from_slice(&content[(planned.own_blocks * BLOCK) as usize..]);
                }
            }
        }
    }
    out.resize(((plan.meta_blocks * BLOCK) - base) as usize, 0);
    hash.update(&out);
    data.append(&out)?;
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&hash.finalize()[..16]);
    // RFC 9562: version 8 (custom), variant 10.
    uuid[6] = (uuid[6] & 0x0f) | 0x80;
    uuid[8] = (uuid[8] & 0x3f) | 0x80;
    Ok(uuid)
}

/// Content of a directory or symlink.
fn own_content(tree: &Tree, plan: &Plan, planned: &Planned) -> Vec<u8> {
    match &tree.get(planned.id).kind {
        Kind::Dir(_) => {
            let entries = plan.dirents(tree, planned.id);
            dir::encode(&entries, &dir::shape(&entries), |id| plan.nid(id))
        }
        Kind::Symlink(target) => target.to_vec(),
        _ => Vec::new(),
    }
}
