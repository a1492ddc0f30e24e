//! The guest's own file systems, mounted before anything else.

use std::{fs, io, os::unix::fs::symlink, path::Path};

use nix::mount::{MsFlags, mount};

/// A step of the early set-up that failed; the VM is of no use then.
#[derive(Debug, thiserror::Error)]
#[error("early mount {0}: {1}")]
pub(crate) struct EarlyError(&'static str, #[source] io::Error);

/// Where containers' cgroups live.
pub(crate) const CGROUP_ROOT: &str = "/sys/fs/cgroup/arca";

/// Controllers that containers get.
const CONTROLLERS: [&str; 5] = ["cpu", "memory", "pids", "cpuset", "io"];

/// Mounts the guest's file systems and makes the root one that pivot_root(2) can leave.
pub(crate) fn early() -> Result<(), EarlyError> {
    let secure = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    leave_rootfs().map_err(|e| EarlyError("/", e))?;
    for (kind, target, flags, data) in [
        ("proc", "/proc", secure, ""),
        ("sysfs", "/sys", secure, ""),
        ("devtmpfs", "/dev", MsFlags::MS_NOSUID, "mode=0755"),
        ("tmpfs", "/run", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=0755"),
        ("devpts", "/dev/pts", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, "ptmxmode=0666,mode=0620,gid=5"),
        ("tmpfs", "/dev/shm", secure, "mode=1777"),
        ("cgroup2", "/sys/fs/cgroup", secure, ""),
    ] {
        special(kind, target, flags, data).map_err(|e| EarlyError(target, e))?;
    }
    for (name, target) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
        let _ = symlink(format!("/proc/self/fd{target}"), Path::new("/dev").join(name));
    }
    cgroups().map_err(|e| EarlyError("cgroup controllers", e))
}

fn special(kind: &str, target: &str, flags: MsFlags, data: &str) -> io::Result<()> {
    fs::create_dir_all(target)?;
    Ok(mount(Some(kind), target, Some(kind), flags, Some(data))?)
}

/// The initramfs is the kernel's rootfs, which pivot_root(2) refuses to leave: move onto a bind mount of it.
/// Both are read-only: the program of PID 1, which a container run with `--init` executes as well, is in it.
fn leave_rootfs() -> io::Result<()> {
    for folder in ["/proc", "/sys", "/dev", "/run"] {
        fs::create_dir_all(folder)?;
    }
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(None::<&str>, "/", None::<&str>, read_only, None::<&str>)?;
    mount(Some("/"), "/run", None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    std::env::set_current_dir("/run")?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    std::os::unix::fs::chroot(".")?;
    std::env::set_current_dir("/")
}

/// Turns the controllers on below the root and below [`CGROUP_ROOT`]. One that the kernel lacks is left out.
fn cgroups() -> io::Result<()> {
    fs::create_dir_all(CGROUP_ROOT)?;
    for group in ["/sys/fs/cgroup", CGROUP_ROOT] {
        for controller in CONTROLLERS {
            let _ = fs::write(format!("{group}/cgroup.subtree_control"), format!("+{controller}"));
        }
    }
    Ok(())
}
