//! Terminal ioctls (ioctl_tty(2)).

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use rustix::fs::{CWD, Mode, OFlags, openat};

/// Sets the window size, which sends SIGWINCH to the terminal's foreground group.
pub(crate) fn resize(master: impl AsFd, width: u16, height: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one `winsize`, which lives through the call.
    check(unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })
}

/// A terminal pair of the devpts at `/dev/pts`: the master, the slave and the slave's path.
pub(crate) fn open_pair() -> io::Result<(OwnedFd, OwnedFd, String)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = openat(CWD, "/dev/pts/ptmx", flags, Mode::empty())?;
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which lives through the call.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) })?;
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes one unsigned int, which lives through the call.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) })?;
    let path = format!("/dev/pts/{number}");
    let slave = openat(CWD, &path, flags, Mode::empty())?;
    Ok((master, slave, path))
}

/// Makes `slave` the controlling terminal of the calling session leader.
pub(crate) fn control(slave: impl AsFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an int by value.
    check(unsafe { libc::ioctl(slave.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
