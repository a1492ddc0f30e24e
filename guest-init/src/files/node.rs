//! One file, pinned by an `O_PATH` descriptor: what it is cannot change between looking and acting.

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::{Errno, Result as SysResult};

use super::root::proc_path;

/// Longest extended attribute the kernel has (XATTR_SIZE_MAX).
const XATTR_MAX: usize = 64 << 10;

/// A pinned file and its attributes when it was pinned.
#[derive(Debug)]
pub(crate) struct Node {
    fd: OwnedFd,
    pub(crate) stat: Stat,
}

impl Node {
    pub(super) fn of(fd: OwnedFd) -> SysResult<Self> {
        let stat = rustix::fs::fstat(&fd)?;
        Ok(Self { fd, stat })
    }

    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// Device and inode: equal for two names of one file.
    pub(crate) fn identity(&self) -> (u64, u64) {
        (self.stat.st_dev, self.stat.st_ino)
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// Permission bits with setuid, setgid and sticky.
    pub(crate) fn permissions(&self) -> u32 {
        self.stat.st_mode & 0o7777
    }

    /// Size in bytes as the kernel tells it.
    pub(crate) fn size(&self) -> u64 {
        u64::try_from(self.stat.st_size).unwrap_or(0)
    }

    /// Opens a regular file for reading; anything else (a device!) is refused unopened with EINVAL.
    pub(crate) fn read(&self) -> SysResult<File> {
        if self.kind() != FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::open(proc_path(&self.fd), flags, Mode::empty())?))
    }

    /// Opens a directory for listing.
    pub(crate) fn list(&self) -> SysResult<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, ".", flags, Mode::empty())
    }

    /// The target of a symlink.
    pub(crate) fn link(&self) -> SysResult<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.fd, "", Vec::new())?.into_bytes())
    }

    /// An extended attribute, `None` when it is not set or the file system has none.
    pub(crate) fn xattr(&self, name: &str) -> Option<Vec<u8>> {
        // By path: the xattr calls refuse O_PATH descriptors.
        let path = proc_path(&self.fd);
        let mut value = vec![0; 256];
        loop {
            match rustix::fs::getxattr(&path, name, value.as_mut_slice()) {
                Ok(length) => {
                    value.truncate(length);
                    return Some(value);
                }
                Err(Errno::RANGE) if value.len() < XATTR_MAX => value.resize(XATTR_MAX, 0),
                Err(_) => return None,
            }
        }
    }

    /// Whether it is overlayfs' mark for a deleted name: a character device 0:0.
    pub(crate) fn is_whiteout(&self) -> bool {
        self.kind() == FileType::CharacterDevice && self.stat.st_rdev == 0
    }

    /// Whether it is a directory that hides the lower ones of its name.
    pub(crate) fn is_opaque(&self) -> bool {
        self.is_directory() && self.xattr("trusted.overlay.opaque").is_some_and(|value| value == b"y")
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}

impl From<Node> for File {
    fn from(node: Node) -> Self {
        Self::from(node.fd)
    }
}
