//! The API's socket: bound by a daemon, asked by the others whether somebody serves it.

use std::{
    io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    io::{Errno, FdFlags, fcntl_setfd, ioctl_fionbio},
    net::{AddressFamily, SocketAddrUnix, SocketType, connect as connect_to, socket},
};
use tokio::net::UnixListener;

use crate::error::{Error, Result};

/// Pause before knocking again at a socket whose queue is full.
const AGAIN: Duration = Duration::from_millis(20);

/// The bound socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct Socket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Socket {
    /// Binds `path` with mode 0660. A socket that nobody answers on is replaced, anything else is left alone.
    ///
    /// # Errors
    /// When another daemon answers there, or the path is not a socket, or cannot be bound.
    pub fn bind(path: &Path) -> Result<Self> {
        let failed = |what: &str, error: io::Error| {
            Error::system(format!("cannot {what} the API socket {}", path.display())).because(error)
        };
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                let text =
                    format!("{} exists and is not a socket: set socketPath in config.json", path.display());
                return Err(Error::system(text));
            }
            Ok(_) if is_served(path) => {
                let text = format!(
                    "another daemon answers on {}: stop it, or set socketPath in config.json",
                    path.display()
                );
                return Err(Error::system(text));
            }
            Ok(_) => std::fs::remove_file(path).map_err(|e| failed("replace", e))?,
            Err(_) => {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent).map_err(|e| failed("make the folder of", e))?;
                }
            }
        }
        let listener = UnixListener::bind(path).map_err(|e| failed("bind", e))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
            .map_err(|e| failed("open up", e))?;
        let inode = std::fs::symlink_metadata(path).map_err(|e| failed("look at", e))?.ino();
        Ok(Self { listener, path: path.to_owned(), inode })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Not if another daemon has bound the path meanwhile.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|m| m.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Connects, without the kernel's endless wait at a socket whose queue is full because its daemon hangs or is stopped.
///
/// # Errors
/// `TimedOut` when somebody listens and does not accept; else as the operating system says.
pub(crate) fn connect(path: &Path, within: Duration) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let begun = Instant::now();
    loop {
        let fd = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
        fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
        ioctl_fionbio(&fd, true)?;
        match connect_to(&fd, &address) {
            Ok(()) => {
                ioctl_fionbio(&fd, false)?;
                return Ok(fd.into());
            }
            Err(Errno::AGAIN) if begun.elapsed() < within => std::thread::sleep(AGAIN),
            Err(Errno::AGAIN) => {
                let text = format!(
                    "the daemon at {} accepts no client: does it hang? is it stopped?",
                    path.display()
                );
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether somebody listens, even one who does not answer at present.
pub(crate) fn is_served(path: &Path) -> bool {
    connect(path, Duration::ZERO).map_or_else(|error| error.kind() == io::ErrorKind::TimedOut, |_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A daemon that was stopped: clients fill its queue.
    #[test]
    fn a_full_queue_is_somebody_and_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        assert!(!is_served(&path));
        let listener = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        assert!(!is_served(&path), "nobody listens yet");
        rustix::net::listen(&listener, 0).unwrap();
        let mut clients = Vec::new();
        let full = loop {
            match connect(&path, Duration::from_millis(50)) {
                Ok(client) => clients.push(client),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::TimedOut, "{full}");
        assert!(is_served(&path));
        assert!(Socket::bind(&path).unwrap_err().message.contains("another daemon answers"));
        assert!(path.exists());
        drop((listener, clients));
        assert!(!is_served(&path));
    }
}
