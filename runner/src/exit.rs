//! The exit record of a main process: durable before anybody is told.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::Error;

/// File name in the state folder.
const EXIT: &str = "exit.json";

/// How the main process of a container ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// 0..=255; 128 + signal.
    pub exit_code: i32,
    /// The kernel's OOM killer hit the container.
    pub oom_killed: bool,
    /// RFC 3339 with nanoseconds.
    pub started_at: String,
    /// RFC 3339 with nanoseconds.
    pub finished_at: String,
    /// Why, when the process did not end by itself; else empty.
    pub error: String,
    /// Process id in the guest.
    pub pid: u32,
}

impl From<ExitRecord> for proto::runner::ExitRecord {
    fn from(record: ExitRecord) -> Self {
        let ExitRecord { exit_code, oom_killed, started_at, finished_at, error, pid } = record;
        Self { exit_code, oom_killed, finished_at, error, started_at, pid }
    }
}

impl From<proto::runner::ExitRecord> for ExitRecord {
    fn from(record: proto::runner::ExitRecord) -> Self {
        let proto::runner::ExitRecord { exit_code, oom_killed, finished_at, error, started_at, pid } = record;
        Self { exit_code, oom_killed, started_at, finished_at, error, pid }
    }
}

/// The exit record in `state_dir`; `None` when there is none (the process never ran, runs, or was lost with its runner).
///
/// # Errors
/// When the file is there but cannot be read or is damaged.
pub fn read_exit(state_dir: &Path) -> Result<Option<ExitRecord>, Error> {
    let path = state_dir.join(EXIT);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|source| Error::Damaged { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { what: "read", path, source }),
    }
}

/// Makes the record durable.
pub(crate) fn write_exit(state_dir: &Path, record: &ExitRecord) -> Result<(), Error> {
    let path = state_dir.join(EXIT);
    let text =
        serde_json::to_vec_pretty(record).map_err(|source| Error::Damaged { path: path.clone(), source })?;
    replace(&path, &text)
}

/// Forgets the record of an earlier run: a new VM starts in this state folder.
pub(crate) fn clear_exit(state_dir: &Path) -> Result<(), Error> {
    let path = state_dir.join(EXIT);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::File { what: "remove", path, source: error })
        }
        _ => Ok(()),
    }
}

/// Replaces a file whole: temporary name, fsync, rename, fsync of the folder.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    let temporary = path.with_extension("tmp");
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_survives_disk_and_wire() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_exit(dir.path()).unwrap(), None);
        let record = ExitRecord {
            exit_code: 137,
            oom_killed: true,
            started_at: "2026-01-02T03:04:05.000000006Z".into(),
            finished_at: "2026-01-02T03:04:06.000000007Z".into(),
            error: "why".into(),
            pid: 42,
        };
        write_exit(dir.path(), &record).unwrap();
        assert_eq!(read_exit(dir.path()).unwrap().as_ref(), Some(&record));
        let wire: proto::runner::ExitRecord = record.clone().into();
        assert_eq!(ExitRecord::from(wire), record);
        clear_exit(dir.path()).unwrap();
        assert_eq!(read_exit(dir.path()).unwrap(), None);
        clear_exit(dir.path()).unwrap();
    }

    #[test]
    fn damage_is_told_and_not_taken_for_absence() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(EXIT), b"{").unwrap();
        let error = read_exit(dir.path()).unwrap_err().to_string();
        assert!(error.contains("exit.json is damaged"), "{error}");
    }
}
