//! Docker's default devices. Which ones may be *used* is decided by a program on the container's cgroup
//! ([`crate::container`]), as a container may make any node.

use std::{fs, io, os::unix::fs::symlink, path::Path};

use nix::{
    sys::stat::{Mode, SFlag, makedev, mknod, umask},
    unistd::{Gid, Uid, chown},
};

use super::{config::Device, failure::Failure};

const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
    ("/proc/kcore", "/dev/core"),
];

/// Makes the nodes and links in a fresh /dev.
pub(super) fn populate(extra: &[Device]) -> Result<(), Failure> {
    let before = umask(Mode::empty());
    let result = nodes(extra);
    umask(before);
    result
}

fn nodes(extra: &[Device]) -> Result<(), Failure> {
    for (path, major, minor) in DEFAULT {
        let device = Device { path: path.to_owned(), block: false, major, minor, mode: 0o666 };
        node(&device).map_err(|e| Failure::setup(format_args!("make {path}"), e))?;
    }
    for device in extra {
        node(device).map_err(|e| Failure::setup(format_args!("make {}", device.path), e))?;
    }
    for (target, link) in LINKS {
        match symlink(target, link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Failure::setup(format_args!("link {link}"), error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn node(device: &Device) -> io::Result<()> {
    let path = Path::new(&device.path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let kind = if device.block { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
    let number = makedev(u64::from(device.major), u64::from(device.minor));
    match mknod(path, kind, Mode::from_bits_truncate(device.mode), number) {
        // The user's choice replaces a default one.
        Err(nix::errno::Errno::EEXIST) => {
            fs::remove_file(path)?;
            mknod(path, kind, Mode::from_bits_truncate(device.mode), number)?;
        }
        other => other?,
    }
    Ok(chown(path, Some(Uid::from_raw(0)), Some(Gid::from_raw(0)))?)
}
