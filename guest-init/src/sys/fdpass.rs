//! File descriptors over a unix stream socket (`SCM_RIGHTS`, unix(7)).

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};

/// Most descriptors in one message.
pub(crate) const MAX_FDS: usize = 8;

/// Sends `data` (at least one byte, few enough to go in one piece) with `fds`.
pub(crate) fn send(socket: &UnixStream, data: &[u8], fds: &[RawFd]) -> io::Result<()> {
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    let sent = uninterrupted(|| {
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(data)], control, MsgFlags::MSG_NOSIGNAL, None)
    })?;
    if sent == data.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// A timeout on the socket lets a signal (of any child's end) interrupt the call, SA_RESTART or not (signal(7)).
fn uninterrupted<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(nix::errno::Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Receives up to `data.len()` bytes and the descriptors that came with them, close-on-exec; 0 bytes at the end.
pub(crate) fn receive(socket: &UnixStream, data: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = cmsg_space!([RawFd; MAX_FDS]);
    let mut parts = [IoSliceMut::new(data)];
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just made these descriptors for us; nothing else owns them.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok((message.bytes, fds))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read};

    use super::*;

    #[test]
    fn a_descriptor_arrives_usable() {
        let (left, right) = UnixStream::pair().unwrap();
        let file = File::open("/proc/self/stat").unwrap();
        send(&left, b"x", &[file.as_raw_fd()]).unwrap();
        let mut data = [0; 4];
        let (n, mut fds) = receive(&right, &mut data).unwrap();
        assert_eq!((n, fds.len()), (1, 1));
        let mut text = String::new();
        File::from(fds.remove(0)).read_to_string(&mut text).unwrap();
        assert!(text.starts_with(&std::process::id().to_string()));
        drop(left);
        assert_eq!(receive(&right, &mut data).unwrap().0, 0);
    }
}
