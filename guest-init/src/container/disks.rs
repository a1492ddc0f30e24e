//! Block devices by serial: never by order, since hot-plugged ones come in any.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket},
};

/// A disk that did not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    /// Not there when the deadline passed.
    #[error("no disk with serial {0:?} appeared within {1:?}; disks seen: {2:?}")]
    Missing(String, Duration, Vec<String>),
    /// The kernel's events cannot be listened to.
    #[error("wait for disk {0:?}: {1}")]
    Events(String, #[source] io::Error),
}

/// Serials of all disks seen, with their device names.
pub(crate) fn list() -> Vec<(String, String)> {
    let mut disks = Vec::new();
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let Ok(serial) = fs::read_to_string(entry.path().join("serial")) else { continue };
        let serial = serial.trim().to_owned();
        if let (false, Ok(name)) = (serial.is_empty(), entry.file_name().into_string()) {
            disks.push((serial, name));
        }
    }
    disks.sort_unstable();
    disks
}

/// The device node of a disk, waiting for it to appear.
pub(crate) fn find(serial: &str, wait: Duration) -> Result<PathBuf, DiskError> {
    if let Some(device) = now(serial) {
        return Ok(device);
    }
    let failed = |e: nix::Error| DiskError::Events(serial.to_owned(), e.into());
    // Listen first, look then: an event in between is not lost.
    let events = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkKObjectUEvent,
    )
    .map_err(failed)?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&events), &NetlinkAddr::new(0, 1)).map_err(failed)?;
    let deadline = Instant::now() + wait;
    loop {
        if let Some(device) = now(serial) {
            return Ok(device);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let seen = list().into_iter().map(|(serial, _)| serial).collect();
            return Err(DiskError::Missing(serial.to_owned(), wait, seen));
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(&events), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(failed(error)),
        }
        let mut event = [0; 4096];
        while rustix::io::read(&events, &mut event).is_ok() {}
    }
}

fn now(serial: &str) -> Option<PathBuf> {
    let (_, name) = list().into_iter().find(|(s, _)| s == serial)?;
    let device = Path::new("/dev").join(name);
    device.exists().then_some(device)
}

/// Waits until no file system of the device is mounted any more (mount namespaces of dead processes go a little later):
/// an exclusive open of a block device is refused while it is.
pub(crate) fn released(device: &Path, wait: Duration) -> bool {
    use std::os::unix::fs::OpenOptionsExt;
    let deadline = Instant::now() + wait;
    loop {
        match fs::File::options().read(true).custom_flags(libc::O_EXCL).open(device) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return error.raw_os_error() != Some(libc::EBUSY),
            Ok(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_disk_is_named_after_the_deadline() {
        let error = find("arca-no-such-disk", Duration::from_millis(1)).unwrap_err();
        assert!(
            error.to_string().starts_with("no disk with serial \"arca-no-such-disk\" appeared within 1ms")
        );
    }
}
