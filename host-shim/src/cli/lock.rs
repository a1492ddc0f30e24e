//! One daemon per `ARCA_HOME`: whoever holds the lock is it. The file tells who that is: its pid, and the socket it serves.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::home::{Home, advice};

/// How long a new daemon tries: a look at the lock holds it for a moment, and one that has just got it tells its pid soon.
const TRIES: Duration = Duration::from_millis(500);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(10);
/// Most bytes of the file.
const MOST: u64 = 8 << 10;

/// Held as long as the daemon lives; the kernel releases it whatever way it ends.
#[derive(Debug)]
pub(super) struct DaemonLock {
    file: Flock<File>,
    path: PathBuf,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub(super) enum LockError {
    /// Another daemon lives.
    #[error("a daemon runs already for {}{}: `arca daemon stop` ends it", .home.display(), pid_text(*.pid))]
    Held {
        /// Its home.
        home: PathBuf,
        /// It, where it has told already.
        pid: Option<i32>,
    },
    /// The file cannot be used.
    #[error("cannot lock {}: {}; {}", .0.display(), .1, advice(.1))]
    Io(PathBuf, #[source] io::Error),
}

/// ` (pid 7)`, if it is known.
pub(super) fn pid_text(pid: Option<i32>) -> String {
    pid.map(|p| format!(" (pid {p})")).unwrap_or_default()
}

impl DaemonLock {
    /// Takes the lock and leaves this process' id in it.
    pub(super) fn take(home: &Home) -> Result<Self, LockError> {
        let path = home.lock();
        let deadline = Instant::now() + TRIES;
        loop {
            match try_lock(&path, FlockArg::LockExclusiveNonblock) {
                Ok(file) => {
                    let mut lock = Self { file, path };
                    lock.write("")?;
                    return Ok(lock);
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Err(LockError::Io(path, error));
                }
                Err(_) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                Err(_) => {
                    return Err(LockError::Held { home: home.root().to_owned(), pid: Told::read(&path).pid });
                }
            }
        }
    }

    /// Tells where this daemon is reached.
    pub(super) fn tell(&mut self, socket: &Path) -> Result<(), LockError> {
        self.write(&socket.to_string_lossy())
    }

    /// In place and cut afterwards: that takes no new block, so a daemon also starts on a full disk.
    fn write(&mut self, socket: &str) -> Result<(), LockError> {
        let text = format!("{}\n{socket}\n", std::process::id());
        let mut write = || {
            self.file.rewind()?;
            self.file.write_all(text.as_bytes())?;
            self.file.set_len(text.len() as u64)
        };
        write().map_err(|error: io::Error| LockError::Io(self.path.clone(), error))
    }
}

/// Whether a daemon lives for a home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// None does.
    Nobody,
    /// One does.
    Daemon(Told),
}

/// What a daemon told of itself; it may be just starting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Its process id.
    pub(super) pid: Option<i32>,
    /// Its API socket: the configuration may have changed since.
    pub(super) socket: Option<PathBuf>,
}

impl Told {
    fn read(path: &Path) -> Self {
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(MOST).read_to_string(&mut text));
        if read.is_err() {
            return Self::default();
        }
        let mut lines = text.lines();
        let pid = lines.next().and_then(|pid| pid.trim().parse().ok()).filter(|pid| *pid > 1);
        Self { pid, socket: lines.next().filter(|socket| !socket.is_empty()).map(PathBuf::from) }
    }
}

/// Looks without being in the way of a daemon that starts.
pub(super) fn owner(home: &Home) -> Result<Owner, LockError> {
    let path = home.lock();
    match try_lock(&path, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(Owner::Nobody),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Owner::Daemon(Told::read(&path))),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Owner::Nobody)
        }
        Err(error) => Err(LockError::Io(path, error)),
    }
}

fn try_lock(path: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    let mut options = OpenOptions::new();
    options.read(true);
    if matches!(how, FlockArg::LockExclusiveNonblock) {
        options.write(true).create(true).truncate(false).mode(0o600);
    }
    let file = options.open(path)?;
    Flock::lock(file, how).map_err(|(_, error)| match error {
        Errno::ENOLCK | Errno::EOPNOTSUPP => {
            io::Error::new(io::ErrorKind::Unsupported, "this file system has no locks")
        }
        error => error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_daemon_per_home() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path()).unwrap();
        assert_eq!(owner(&home).unwrap(), Owner::Nobody);
        assert!(!home.lock().exists(), "looking leaves nothing");
        let mut lock = DaemonLock::take(&home).unwrap();
        let pid = i32::try_from(std::process::id()).ok();
        assert_eq!(owner(&home).unwrap(), Owner::Daemon(Told { pid, socket: None }));
        lock.tell(Path::new("/a b/s.sock")).unwrap();
        let told = Told { pid, socket: Some("/a b/s.sock".into()) };
        assert_eq!(owner(&home).unwrap(), Owner::Daemon(told));
        let refusal = DaemonLock::take(&home).unwrap_err().to_string();
        assert!(refusal.contains(&format!("(pid {})", std::process::id())), "{refusal}");
        drop(lock);
        // The file stays, the lock does not: a pid alone proves nothing.
        assert_eq!(owner(&home).unwrap(), Owner::Nobody);
        DaemonLock::take(&home).unwrap();
        assert!(!std::fs::read_to_string(home.lock()).unwrap().contains("s.sock"));
    }

    #[test]
    fn looking_does_not_keep_a_daemon_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path()).unwrap();
        drop(DaemonLock::take(&home).unwrap());
        let look = try_lock(&home.lock(), FlockArg::LockSharedNonblock).unwrap();
        let end = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(look);
        });
        DaemonLock::take(&home).unwrap();
        end.join().unwrap();
    }
}
