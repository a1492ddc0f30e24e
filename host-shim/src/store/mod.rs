//! Durable state of the daemon: one redb file, one transaction per decision.
//!
//! Tables: containers (id -> versioned JSON) and names (name -> id). A name is taken by the transaction that writes it.

mod file;
pub mod stored;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fs::{self, File},
    io,
    path::Path,
};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use crate::{
    engine::record::Record,
    error::{Error, Result},
    home::unusable,
};
use file::DatabaseFile;
use stored::Unreadable;

const CONTAINERS: TableDefinition<&str, &[u8]> = TableDefinition::new("containers");
const NAMES: TableDefinition<&str, &str> = TableDefinition::new("container_names");

/// The open database. All methods block for the time of an fsync at most.
#[derive(Debug)]
pub struct Store {
    file: DatabaseFile,
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

/// All that the database has.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Containers.
    pub records: Vec<Record>,
    /// Containers that cannot be served.
    pub unserved: Vec<Unserved>,
}

/// A container whose record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unserved {
    /// Its id, as the database has it.
    pub id: String,
    /// Why.
    pub why: Unreadable,
    /// Its image, where the record tells: it is still in use.
    pub image_id: Option<String>,
}

impl Unserved {
    /// Another Arca can read it.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        matches!(self.why, Unreadable::Newer(_))
    }
}

impl Store {
    /// Whether there is no database at `path`.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn is_missing(path: &Path) -> Result<bool> {
        match fs::metadata(path) {
            Ok(found) => Ok(found.len() == 0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(unusable(path, error)),
        }
    }

    /// Opens or makes the database at `path`.
    ///
    /// # Errors
    /// When it cannot be opened (damaged, locked by another daemon, disk).
    pub fn open(path: &Path) -> Result<Self> {
        if Self::is_missing(path)? {
            make(path)?;
        }
        Ok(Self { file: DatabaseFile::open(path, open)? })
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

    /// All containers. One whose record cannot be read is not served and not touched: its name becomes free, all else
    /// stays as it is.
    ///
    /// # Errors
    /// When the database fails.
    pub fn load(&self) -> Result<Loaded> {
        let mut loaded = Loaded::default();
        let read = |db: &Database, loaded: &mut Loaded| -> Result<(), redb::Error> {
            let transaction = db.begin_read()?;
            for entry in transaction.open_table(CONTAINERS)?.iter()? {
                let (id, json) = entry?;
                match stored::parse(id.value(), json.value()) {
                    Ok(record) => loaded.records.push(record),
                    Err(why) => {
                        let image_id = stored::image_id(json.value());
                        loaded.unserved.push(Unserved { id: id.value().to_owned(), why, image_id });
                    }
                }
            }
            Ok(())
        };
        self.file.with(|db| read(db, &mut loaded).map_err(failed))?;
        self.repair_names(&mut loaded)?;
        Ok(loaded)
    }

    /// Makes the table of names that of the records: one name, one container.
    fn repair_names(&self, loaded: &mut Loaded) -> Result<()> {
        let mut right: BTreeMap<String, String> = BTreeMap::new();
        loaded.records.retain(|record| match right.entry(record.name.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(record.id.clone());
                true
            }
            Entry::Occupied(owner) => {
                let why = format!("its name {:?} is that of container {}", record.name, owner.get());
                let (id, image_id) = (record.id.clone(), Some(record.image_id.clone()));
                loaded.unserved.push(Unserved { id, why: Unreadable::Damaged(why), image_id });
                false
            }
        });
        let newer: BTreeSet<&str> =
            loaded.unserved.iter().filter(|u| u.is_newer()).map(|u| u.id.as_str()).collect();
        self.write(|_, names| {
            let mut present = BTreeMap::new();
            for entry in names.iter().map_err(failed)? {
                let (name, owner) = entry.map_err(failed)?;
                present.insert(name.value().to_owned(), owner.value().to_owned());
            }
            // A newer Arca's containers keep their names: it may come back.
            let kept = present.iter().filter(|(_, owner)| newer.contains(owner.as_str()));
            for (name, owner) in kept {
                right.entry(name.clone()).or_insert_with(|| owner.clone());
            }
            for (name, owner) in present.iter().filter(|(name, _)| !right.contains_key(*name)) {
                tracing::warn!(name, owner, "the name of a container that cannot be read is free");
                names.remove(name.as_str()).map_err(failed)?;
            }
            for (name, id) in right.iter().filter(|(name, id)| present.get(*name) != Some(id)) {
                names.insert(name.as_str(), id.as_str()).map_err(failed)?;
            }
            Ok(())
        })
        .map_err(plain)
    }

    /// Drops the record of a container that was not served and whose files are gone.
    ///
    /// # Errors
    /// When the database fails.
    pub fn drop_unserved(&self, id: &str) -> Result<()> {
        self.write(|containers, _| {
            containers.remove(id).map_err(failed)?;
            Ok(())
        })
        .map_err(plain)
    }

    fn write<T>(
        &self,
        work: impl FnOnce(
            &mut redb::Table<'_, &'static str, &'static [u8]>,
            &mut redb::Table<'_, &'static str, &'static str>,
        ) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        self.file.with(|db| {
            let transaction = db.begin_write().map_err(failed)?;
            let value = {
                let mut containers = transaction.open_table(CONTAINERS).map_err(failed)?;
                let mut names = transaction.open_table(NAMES).map_err(failed)?;
                work(&mut containers, &mut names)?
            };
            transaction.commit().map_err(failed)?;
            Ok(value)
        })
    }
}

/// Makes a database under another name first: a crash or a full disk may leave a new one without the mark by which redb knows
/// its files.
fn make(path: &Path) -> Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(&new, error)),
        _ => {}
    }
    let tables = |db: &Database| -> Result<(), redb::Error> {
        let transaction = db.begin_write()?;
        transaction.open_table(CONTAINERS)?;
        transaction.open_table(NAMES)?;
        Ok(transaction.commit()?)
    };
    let made = Database::create(&new).map_err(|error| cannot_open(&new, error));
    let made = made.and_then(|db| tables(&db).map_err(failed));
    let folder = path.parent().unwrap_or(Path::new("."));
    let named = made.and_then(|()| {
        let renamed = fs::rename(&new, path).and_then(|()| File::open(folder)?.sync_all());
        renamed.map_err(|error| unusable(path, error))
    });
    if named.is_err() {
        let _ = fs::remove_file(&new);
    }
    named
}

/// The database at `path`. One that is not there is not made: its containers' files would be taken for leftovers.
fn open(path: &Path) -> Result<Database> {
    Database::open(path).map_err(|error| cannot_open(path, error))
}

fn cannot_open(path: &Path, error: DatabaseError) -> Error {
    let remedy = match &error {
        DatabaseError::DatabaseAlreadyOpen => {
            "another process uses it: stop that one, or use another ARCA_HOME"
        }
        DatabaseError::UpgradeRequired(_) => "another version of Arca wrote it: use that one",
        // redb also calls a file that is none of its own an I/O error.
        DatabaseError::Storage(redb::StorageError::Io(io)) if io.raw_os_error().is_some() => {
            "check the disk and the rights of ARCA_HOME"
        }
        _ => {
            "it is damaged: move it away to start without containers, or put a backup in its place (images stay; files of \
             containers that the database does not name are put aside, in containers.lost-N)"
        }
    };
    let text = format!("cannot open the database {}: {error}; {remedy}", path.display());
    Error::system(text).because(error)
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
    use crate::engine::record::{VERSION, tests::record};

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
        assert_eq!(loaded(&store).0, ["cache", "db"]);
        store.insert(&record("d", "web")).unwrap();
    }

    /// What is in a store.
    fn loaded(store: &Store) -> (Vec<String>, Vec<String>) {
        let loaded = store.load().unwrap();
        let names = loaded.records.into_iter().map(|record| record.name).collect();
        (names, loaded.unserved.into_iter().map(|unserved| unserved.id).collect())
    }

    fn put_raw(store: &Store, id: &str, bytes: &[u8]) {
        let write = store.write(|containers, _| {
            containers.insert(id, bytes).map_err(failed)?;
            Ok(())
        });
        write.unwrap();
    }

    /// SPEC D12
    #[test]
    fn a_damaged_record_keeps_nobody_else_from_being_served() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let store = Store::open(&path).unwrap();
        for (id, name) in [("a", "web"), ("b", "db"), ("c", "cache"), ("d", "later")] {
            store.insert(&record(id, name)).unwrap();
        }
        let mut newer = record("d", "later");
        newer.version = VERSION + 1;
        store.update(&newer).unwrap();
        put_raw(&store, "b", b"{\"version\":1,\"id\":\"b\",\"na");
        let mut twin = record("e", "web");
        twin.version = VERSION;
        put_raw(&store, "e", &serde_json::to_vec(&twin).unwrap());
        assert_eq!(
            loaded(&store),
            (vec!["web".into(), "cache".into()], vec!["b".into(), "d".into(), "e".into()])
        );
        // The name of the damaged one is free, the newer one's is not, and nothing is lost.
        store.insert(&record("f", "db")).unwrap();
        assert!(
            matches!(store.insert(&record("9", "later")), Err(Refused::NameTaken(owner)) if owner == "d")
        );
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(loaded(&store).1, ["b", "d", "e"]);
        store.drop_unserved("b").unwrap();
        assert_eq!(loaded(&store).1, ["d", "e"]);
    }

    #[test]
    fn names_follow_the_records() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store.redb")).unwrap();
        put_raw(&store, "a", &serde_json::to_vec(&record("a", "web")).unwrap());
        store.load().unwrap();
        assert!(matches!(store.insert(&record("b", "web")), Err(Refused::NameTaken(owner)) if owner == "a"));
    }

    /// SPEC D1
    #[test]
    fn what_was_answered_is_there_after_a_kill() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("store.redb"), dir.path().join("copy.redb"));
        let store = Store::open(&path).unwrap();
        for n in 0..20 {
            store.insert(&record(&format!("{n:x}"), &format!("name{n}"))).unwrap();
            // What a SIGKILL leaves: the file as it is, never closed.
            std::fs::copy(&path, &copy).unwrap();
            assert_eq!(Store::open(&copy).unwrap().load().unwrap().records.len(), n + 1);
        }
    }

    /// SPEC D2, E5
    #[test]
    fn a_database_that_a_crash_left_unmade_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let new = path.with_extension("new");
        // redb writes its mark last: this is what a kill or a full disk in between leaves.
        for (path, left) in [(&new, vec![0; 4096]), (&new, Vec::new()), (&path, Vec::new())] {
            fs::write(path, left).unwrap();
            assert!(Store::is_missing(&dir.path().join("store.redb")).unwrap());
            let store = Store::open(&dir.path().join("store.redb")).unwrap();
            store.insert(&record("a", "web")).unwrap();
            drop(store);
            assert!(!new.exists());
            fs::remove_file(dir.path().join("store.redb")).unwrap();
        }
        // Where it cannot be made, nothing that looks like one is left.
        fs::create_dir(&new).unwrap();
        Store::open(&path).unwrap_err();
        assert!(!path.exists());
    }

    /// SPEC D13
    #[test]
    fn a_damaged_database_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        std::fs::write(&path, "no database at all\n".repeat(1000)).unwrap();
        let message = Store::open(&path).unwrap_err().message;
        assert!(message.contains("store.redb") && message.contains("move it away"), "{message}");
        std::fs::remove_file(&path).unwrap();
        let store = Store::open(&path).unwrap();
        let message = Store::open(&path).unwrap_err().message;
        assert!(message.contains("another process uses it"), "{message}");
        drop(store);
        let whole = std::fs::read(&path).unwrap();
        for length in [1, 100, 4096, whole.len() / 2] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let message = Store::open(&path).unwrap_err().message;
            assert!(message.contains("move it away"), "{length}: {message}");
        }
    }
}
