//! Paths inside a container's root, resolved by the kernel so that no symlink of the image leads out of it.

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2},
    io::Errno,
};

/// Opens the root itself.
pub(crate) fn open_root(root: &Path) -> Result<OwnedFd, Errno> {
    openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens `path` as if `root` were `/`.
pub(crate) fn open(root: impl AsFd, path: &Path, flags: OFlags, mode: u32) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC;
    openat2(root, path, flags, Mode::from_raw_mode(mode), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Opens the directory `path`, making what is missing of it (mode 0755).
pub(crate) fn make_dirs(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let directory = OFlags::PATH | OFlags::DIRECTORY;
    match open(&root, path, directory, 0) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let mut walked = PathBuf::from("/");
    let mut at = open(&root, &walked, directory, 0)?;
    for part in path.components() {
        match part {
            Component::Normal(name) => {
                walked.push(name);
                at = match open(&root, &walked, directory, 0) {
                    Err(Errno::NOENT) => {
                        match mkdirat(&at, name, Mode::from_raw_mode(0o755)) {
                            Ok(()) | Err(Errno::EXIST) => {}
                            Err(error) => return Err(error),
                        }
                        open(&root, &walked, directory, 0)?
                    }
                    other => other?,
                };
            }
            Component::ParentDir => return Err(Errno::INVAL),
            _ => {}
        }
    }
    Ok(at)
}

/// Opens (`O_PATH`) the file `path`, making it empty, and its parents, when missing.
pub(crate) fn make_file(root: impl AsFd, path: &Path, mode: u32) -> Result<OwnedFd, Errno> {
    match open(&root, path, OFlags::PATH, 0) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let parent = make_dirs(&root, path.parent().unwrap_or(Path::new("/")))?;
    let name = path.file_name().unwrap_or(OsStr::from_bytes(b"")).to_owned();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(&parent, &name, flags, Mode::from_raw_mode(mode)) {
        Ok(_) => open(&root, path, OFlags::PATH, 0),
        Err(error) => Err(error),
    }
}

/// The name under which an open descriptor can be a mount's source or target.
pub(crate) fn proc_path(fd: impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn symlinks_stay_in_the_root() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), root.path().join("evil")).unwrap();
        symlink("/real", root.path().join("link")).unwrap();
        fs::create_dir(root.path().join("real")).unwrap();
        let fd = open_root(root.path()).unwrap();
        make_file(&fd, Path::new("/link/a/b"), 0o644).unwrap();
        assert!(root.path().join("real/a/b").is_file());
        // The target does not exist inside the root: no file may appear outside.
        assert!(make_file(&fd, Path::new("/evil/x"), 0o644).is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn parents_are_made_once() {
        let root = tempfile::tempdir().unwrap();
        let fd = open_root(root.path()).unwrap();
        make_dirs(&fd, Path::new("/a/b/c")).unwrap();
        make_dirs(&fd, Path::new("/a/b/c")).unwrap();
        assert!(root.path().join("a/b/c").is_dir());
        assert_eq!(make_dirs(&fd, Path::new("/x/../y")).unwrap_err(), Errno::INVAL);
    }
}
