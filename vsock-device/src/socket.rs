//! Listening sockets that only their owner can connect to, and that leave no file behind.

use std::{
    io,
    os::{fd::AsRawFd, unix::net::UnixListener},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FileType, Mode, fchmod},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with},
};

use crate::Error;

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 128;

/// A listening socket; its file is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Listening {
    pub listener: UnixListener,
    path: PathBuf,
}

impl Listening {
    /// Listens at `path`, readable and writable only by the owner. A socket that a dead process left there is replaced.
    pub(crate) fn bind(path: &Path) -> Result<Self, Error> {
        let listener = bind_private(path).map_err(|source| Error::Bind { path: path.to_owned(), source })?;
        Ok(Self { listener, path: path.to_owned() })
    }

    pub(crate) fn fd(&self) -> i32 {
        self.listener.as_raw_fd()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let is_socket =
        rustix::fs::lstat(path).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket);
    if is_socket {
        std::fs::remove_file(path)?;
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Linux gives the file the mode of the socket: there is no moment in which others could connect.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::PermissionsExt, net::UnixStream};

    use super::*;

    #[test]
    fn is_private_replaces_a_stale_one_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let listening = Listening::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(listening);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(Listening::bind(&path), Err(Error::Bind { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
