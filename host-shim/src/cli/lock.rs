//! One daemon per `ARCA_HOME`: whoever holds the lock is it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::home::Home;

/// Held as long as the daemon lives; the kernel releases it whatever way it ends.
#[derive(Debug)]
pub(super) struct DaemonLock {
    _lock: Flock<File>,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub(super) enum LockError {
    /// Another daemon lives.
    #[error("a daemon runs already for {} (pid {})", .home.display(), pid_text(*.pid))]
    Held {
        /// Its home.
        home: PathBuf,
        /// It, where it has told already.
        pid: Option<i32>,
    },
    /// The file cannot be used.
    #[error("cannot lock {}", .0.display())]
    Io(PathBuf, #[source] io::Error),
}

fn pid_text(pid: Option<i32>) -> String {
    pid.map_or_else(|| "unknown".to_owned(), |p| p.to_string())
}

impl DaemonLock {
    /// Takes the lock and leaves this process' id in it.
    pub(super) fn take(home: &Home) -> Result<Self, LockError> {
        let path = home.lock();
        let failed = |error: io::Error| LockError::Io(path.clone(), error);
        match try_lock(&path) {
            Ok(mut lock) => {
                lock.set_len(0).map_err(failed)?;
                writeln!(lock, "{}", std::process::id()).map_err(failed)?;
                Ok(Self { _lock: lock })
            }
            Err((_, Errno::EWOULDBLOCK)) => {
                Err(LockError::Held { home: home.root().to_owned(), pid: read_pid(&path) })
            }
            Err((_, error)) => Err(failed(error.into())),
        }
    }
}

/// Whether a daemon lives for `home`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// None does.
    Nobody,
    /// One does; its pid, unless it is just starting.
    Daemon(Option<i32>),
}

/// Looks without taking the lock for longer than a moment.
pub(super) fn owner(home: &Home) -> io::Result<Owner> {
    let path = home.lock();
    if !path.try_exists()? {
        return Ok(Owner::Nobody);
    }
    match try_lock(&path) {
        Ok(_) => Ok(Owner::Nobody),
        Err((_, Errno::EWOULDBLOCK)) => Ok(Owner::Daemon(read_pid(&path))),
        Err((_, error)) => Err(error.into()),
    }
}

fn try_lock(path: &Path) -> Result<Flock<File>, (Option<File>, Errno)> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| (None, Errno::from_raw(e.raw_os_error().unwrap_or(nix::libc::EIO))))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(file, error)| (Some(file), error))
}

fn read_pid(path: &Path) -> Option<i32> {
    let mut text = String::new();
    File::open(path).ok()?.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok().filter(|pid| *pid > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_daemon_per_home() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path()).unwrap();
        assert_eq!(owner(&home).unwrap(), Owner::Nobody);
        let lock = DaemonLock::take(&home).unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        assert_eq!(owner(&home).unwrap(), Owner::Daemon(Some(me)));
        let refusal = DaemonLock::take(&home).unwrap_err().to_string();
        assert!(refusal.contains(&format!("(pid {me})")), "{refusal}");
        drop(lock);
        // The file stays, the lock does not: a pid alone proves nothing.
        assert_eq!(owner(&home).unwrap(), Owner::Nobody);
        DaemonLock::take(&home).unwrap();
    }
}
