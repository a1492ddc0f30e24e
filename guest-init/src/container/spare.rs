//! Room that is kept on a container's disk, so that one which its processes filled can be mounted again: overlayfs makes
//! directories and files when it is mounted.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use nix::fcntl::{FallocateFlags, fallocate};

/// Bytes kept, and what is left of the last free ones for the files' own needs.
const BYTES: u64 = 1 << 20;
const MARGIN: u64 = 64 << 10;
/// Files kept.
const FILES: usize = 16;

/// Keeps room below `rw`, if none is kept yet. As much as there is, when it is little.
pub(super) fn keep(rw: &Path) {
    let folder = rw.join("spare");
    if folder.exists() {
        return;
    }
    let kept = (|| -> io::Result<()> {
        fs::create_dir(&folder)?;
        let free = nix::sys::statvfs::statvfs(rw)?;
        // A block is 4 KiB at most.
        let free = free.blocks_free().saturating_mul(free.fragment_size());
        let size = free.saturating_sub(MARGIN).min(BYTES);
        let file = File::create(folder.join("room"))?;
        if size > 0 {
            fallocate(&file, FallocateFlags::empty(), 0, i64::try_from(size).unwrap_or(0))?;
        }
        for number in 0..FILES {
            File::create(folder.join(number.to_string()))?;
        }
        Ok(())
    })();
    if let Err(error) = kept {
        crate::log::debug!("no spare room on the disk: {error}");
    }
}

/// Frees the room that is kept below `rw`; whether there was some.
pub(super) fn release(rw: &Path) -> bool {
    let freed = fs::remove_dir_all(rw.join("spare")).is_ok();
    if let Ok(disk) = File::open(rw) {
        // Blocks are free for others only once the journal says so.
        let _ = rustix::fs::syncfs(&disk);
    }
    freed
}
