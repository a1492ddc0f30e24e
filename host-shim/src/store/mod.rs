//! Durable state of the daemon: one redb file, one transaction per decision.
//!
//! Tables: containers (id -> versioned JSON) and names (name -> id). A name is taken by the transaction that writes it.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::{
    engine::record::{Record, VERSION},
    error::{Error, Result},
};

const CONTAINERS: TableDefinition<&str, &[u8]> = TableDefinition::new("containers");
const NAMES: TableDefinition<&str, &str> = TableDefinition::new("container_names");

/// The open database. All methods block for the time of an fsync at most.
#[derive(Debug)]
pub struct Store {
    db: Database,
}

/// Why a container could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The name belongs to this container.
    #[error("the name belongs to container {0}")]
    NameTaken(String),
    /// The database failed.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Store {
    /// Opens or makes the database at `path`.
    ///
    /// # Errors
    /// When it cannot be opened (damaged, locked by another daemon, disk).
    pub fn open(path: &Path) -> Result<Self> {
        let db = Database::create(path).map_err(|error| {
            Error::system(format!("open the database {}: {error}", path.display())).because(error)
        })?;
        let transaction = db.begin_write().map_err(failed)?;
        transaction.open_table(CONTAINERS).map_err(failed)?;
        transaction.open_table(NAMES).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(Self { db })
    }

    /// Writes a new container and takes its name, or neither.
    ///
    /// # Errors
    /// [`Refused::NameTaken`] with the owner's id.
    pub fn insert(&self, record: &Record) -> Result<(), Refused> {
        self.write(|containers, names| {
            if let Some(owner) = names.get(record.name.as_str()).map_err(failed)? {
                return Err(Refused::NameTaken(owner.value().to_owned()));
            }
            names.insert(record.name.as_str(), record.id.as_str()).map_err(failed)?;
            put(containers, record)
        })
    }

    /// Writes a changed container; its name must be the stored one.
    ///
    /// # Errors
    /// When the database fails.
    pub fn update(&self, record: &Record) -> Result<()> {
        self.write(|containers, _| put(containers, record)).map_err(plain)
    }

    /// Gives a container a new name: frees `old` and takes the name in `record`, or neither.
    ///
    /// # Errors
    /// [`Refused::NameTaken`] with the owner's id.
    pub fn rename(&self, old: &str, record: &Record) -> Result<(), Refused> {
        self.write(|containers, names| {
            if let Some(owner) = names.get(record.name.as_str()).map_err(failed)? {
                return Err(Refused::NameTaken(owner.value().to_owned()));
            }
            names.remove(old).map_err(failed)?;
            names.insert(record.name.as_str(), record.id.as_str()).map_err(failed)?;
            put(containers, record)
        })
    }

    /// Forgets a container and frees its name.
    ///
    /// # Errors
    /// When the database fails.
    pub fn remove(&self, id: &str, name: &str) -> Result<()> {
        self.write(|containers, names| {
            containers.remove(id).map_err(failed)?;
            let owned = names.get(name).map_err(failed)?.is_some_and(|owner| owner.value() == id);
            if owned {
                names.remove(name).map_err(failed)?;
            }
            Ok(())
        })
        .map_err(plain)
    }

    /// All containers. One that cannot be read is an error: it must not silently vanish.
    ///
    /// # Errors
    /// When the database fails, a record is damaged, or a newer Arca wrote it.
    pub fn all(&self) -> Result<Vec<Record>> {
        let transaction = self.db.begin_read().map_err(failed)?;
        let table = transaction.open_table(CONTAINERS).map_err(failed)?;
        let mut records = Vec::new();
        for entry in table.iter().map_err(failed)? {
            let (id, json) = entry.map_err(failed)?;
            let record: Record = serde_json::from_slice(json.value()).map_err(|error| {
                Error::system(format!("the stored container {} is damaged: {error}", id.value()))
                    .because(error)
            })?;
            if record.version > VERSION {
                return Err(Error::system(format!(
                    "container {} was written by a newer Arca (record version {}, this one reads {VERSION}): upgrade Arca",
                    record.id, record.version
                )));
            }
            records.push(record);
        }
        Ok(records)
    }

    fn write<T>(
        &self,
        work: impl FnOnce(
            &mut redb::Table<'_, &'static str, &'static [u8]>,
            &mut redb::Table<'_, &'static str, &'static str>,
        ) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let transaction = self.db.begin_write().map_err(failed)?;
        let value = {
            let mut containers = transaction.open_table(CONTAINERS).map_err(failed)?;
            let mut names = transaction.open_table(NAMES).map_err(failed)?;
            work(&mut containers, &mut names)?
        };
        transaction.commit().map_err(failed)?;
        Ok(value)
    }
}

fn put(
    containers: &mut redb::Table<'_, &'static str, &'static [u8]>,
    record: &Record,
) -> Result<(), Refused> {
    let json = serde_json::to_vec(record).map_err(failed)?;
    containers.insert(record.id.as_str(), json.as_slice()).map_err(failed)?;
    Ok(())
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::system(format!("the daemon's database failed: {error}")).because(error)
}

fn plain(refused: Refused) -> Error {
    match refused {
        Refused::Failed(error) => error,
        Refused::NameTaken(owner) => Error::conflict(format!("the name belongs to container {owner}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::record::tests::record;

    #[test]
    fn names_are_unique_and_freed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let store = Store::open(&path).unwrap();
        store.insert(&record("a", "web")).unwrap();
        assert!(matches!(store.insert(&record("b", "web")), Err(Refused::NameTaken(owner)) if owner == "a"));
        store.insert(&record("b", "db")).unwrap();
        assert!(matches!(store.rename("db", &record("b", "web")), Err(Refused::NameTaken(_))));
        store.rename("db", &record("b", "cache")).unwrap();
        store.insert(&record("c", "db")).unwrap();
        store.remove("a", "web").unwrap();
        drop(store);

        let store = Store::open(&path).unwrap();
        let names: Vec<String> = store.all().unwrap().into_iter().map(|record| record.name).collect();
        assert_eq!(names, ["cache", "db"]);
        store.insert(&record("d", "web")).unwrap();
    }

    #[test]
    fn a_newer_record_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store.redb")).unwrap();
        let mut newer = record("a", "web");
        newer.version = VERSION + 1;
        store.insert(&newer).unwrap();
        assert!(store.all().unwrap_err().message.contains("newer Arca"));
    }
}
