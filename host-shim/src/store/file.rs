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

/// Opens the database, and makes it first if need be.
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
