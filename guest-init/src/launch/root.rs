//! The root of a container's first process, assembled in its own mount namespace.
//!
//! pivot_root comes first: from then on every absolute path, and every symlink of the image, ends inside the container.

use std::{fs, io::ErrorKind, os::fd::OwnedFd, path::Path};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::pivot_root,
};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::{config::First, dev, failure::Failure, masks, mount as user_mount, options, sysctl};

const SECURE: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC).union(MsFlags::MS_NODEV);

/// Enters the root and fills it.
pub(super) fn assemble(first: &First) -> Result<(), Failure> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|e| Failure::setup("make mounts private", e))?;
    let shm = open_tree(
        rustix::fs::CWD,
        &*first.shm,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )
    .map_err(|e| Failure::setup("clone /dev/shm", e))?;
    enter(&first.root)?;

    let read_only = if first.privileged { MsFlags::empty() } else { MsFlags::MS_RDONLY };
    let asked = |path: &str| first.mounts.iter().any(|m| Path::new(&m.target) == Path::new(path));
    special("proc", "/proc", SECURE, "")?;
    if !asked("/dev") {
        special("tmpfs", "/dev", MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME, "mode=755,size=65536k")?;
    }
    special(
        "devpts",
        "/dev/pts",
        SECURE.difference(MsFlags::MS_NODEV),
        "newinstance,ptmxmode=0666,mode=0620,gid=5",
    )?;
    special("sysfs", "/sys", SECURE | read_only, "")?;
    special("cgroup2", "/sys/fs/cgroup", SECURE | read_only, "nsdelegate")
        .or_else(|_| special("cgroup2", "/sys/fs/cgroup", SECURE | read_only, ""))?;
    if !asked("/dev/mqueue") {
        special("mqueue", "/dev/mqueue", SECURE, "")?;
    }
    if !asked("/dev/shm") {
        attach_shm(&shm)?;
    }
    dev::populate(&first.devices)?;
    let mut mounts: Vec<_> = first.mounts.iter().collect();
    // A mount below another one comes after it.
    mounts.sort_by_key(|m| Path::new(&m.target).components().count());
    for wanted in mounts {
        user_mount::apply(wanted)?;
    }
    sysctl::apply(&first.sysctls)?;
    if first.readonly {
        options::remount(Path::new("/"), MsFlags::MS_RDONLY)
            .map_err(|e| Failure::setup("remount root read-only", e))?;
    }
    masks::apply(&first.masked, &first.readonly_paths)
}

/// Makes `root` the root and forgets the guest's own.
fn enter(root: &str) -> Result<(), Failure> {
    std::env::set_current_dir(root).map_err(|e| Failure::setup("chdir to root", e))?;
    // pivot_root(2): with both "." the old root lies under the new one and can be detached at once.
    pivot_root(".", ".").map_err(|e| Failure::setup("pivot_root", e))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(|e| Failure::setup("detach old root", e))?;
    std::env::set_current_dir("/").map_err(|e| Failure::setup("chdir to new root", e))
}

/// Mounts one of the kernel's file systems. Its mount point must be a real directory: a symlink in an image would put, say,
/// /proc elsewhere and leave masked paths uncovered.
fn special(kind: &str, target: &str, flags: MsFlags, data: &str) -> Result<(), Failure> {
    directory(target)?;
    mount(Some(kind), target, Some(kind), flags, Some(data))
        .map_err(|e| Failure::setup(format_args!("mount {kind} on {target}"), e))
}

fn directory(target: &str) -> Result<(), Failure> {
    if let Err(error) = fs::create_dir_all(target)
        && error.kind() != ErrorKind::AlreadyExists
    {
        return Err(Failure::setup(format_args!("mkdir {target}"), error));
    }
    match fs::symlink_metadata(target) {
        Ok(meta) if meta.is_dir() => Ok(()),
        _ => {
            Err(Failure::plain(format_args!("the image's {target} is no directory: it cannot be mounted on")))
        }
    }
}

/// PID 1 keeps the shared memory of a container, so that another one can share it.
fn attach_shm(shm: &OwnedFd) -> Result<(), Failure> {
    directory("/dev/shm")?;
    move_mount(shm, "", rustix::fs::CWD, "/dev/shm", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|e| Failure::setup("mount /dev/shm", e))
}
