//! `runner.lock`: a runner lives as long as it holds this lock. The file names it; the lock proves it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{Error, spec::LOCK};

/// Time the lock is tried for: [`owner`] holds a shared one for a moment, which is long when its thread is preempted.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who holds the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) pid: u32,
    pub(crate) vm_id: String,
}

/// The held lock; released when dropped, or by the kernel when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of `run_dir` for this process.
    pub(crate) fn take(run_dir: &Path, vm_id: &str) -> Result<Self, Error> {
        let path = run_dir.join(LOCK);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::file("open", &path))?;
        let deadline = Instant::now() + PATIENCE;
        while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            if Instant::now() >= deadline {
                return Err(Error::Busy { vm_id: vm_id.to_owned(), run_dir: run_dir.to_owned() });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let owner = Owner { pid: std::process::id(), vm_id: vm_id.to_owned() };
        let text =
            serde_json::to_vec(&owner).map_err(|source| Error::Damaged { path: path.clone(), source })?;
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(&text))
            .map_err(Error::file("write", &path))?;
        Ok(Self { _file: file })
    }
}

/// The living owner of `run_dir`'s lock; `None` when nobody holds it.
///
/// # Errors
/// When that cannot be told: no descriptor is left, or the owner has not written its name yet. Nobody may be taken for dead then.
pub(crate) fn owner(run_dir: &Path) -> io::Result<Option<Owner>> {
    let file = match File::open(run_dir.join(LOCK)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // A shared lock is granted at once when no runner lives, and goes with `file` (a runner that tries just then retries).
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => return Ok(None),
        Err(Errno::WOULDBLOCK) => {}
        Err(error) => return Err(error.into()),
    }
    let mut text = String::new();
    file.take(4096).read_to_string(&mut text)?;
    serde_json::from_str(&text).map(Some).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_held_lock_has_an_owner() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(owner(dir.path()).unwrap(), None);
        let lock = Lock::take(dir.path(), "abc").unwrap();
        let seen = owner(dir.path()).unwrap().unwrap();
        assert_eq!(seen, Owner { pid: std::process::id(), vm_id: "abc".into() });
        assert!(matches!(Lock::take(dir.path(), "abc"), Err(Error::Busy { .. })));
        drop(lock);
        assert_eq!(owner(dir.path()).unwrap(), None);
        Lock::take(dir.path(), "def").unwrap();
        assert_eq!(owner(&dir.path().join("gone")).unwrap(), None);
    }

    #[test]
    fn one_who_looks_for_long_is_no_owner() {
        let dir = tempfile::tempdir().unwrap();
        drop(Lock::take(dir.path(), "abc").unwrap());
        let looks = File::open(dir.path().join(LOCK)).unwrap();
        flock(&looks, FlockOperation::LockShared).unwrap();
        let looking = std::thread::spawn(move || {
            std::thread::sleep(PATIENCE / 8);
            drop(looks);
        });
        let taken = Lock::take(dir.path(), "abc");
        looking.join().unwrap();
        taken.unwrap();
    }

    #[test]
    fn who_cannot_be_seen_is_not_taken_for_dead() {
        let dir = tempfile::tempdir().unwrap();
        let _lock = Lock::take(dir.path(), "abc").unwrap();
        // It holds the lock and has not said its name yet.
        std::fs::write(dir.path().join(LOCK), "").unwrap();
        assert!(owner(dir.path()).is_err());
        // As without a descriptor left, or with a disk that fails.
        assert!(owner(&dir.path().join("x".repeat(300))).is_err());
    }
}
