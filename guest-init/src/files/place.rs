//! Making files in a container: every parent is opened inside the root first, then only *at calls on it and on the new
//! file's own descriptor follow. A name that is swapped for a symlink meanwhile leads nowhere outside.

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, makedev,
};
use rustix::io::{Errno, Result as SysResult};
use tar::EntryType;

use super::FilesError;
use super::root::{Root, directory_below, join, proc_path};

/// What a tar says of a file besides its content.
#[derive(Debug)]
pub(super) struct Metadata<'a> {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, i64),
    pub(super) xattrs: &'a [(String, Vec<u8>)],
}

/// Makes files inside a root. Paths are those of the container.
#[derive(Debug)]
pub(super) struct Placer<'a> {
    pub(super) root: &'a Root,
    pub(super) no_overwrite: bool,
}

impl Placer<'_> {
    /// Opens the parent directory of `name` below `destination`, making what is missing.
    pub(super) fn parent(&self, destination: &[u8], name: &[u8]) -> Result<OwnedFd, FilesError> {
        let whole = join(destination, name);
        let parent = &whole[..whole.len() - last(&whole).len()];
        match self.root.directory(parent) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(|errno| FilesError::at(parent, errno)),
        }
        let mut path = destination.to_vec();
        let mut directory = self.root.directory(&path).map_err(|errno| FilesError::at(&path, errno))?;
        let parts: Vec<&[u8]> = name.split(|&byte| byte == b'/').collect();
        for part in parts.iter().take(parts.len().saturating_sub(1)) {
            path = join(&path, part);
            match rustix::fs::mkdirat(&directory, *part, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(FilesError::at(&path, errno)),
            }
            directory = self.root.directory(&path).map_err(|errno| FilesError::at(&path, errno))?;
        }
        Ok(directory)
    }

    /// Makes a directory, or takes the one that is there.
    pub(super) fn directory(
        &self,
        parent: &OwnedFd,
        target: &[u8],
        metadata: &Metadata,
    ) -> Result<(), FilesError> {
        let exists = self.make_room(parent, target, true)?;
        let fail = |errno| FilesError::at(target, errno);
        if !exists {
            rustix::fs::mkdirat(parent, last(target), Mode::RWXU).map_err(fail)?;
        }
        let directory = open_directory(parent, last(target)).map_err(fail)?;
        metadata.apply(&directory, target)
    }

    /// Makes an empty file, open for writing, readable by root only as yet.
    pub(super) fn file(&self, parent: &OwnedFd, target: &[u8]) -> Result<File, FilesError> {
        self.make_room(parent, target, false)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, last(target), flags, Mode::RUSR | Mode::WUSR);
        Ok(File::from(file.map_err(|errno| FilesError::at(target, errno))?))
    }

    /// Makes a hard link to `existing`; a symlink at its end is linked itself.
    pub(super) fn hard_link(
        &self,
        parent: &OwnedFd,
        target: &[u8],
        existing: &[u8],
    ) -> Result<(), FilesError> {
        let node = self.root.node(existing).map_err(|errno| FilesError::at(existing, errno))?;
        if let Ok(present) = rustix::fs::statat(parent, last(target), AtFlags::SYMLINK_NOFOLLOW)
            && (present.st_dev, present.st_ino) == node.identity()
        {
            return Ok(());
        }
        self.make_room(parent, target, false)?;
        rustix::fs::linkat(node.fd(), "", parent, last(target), AtFlags::EMPTY_PATH)
            .map_err(|errno| FilesError::at(target, errno))
    }

    /// Makes a symlink; what it says is never looked at.
    pub(super) fn symlink(
        &self,
        parent: &OwnedFd,
        target: &[u8],
        link: &[u8],
        metadata: &Metadata,
    ) -> Result<(), FilesError> {
        self.make_room(parent, target, false)?;
        let fail = |errno| FilesError::at(target, errno);
        rustix::fs::symlinkat(link, parent, last(target)).map_err(fail)?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let (uid, gid) = metadata.owner();
        rustix::fs::chownat(parent, last(target), uid, gid, flags).map_err(fail)?;
        rustix::fs::utimensat(parent, last(target), &metadata.times(), flags).map_err(fail)
    }

    /// Makes a named pipe or a device node.
    pub(super) fn special(
        &self,
        parent: &OwnedFd,
        target: &[u8],
        kind: EntryType,
        (major, minor): (u32, u32),
        metadata: &Metadata,
    ) -> Result<(), FilesError> {
        let (kind, device) = match kind {
            EntryType::Char => (FileType::CharacterDevice, makedev(major, minor)),
            EntryType::Block => (FileType::BlockDevice, makedev(major, minor)),
            _ => (FileType::Fifo, 0),
        };
        self.make_room(parent, target, false)?;
        let fail = |errno| FilesError::at(target, errno);
        rustix::fs::mknodat(parent, last(target), kind, Mode::RUSR | Mode::WUSR, device).map_err(fail)?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let (uid, gid) = metadata.owner();
        rustix::fs::chownat(parent, last(target), uid, gid, flags).map_err(fail)?;
        rustix::fs::utimensat(parent, last(target), &metadata.times(), flags).map_err(fail)?;
        // No call changes the mode of a name without following it; a descriptor that opens nothing can be named in /proc.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let pinned = rustix::fs::openat(parent, last(target), flags, Mode::empty()).map_err(fail)?;
        rustix::fs::chmod(proc_path(&pinned), Mode::from_raw_mode(metadata.mode)).map_err(fail)
    }

    /// Sets a directory's time, best effort: it may be gone by now.
    pub(super) fn directory_time(&self, path: &[u8], mtime: (i64, i64)) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        if let Ok(directory) = self.root.openat(path, flags) {
            let _ = rustix::fs::futimens(&directory, &times(mtime));
        }
    }

    /// Removes what is in the way; true when a directory is there and may stay.
    fn make_room(&self, parent: &OwnedFd, target: &[u8], directory: bool) -> Result<bool, FilesError> {
        let name = last(target);
        let present = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(FilesError::at(target, errno)),
        };
        let words =
            || (String::from_utf8_lossy(target).into_owned(), String::from_utf8_lossy(name).into_owned());
        match (present, directory) {
            (true, true) => return Ok(true),
            (true, false) if self.no_overwrite => {
                let (target, name) = words();
                return Err(FilesError::DirectoryWithNonDirectory(target, name));
            }
            (false, true) if self.no_overwrite => {
                let (target, name) = words();
                return Err(FilesError::NonDirectoryWithDirectory(target, name));
            }
            _ => {}
        }
        remove(parent, name).map(|()| false).map_err(|errno| FilesError::at(target, errno))
    }
}

impl Metadata<'_> {
    /// Sets all of it on an open file or directory; attributes that the file system or the kernel refuses are left out.
    pub(super) fn apply(&self, file: &OwnedFd, path: &[u8]) -> Result<(), FilesError> {
        let fail = |errno| FilesError::at(path, errno);
        let (uid, gid) = self.owner();
        rustix::fs::fchown(file, uid, gid).map_err(fail)?;
        // After the owner: chown(2) takes setuid and capabilities away.
        rustix::fs::fchmod(file, Mode::from_raw_mode(self.mode)).map_err(fail)?;
        for (name, value) in self.xattrs {
            match rustix::fs::fsetxattr(file, name.as_str(), value, XattrFlags::empty()) {
                // A tar cannot make overlayfs marks, nor names or values the kernel does not know.
                Ok(()) | Err(Errno::NOTSUP | Errno::PERM | Errno::INVAL | Errno::RANGE) => {}
                Err(errno) => return Err(fail(errno)),
            }
        }
        rustix::fs::futimens(file, &self.times()).map_err(fail)
    }

    fn owner(&self) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
    }

    fn times(&self) -> Timestamps {
        times(self.mtime)
    }
}

fn times((seconds, nanoseconds): (i64, i64)) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds },
    }
}

/// Removes a file or a whole tree, entering no symlink. Each directory is found again from `parent`, so that a deep tree
/// needs no descriptor per level.
fn remove(parent: &OwnedFd, name: &[u8]) -> SysResult<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        other => return other,
    }
    let mut stack = vec![name.to_vec()];
    while let Some(path) = stack.last() {
        let directory = directory_below(parent, path)?;
        if let Some(child) = unlink_files(&directory)? {
            let child = join(path, &child);
            stack.push(child);
            continue;
        }
        let child = last(path);
        let above = path[..path.len() - child.len()].strip_suffix(b"/").unwrap_or_default();
        let above = if above.is_empty() { None } else { Some(directory_below(parent, above)?) };
        rustix::fs::unlinkat(above.as_ref().unwrap_or(parent), child, AtFlags::REMOVEDIR)?;
        stack.pop();
    }
    Ok(())
}

/// Unlinks the files in a directory until a subdirectory is met, which is the answer.
fn unlink_files(directory: &OwnedFd) -> SysResult<Option<Vec<u8>>> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => return Ok(Some(name.to_vec())),
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}

fn open_directory(parent: &OwnedFd, name: &[u8]) -> SysResult<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// The last part of a path without a slash at its end.
fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}
