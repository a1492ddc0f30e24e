//! `ArchiveStat`: what is at a path, as docker's `X-Docker-Container-Path-Stat` header tells it.

use std::collections::VecDeque;
use std::path::Path;

use proto::sandbox::PathStat;
use rustix::fs::FileType;

use super::FilesError;
use super::node::Node;
use super::root::{Root, join};

/// Symlinks followed for one path before it counts as a loop.
const MAX_LINKS: usize = 255;

/// Describes `path` in the container; a symlink at its end is described itself, unless the path ends in `/` or `/.`.
///
/// # Errors
/// [`FilesError::NotFound`], [`FilesError::NotADirectory`], or what the kernel said.
pub(crate) fn stat(root: &Path, path: &str) -> Result<PathStat, FilesError> {
    let root = Root::open(root)?;
    let path = absolute(path);
    let node = root.node(path.as_bytes()).map_err(|errno| FilesError::at(&path, errno))?;
    Ok(describe(&root, &path, &node))
}

/// The stat of a node that was found at `path` (as [`absolute`] made it).
pub(super) fn describe(root: &Root, path: &str, node: &Node) -> PathStat {
    let link_target = match node.kind() {
        FileType::Symlink => resolve(root, path),
        _ => String::new(),
    };
    PathStat {
        name: base(path).to_owned(),
        size: node.size(),
        mode: go_mode(node),
        mtime_seconds: node.stat.st_mtime,
        mtime_nanoseconds: i32::try_from(node.stat.st_mtime_nsec).unwrap_or(0),
        link_target,
    }
}

/// The bits of Go's os.FileMode.
fn go_mode(node: &Node) -> u32 {
    const DIRECTORY: u32 = 1 << 31;
    const SYMLINK: u32 = 1 << 27;
    const DEVICE: u32 = 1 << 26;
    const NAMED_PIPE: u32 = 1 << 25;
    const SOCKET: u32 = 1 << 24;
    const SETUID: u32 = 1 << 23;
    const SETGID: u32 = 1 << 22;
    const CHAR_DEVICE: u32 = 1 << 21;
    const STICKY: u32 = 1 << 20;
    let permissions = node.permissions();
    let mut mode = permissions & 0o777;
    for (bit, go) in [(0o4000, SETUID), (0o2000, SETGID), (0o1000, STICKY)] {
        if permissions & bit != 0 {
            mode |= go;
        }
    }
    mode | match node.kind() {
        FileType::Directory => DIRECTORY,
        FileType::Symlink => SYMLINK,
        FileType::BlockDevice => DEVICE,
        FileType::CharacterDevice => DEVICE | CHAR_DEVICE,
        FileType::Fifo => NAMED_PIPE,
        FileType::Socket => SOCKET,
        _ => 0,
    }
}

/// Makes a path absolute and clean as docker does: by words alone, but a final `/` or `/.` stays, since it decides whether
/// a symlink is followed and what the archive's entries are called.
pub(super) fn absolute(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut clean = format!("/{}", parts.join("/"));
    if path.trim_end_matches('/').rsplit('/').next() == Some(".") {
        if !clean.ends_with('/') {
            clean.push('/');
        }
        clean.push('.');
    }
    if path.ends_with('/') && !clean.ends_with('/') {
        clean.push('/');
    }
    clean
}

/// Go's filepath.Base: the last element, `/` for the root.
pub(super) fn base(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { "/" } else { trimmed.rsplit('/').next().unwrap_or(trimmed) }
}

/// Follows all symlinks of a path within the root, as far as there is something: the rest stays by its words.
fn resolve(root: &Root, path: &str) -> String {
    let mut todo: VecDeque<Vec<u8>> = path.split('/').map(|part| part.as_bytes().to_vec()).collect();
    let mut done: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(part) = todo.pop_front() {
        match part.as_slice() {
            b"" | b"." => continue,
            b".." => {
                done.pop();
                continue;
            }
            _ => {}
        }
        let here = join(&done.join(&b'/'), &part);
        let target = match root.node(&here) {
            Ok(node) if node.kind() == FileType::Symlink && links < MAX_LINKS => node.link().ok(),
            _ => None,
        };
        let Some(target) = target else {
            done.push(part);
            continue;
        };
        links += 1;
        if target.starts_with(b"/") {
            done.clear();
        }
        for part in target.split(|&byte| byte == b'/').rev() {
            todo.push_front(part.to_vec());
        }
    }
    format!("/{}", String::from_utf8_lossy(&done.join(&b'/')))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn paths_are_cleaned_as_docker_does() {
        for (path, clean, name) in [
            ("", "/", "/"),
            ("/", "/", "/"),
            (".", "/.", "."),
            ("a/b", "/a/b", "b"),
            ("/a/../../b/", "/b/", "b"),
            ("/a/.", "/a/.", "."),
            ("/a//./b/./", "/a/b/./", "."),
            ("/..", "/", "/"),
        ] {
            assert_eq!(absolute(path), clean, "{path}");
            assert_eq!(base(&absolute(path)), name, "{path}");
        }
    }

    #[test]
    fn kinds_modes_and_links() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::set_permissions(root.join("d"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::write(root.join("d/f"), "hello").unwrap();
        fs::set_permissions(root.join("d/f"), fs::Permissions::from_mode(0o6755)).unwrap();
        symlink("/d/f", root.join("l")).unwrap();
        symlink("../../d", root.join("d/e/up")).unwrap();
        symlink("/nowhere/../there", root.join("broken")).unwrap();
        symlink("loop", root.join("loop")).unwrap();

        let directory = stat(root, "/d").unwrap();
        assert_eq!((directory.mode, directory.name.as_str()), (1 << 31 | 1 << 20 | 0o777, "d"));
        let file = stat(root, "d/f").unwrap();
        assert_eq!((file.mode, file.size), (1 << 23 | 1 << 22 | 0o755, 5));
        let link = stat(root, "/l").unwrap();
        assert_eq!((link.mode, link.link_target.as_str()), (1 << 27 | 0o777, "/d/f"));
        assert_eq!(stat(root, "/d/e/up").unwrap().link_target, "/d");
        assert_eq!(stat(root, "/broken").unwrap().link_target, "/there");
        assert_eq!(stat(root, "/loop").unwrap().link_target, "/loop");
        let through = stat(root, "/d/e/up/").unwrap();
        assert_eq!((through.mode >> 31, through.name.as_str(), through.link_target.as_str()), (1, "up", ""));
        assert_eq!(stat(root, "/").unwrap().name, "/");
        assert!(matches!(stat(root, "/none"), Err(FilesError::NotFound(path)) if path == "/none"));
        assert!(matches!(stat(root, "/d/f/"), Err(FilesError::NotADirectory(_))));
        assert!(stat(root, "/a\0b").is_err());
    }
}
