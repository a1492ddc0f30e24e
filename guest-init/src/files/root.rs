//! The root of a container, and names resolved inside it by the kernel.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{Errno, Result as SysResult};

use super::FilesError;
use super::node::Node;

/// How often a lookup is repeated that raced with a rename: openat2(2) says EAGAIN then.
const RACE_RETRIES: usize = 32;

/// Memory that names may take while a tree is walked: some hundred thousand.
pub(super) const MAX_NAMES: usize = 48 << 20;
/// What keeping a name takes besides its bytes.
pub(super) const NAME_COST: usize = 64;

/// An open root directory. Lookups stay inside: absolute symlinks and `..` mean this root, as after chroot(2).
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Opens a directory as a root.
    ///
    /// # Errors
    /// When `path` is no directory.
    pub(crate) fn open(path: &Path) -> Result<Self, FilesError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(|errno| FilesError::at(path.as_os_str().as_encoded_bytes(), errno))?;
        Ok(Self { fd })
    }

    /// Opens `path` inside the root; flags decide whether a symlink at its end is followed.
    pub(crate) fn openat(&self, path: &[u8], flags: OFlags) -> SysResult<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // An empty path is the root itself (openat2 would say ENOENT).
        let path = if path.is_empty() { b"/".as_slice() } else { path };
        retry(|| openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve))
    }

    /// The node at `path`; a symlink at its end is not followed (unless the path ends in a slash).
    pub(crate) fn node(&self, path: &[u8]) -> SysResult<Node> {
        Node::of(self.openat(path, OFlags::PATH | OFlags::NOFOLLOW)?)
    }

    /// The node at `path` with all symlinks followed.
    pub(crate) fn follow(&self, path: &[u8]) -> SysResult<Node> {
        Node::of(self.openat(path, OFlags::PATH)?)
    }

    /// Opens a regular file for reading, symlinks followed. Needs no /proc: the launcher reads the users of a container
    /// from within its root.
    pub(crate) fn read(&self, path: &[u8]) -> SysResult<File> {
        let pinned = self.follow(path)?;
        if pinned.kind() != FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        // Should the name lead elsewhere by now, the open neither waits nor takes a terminal, and the file is not used.
        let opened = Node::of(self.openat(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?)?;
        if opened.identity() != pinned.identity() {
            return Err(Errno::AGAIN);
        }
        Ok(opened.into())
    }

    /// A directory at `path`, symlinks followed, as a parent for *at calls.
    pub(crate) fn directory(&self, path: &[u8]) -> SysResult<OwnedFd> {
        self.openat(path, OFlags::PATH | OFlags::DIRECTORY)
    }
}

/// Opens a directory below `base`, by a relative path without any symlink in it.
pub(crate) fn directory_below(base: &OwnedFd, path: &[u8]) -> SysResult<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = if path.is_empty() { b".".as_slice() } else { path };
    retry(|| openat2(base, path, flags, Mode::empty(), resolve))
}

/// The sorted names in a directory, without `.` and `..`. One that vanished has none; one with more names than
/// [`MAX_NAMES`] bytes is refused with E2BIG, as its container must not fill the guest's memory.
pub(crate) fn names(directory: &OwnedFd) -> SysResult<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    let mut size = 0;
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Errno::NOENT) => break,
            Err(errno) => return Err(errno),
        };
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            size += name.len() + NAME_COST;
            if size > MAX_NAMES {
                return Err(Errno::TOOBIG);
            }
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The path of an open file: a system call on it acts on just that file, and not on what a name leads to by now.
pub(crate) fn proc_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// `directory/name`; the directory may be empty.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = directory.to_vec();
    if !path.is_empty() && !path.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

fn retry<T>(mut call: impl FnMut() -> SysResult<T>) -> SysResult<T> {
    for _ in 1..RACE_RETRIES {
        match call() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    call()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_inside() {
        let temp = tempfile::tempdir().unwrap();
        let inside = temp.path().join("root");
        std::fs::create_dir_all(inside.join("etc")).unwrap();
        std::fs::write(temp.path().join("secret"), "outside").unwrap();
        std::fs::write(inside.join("etc/here"), "inside").unwrap();
        symlink("/etc/here", inside.join("absolute")).unwrap();
        symlink("../../../../etc/here", inside.join("up")).unwrap();
        symlink("../secret", inside.join("escape")).unwrap();
        symlink(temp.path().join("secret"), inside.join("escape2")).unwrap();
        let root = Root::open(&inside).unwrap();
        for path in ["/absolute", "up", "../../etc/here", "//etc/./here"] {
            assert_eq!(root.follow(path.as_bytes()).unwrap().size(), 6, "{path}");
        }
        for path in ["/escape", "escape2", "/../secret"] {
            assert_eq!(root.follow(path.as_bytes()).unwrap_err(), Errno::NOENT, "{path}");
        }
    }
}
