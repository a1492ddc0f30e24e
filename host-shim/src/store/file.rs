//! The database's file, such that a full disk harms neither it nor the daemon.
//!
//! After an error of the file redb refuses to go on until it is opened again: the next one who needs it does that. And every
//! block of the file is taken while there is room, so that small decisions (a container ended, a container goes, which is what
//! makes room) can be stored on a full disk.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use redb::Database;

use crate::error::{Error, Result};

/// Opens the database.
type Open = fn(&Path) -> Result<Database>;

/// A database that is opened again after an error of its file.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    path: PathBuf,
    open: Open,
    state: Mutex<Option<Opened>>,
}

#[derive(Debug)]
struct Opened {
    // The first to be dropped: closing a file gives up the locks that this process has on it.
    database: Database,
    file: File,
    /// Bytes whose blocks are taken.
    taken: u64,
}

impl DatabaseFile {
    /// Opens the database at `path`.
    ///
    /// # Errors
    /// Those of `open`.
    pub(super) fn open(path: &Path, open: Open) -> Result<Self> {
        let opened = Opened::new(path, open)?;
        Ok(Self { path: path.to_owned(), open, state: Mutex::new(Some(opened)) })
    }

    /// Works with the database, one at a time.
    ///
    /// # Errors
    /// Those of `work`, and of opening it again.
    pub(super) fn with<T, E: From<Error>>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut opened = match state.take() {
            Some(opened) => opened,
            None => Opened::new(&self.path, self.open)?,
        };
        let result = work(&opened.database);
        // Not put back when it saw an error.
        if result.is_ok() || opened.database.begin_write().is_ok() {
            opened.take_room();
            *state = Some(opened);
        } else {
            tracing::warn!(path = %self.path.display(), "the database is opened again");
        }
        result
    }
}

impl Opened {
    fn new(path: &Path, open: Open) -> Result<Self> {
        let database = open(path)?;
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut opened = Self { database, file, taken: 0 };
        opened.take_room();
        Ok(opened)
    }

    /// redb makes its file longer without taking the blocks.
    #[cfg(target_os = "linux")]
    fn take_room(&mut self) {
        let Ok(length) = self.file.metadata().map(|m| m.len()) else { return };
        let Ok(size) = i64::try_from(length) else { return };
        if length == self.taken {
            return;
        }
        // Without it everything works, until the disk is full.
        match nix::fcntl::fallocate(&self.file, nix::fcntl::FallocateFlags::empty(), 0, size) {
            Ok(()) => self.taken = length,
            Err(error) => tracing::debug!(%error, "no room is kept for the database"),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn take_room(&mut self) {
        let _ = (&self.file, self.taken);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::atomic::{AtomicBool, Ordering},
    };

    use redb::{ReadableDatabase, StorageBackend, TableDefinition, backends::FileBackend};

    use super::*;

    const TABLE: TableDefinition<'_, u64, u64> = TableDefinition::new("t");
    static FULL: AtomicBool = AtomicBool::new(false);

    /// A file whose disk can be full.
    #[derive(Debug)]
    struct Flaky(FileBackend);

    fn room() -> io::Result<()> {
        if FULL.load(Ordering::Acquire) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    impl StorageBackend for Flaky {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            room().and_then(|()| self.0.set_len(len))
        }

        fn sync_data(&self) -> io::Result<()> {
            room().and_then(|()| self.0.sync_data())
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            room().and_then(|()| self.0.write(offset, data))
        }
    }

    fn open(path: &Path) -> Result<Database> {
        let failed = |error: redb::Error| Error::system(error.to_string());
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let backend = Flaky(FileBackend::new(file).map_err(|e| failed(e.into()))?);
        Database::builder().create_with_backend(backend).map_err(|e| failed(e.into()))
    }

    fn put(file: &DatabaseFile, key: u64) -> Result<()> {
        file.with(|db| {
            let put = || -> Result<(), redb::Error> {
                let transaction = db.begin_write()?;
                transaction.open_table(TABLE)?.insert(key, key)?;
                Ok(transaction.commit()?)
            };
            put().map_err(|error| Error::system(error.to_string()))
        })
    }

    /// SPEC E5
    #[test]
    fn a_full_disk_harms_only_what_meets_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let file = DatabaseFile::open(&path, open).unwrap();
        put(&file, 1).unwrap();
        #[cfg(target_os = "linux")]
        {
            use std::os::unix::fs::MetadataExt;
            let found = std::fs::metadata(&path).unwrap();
            assert!(
                found.blocks() * 512 >= found.len(),
                "{} blocks of {} bytes",
                found.blocks(),
                found.len()
            );
        }
        FULL.store(true, Ordering::Release);
        put(&file, 2).unwrap_err();
        put(&file, 3).unwrap_err();
        FULL.store(false, Ordering::Release);
        put(&file, 4).unwrap();
        let read = |key| {
            file.with(|db| {
                let get = || -> Result<Option<u64>, redb::Error> {
                    Ok(db.begin_read()?.open_table(TABLE)?.get(key)?.map(|value| value.value()))
                };
                get().map_err(|error| Error::system(error.to_string()))
            })
        };
        assert_eq!((read(1).unwrap(), read(2).unwrap(), read(4).unwrap()), (Some(1), None, Some(4)));
    }
}
