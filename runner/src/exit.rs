//! The exit record of a main process: durable before anybody is told.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
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

/// Room for a record, taken while there is some: a disk that is full when the process ends has it all the same.
const ROOM: usize = 8 << 10;
/// Most of an error's text in a record.
const MAX_ERROR: usize = 4 << 10;

fn room(state_dir: &Path) -> PathBuf {
    state_dir.join(EXIT).with_extension("room")
}

/// Takes the room for a record.
pub(crate) fn reserve(state_dir: &Path) -> Result<(), Error> {
    let path = room(state_dir);
    // Zeros could become a hole.
    fs::write(&path, [b' '; ROOM]).map_err(Error::file("write", &path))
}

/// Makes the record durable, in the room that was taken for it.
pub(crate) fn write_exit(state_dir: &Path, record: &ExitRecord) -> Result<(), Error> {
    let (path, room) = (state_dir.join(EXIT), room(state_dir));
    let mut record = record.clone();
    let mut limit = MAX_ERROR;
    let mut text = loop {
        let end = (0..=limit.min(record.error.len())).rev().find(|at| record.error.is_char_boundary(*at));
        record.error.truncate(end.unwrap_or(0));
        let text = serde_json::to_vec_pretty(&record)
            .map_err(|source| Error::Damaged { path: path.clone(), source })?;
        if text.len() <= ROOM || limit == 0 {
            break text;
        }
        // Escapes make it longer.
        limit /= 2;
    };
    // Over the whole room: what was there must not show.
    text.resize(text.len().max(ROOM), b' ');
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(&room)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&room, &path)?;
        File::open(state_dir)?.sync_all()
    };
    write().map_err(Error::file("write", &path))
}

/// Forgets the record of a run: a new VM starts in this state folder, or the run is not to count.
///
/// # Errors
/// When the file is there but cannot be removed.
pub fn clear_exit(state_dir: &Path) -> Result<(), Error> {
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

    /// SPEC V7
    #[test]
    fn a_record_of_any_length_goes_into_the_room_that_was_taken() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        for error in ["", "x", &"\u{1}\u{fffd}\"".repeat(5000)] {
            reserve(dir.path()).unwrap();
            let taken = fs::metadata(room(dir.path())).unwrap();
            let record = ExitRecord { exit_code: 3, error: error.into(), ..ExitRecord::default() };
            write_exit(dir.path(), &record).unwrap();
            let used = fs::metadata(dir.path().join(EXIT)).unwrap();
            assert_eq!((used.ino(), used.len(), used.blocks()), (taken.ino(), taken.len(), taken.blocks()));
            let read = read_exit(dir.path()).unwrap().unwrap();
            assert!(
                read.exit_code == 3
                    && error.starts_with(&read.error)
                    && read.error.is_empty() == error.is_empty()
            );
        }
        // Nobody took room.
        write_exit(dir.path(), &ExitRecord::default()).unwrap();
        assert_eq!(read_exit(dir.path()).unwrap(), Some(ExitRecord::default()));
    }

    #[test]
    fn damage_is_told_and_not_taken_for_absence() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(EXIT), b"{").unwrap();
        let error = read_exit(dir.path()).unwrap_err().to_string();
        assert!(error.contains("exit.json is damaged"), "{error}");
    }
}
