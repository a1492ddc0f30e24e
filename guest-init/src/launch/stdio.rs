//! Descriptors 0, 1 and 2 of the process.

use std::os::fd::{AsFd, OwnedFd, RawFd};

use nix::mount::{MsFlags, mount};
use rustix::fs::{Gid, Mode, Uid, fchmod};

use super::failure::Failure;
use crate::sys::tty;

/// A terminal for the process.
pub(super) struct Terminal {
    pub(super) master: OwnedFd,
    pub(super) slave: OwnedFd,
}

/// Makes a terminal of the container's devpts and takes it as the controlling one; the first process's is /dev/console too.
pub(super) fn open_terminal(size: (u16, u16), console: bool) -> Result<Terminal, Failure> {
    let failed = |e: std::io::Error| Failure::setup("open terminal", e);
    let (master, slave, path) = tty::open_pair().map_err(failed)?;
    if size != (0, 0) {
        tty::resize(&master, size.0, size.1).map_err(failed)?;
    }
    if console {
        let none = None::<&str>;
        std::fs::File::create("/dev/console").map_err(failed)?;
        mount(Some(path.as_str()), "/dev/console", none, MsFlags::MS_BIND, none)
            .map_err(|e| failed(e.into()))?;
    }
    tty::control(&slave).map_err(failed)?;
    let _ = fchmod(&slave, Mode::from_raw_mode(0o620));
    Ok(Terminal { master, slave })
}

/// Makes `fd` descriptor `number` of the process.
pub(super) fn put(fd: RawFd, number: i32) -> Result<(), Failure> {
    // SAFETY: dup2(2) on two integers; descriptors 0 to 2 of the launcher are nobody else's.
    nix::errno::Errno::result(unsafe { libc::dup2(fd, number) })
        .map(drop)
        .map_err(|e| Failure::setup("set up stdio", e))
}

/// Lets the user open /dev/stdin, /dev/stdout and /dev/stderr again, as runc does; what the file system does not let be
/// given away (/dev/null on a read-only root) stays.
pub(super) fn give_to(uid: u32) -> Result<(), Failure> {
    if uid == 0 {
        return Ok(());
    }
    let null = std::fs::metadata("/dev/null").map(|m| std::os::unix::fs::MetadataExt::rdev(&m)).ok();
    for fd in [std::io::stdin().as_fd(), std::io::stdout().as_fd(), std::io::stderr().as_fd()] {
        let stat = rustix::fs::fstat(fd).map_err(|e| Failure::setup("fstat stdio", e))?;
        if Some(stat.st_rdev) != null {
            let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None::<Gid>);
        }
    }
    Ok(())
}
