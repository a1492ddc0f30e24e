//! Durable metadata: redb on disk, mirrored in memory, changed by one transaction per decision.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableHandle};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use time::OffsetDateTime;

use crate::{
    digest::Digest,
    error::{Error, Result},
    reference::Reference,
};

type Table = TableDefinition<'static, &'static str, &'static str>;
const IMAGES: Table = TableDefinition::new("images");
const ORPHANS: Table = TableDefinition::new("orphans");
const REFERENCES: Table = TableDefinition::new("references");
const LAYERS: Table = TableDefinition::new("layers");

/// An image as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// The configuration, byte for byte; its digest is the image ID.
    pub(crate) config: String,
    /// Manifest and index blobs, kept for a later push.
    pub(crate) manifests: Vec<String>,
    pub(crate) layers: Vec<String>,
    pub(crate) size: u64,
    pub(crate) parent: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) last_tag_time: Option<OffsetDateTime>,
}

/// A layer whose content was unpacked and matched its diff ID.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    /// The blob it came from.
    pub(crate) blob: String,
    /// Bytes of file content, as dockerd counts an image's size.
    pub(crate) size: u64,
}

/// All metadata. Clones share the records.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// By image ID.
    pub(crate) images: BTreeMap<String, Arc<ImageRecord>>,
    /// Removed images whose layers a container still uses.
    pub(crate) orphans: BTreeMap<String, Arc<ImageRecord>>,
    /// Canonical reference (with tag or digest) to image ID.
    pub(crate) references: BTreeMap<String, String>,
    /// By diff ID.
    pub(crate) layers: BTreeMap<String, Arc<LayerRecord>>,
    /// IDs of images whose records cannot be read: nobody knows what they need. A pull of such an image heals it.
    pub(crate) damaged: BTreeSet<String>,
}

impl State {
    /// The references of an image, sorted.
    pub(crate) fn references_of(&self, id: &str) -> Vec<Reference> {
        let of_image = self.references.iter().filter(|(_, target)| *target == id);
        of_image.filter_map(|(reference, _)| reference.parse().ok()).collect()
    }

    /// An image, or one that lives on for its containers only.
    pub(crate) fn record(&self, id: &str) -> Option<&Arc<ImageRecord>> {
        self.images.get(id).or_else(|| self.orphans.get(id))
    }

    /// Images built on `id`.
    pub(crate) fn has_children(&self, id: &str) -> bool {
        self.images.values().any(|image| image.parent.as_deref() == Some(id))
    }
}

/// The database. One process at a time: redb locks its file.
pub(crate) struct Db {
    path: PathBuf,
    /// None after an I/O error (a full disk): redb refuses to go on with a database that saw one, so the next
    /// writer opens it again.
    writer: Mutex<Option<Database>>,
    state: RwLock<Arc<State>>,
}

impl Db {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let database = open_database(path)?;
        let state = load(&database)?;
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(Some(database)),
            state: RwLock::new(Arc::new(state)),
        })
    }

    /// The metadata now; later changes do not show in it.
    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Decides and stores: `decide` changes a copy, which becomes the truth once it is durable; an error
    /// changes nothing.
    pub(crate) fn update<R>(&self, decide: impl FnOnce(&mut State) -> Result<R>) -> Result<R> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match writer.take() {
            Some(database) => database,
            None => {
                let database = open_database(&self.path)?;
                // Whether the decision that failed became durable, only the disk knows.
                self.set(load(&database)?);
                database
            }
        };
        let old = self.state();
        let mut new = State::clone(&old);
        let result = match decide(&mut new) {
            Ok(result) => result,
            Err(error) => {
                *writer = Some(database);
                return Err(error);
            }
        };
        let State { images, damaged, .. } = &mut new;
        damaged.retain(|id| !images.contains_key(id));
        // Not put back after an error.
        if store(&database, &old, &new)? {
            self.set(new);
        }
        *writer = Some(database);
        Ok(result)
    }

    fn set(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
    }
}

fn load(database: &Database) -> Result<State> {
    let (images, mut damaged) = read(database, IMAGES)?;
    let (orphans, damaged_orphans) = read(database, ORPHANS)?;
    damaged.extend(damaged_orphans);
    // Without its name an image has its ID, without a layer's record the layer is pulled again.
    let (references, _) = read(database, REFERENCES)?;
    let (layers, _) = read(database, LAYERS)?;
    let mut state = State { images, orphans, references, layers, damaged };
    // No decision leaves one; a name must not keep an image from being pulled again.
    let images = &state.images;
    state.references.retain(|name, id| {
        let there = images.contains_key(id);
        if !there {
            tracing::warn!(name, id, "the name of a lost image is dropped: pull it again");
        }
        there
    });
    Ok(state)
}

/// Opens the database, and makes it first if need be: under another name, since a crash may leave a new one
/// without the mark by which redb knows its files.
fn open_database(path: &Path) -> Result<Database> {
    let open = |path: &Path| {
        let database = Database::create(path).map_err(|e| match e {
            redb::DatabaseError::DatabaseAlreadyOpen => Error::System(format!(
                "{} is in use by another daemon: stop that one, or use another ARCA_HOME",
                path.display()
            )),
            // redb also calls a file that is none of its own an I/O error.
            redb::DatabaseError::Storage(redb::StorageError::Io(cause)) if cause.raw_os_error().is_none() => {
                Error::System(format!(
                    "cannot open the image database {}: {cause}; it is damaged: move the folder `images` of ARCA_HOME away and \
                     pull the images again",
                    path.display()
                ))
            }
            redb::DatabaseError::Storage(redb::StorageError::Io(cause)) => Error::io("open", path)(cause),
            other => other.into(),
        })?;
        let transaction = database.begin_write()?;
        for table in [IMAGES, ORPHANS, REFERENCES, LAYERS] {
            transaction.open_table(table)?;
        }
        transaction.commit()?;
        Ok::<_, Error>(database)
    };
    // An empty one is as good as none.
    if fs::metadata(path).map_or_else(|e| e.kind() == io::ErrorKind::NotFound, |found| found.len() == 0) {
        let new = path.with_extension("new");
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", &new)(e)),
            _ => {}
        }
        drop(open(&new)?);
        fs::rename(&new, path).map_err(Error::io("make", path))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        File::open(folder).and_then(|f| f.sync_all()).map_err(Error::io("flush", folder))?;
    }
    open(path)
}

/// Writes what differs; whether anything does.
fn store(database: &Database, old: &State, new: &State) -> Result<bool> {
    let transaction = database.begin_write()?;
    let mut changed = write(&transaction, IMAGES, &old.images, &new.images, Arc::ptr_eq)?;
    changed |= write(&transaction, ORPHANS, &old.orphans, &new.orphans, Arc::ptr_eq)?;
    changed |= write(&transaction, REFERENCES, &old.references, &new.references, |a, b| a == b)?;
    changed |= write(&transaction, LAYERS, &old.layers, &new.layers, Arc::ptr_eq)?;
    // The row of an image that is there again was written over; that of an orphan was not.
    for id in old.damaged.difference(&new.damaged).filter(|id| !new.orphans.contains_key(*id)) {
        transaction.open_table(ORPHANS)?.remove(id.as_str())?;
    }
    if changed {
        transaction.commit()?;
    }
    Ok(changed)
}

/// The rows of a table, and the keys of those that cannot be read: one bad row must not take all images away.
fn read<V: DeserializeOwned>(
    database: &Database,
    table: Table,
) -> Result<(BTreeMap<String, V>, BTreeSet<String>)> {
    let transaction = database.begin_read()?;
    let rows = transaction.open_table(table)?;
    let (mut all, mut damaged) = (BTreeMap::new(), BTreeSet::new());
    for row in rows.iter()? {
        let (key, value) = row?;
        let key = key.value().to_owned();
        match serde_json::from_str(value.value()) {
            Ok(value) => {
                all.insert(key, value);
            }
            Err(error) => {
                tracing::error!(
                    table = table.name(), key, %error,
                    "a damaged record of the image database is left out: pull the image again"
                );
                damaged.insert(key);
            }
        }
    }
    Ok((all, damaged))
}

fn write<V: Serialize>(
    transaction: &redb::WriteTransaction,
    table: Table,
    old: &BTreeMap<String, V>,
    new: &BTreeMap<String, V>,
    same: impl Fn(&V, &V) -> bool,
) -> Result<bool> {
    let mut table = transaction.open_table(table)?;
    let mut changed = false;
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        table.remove(key.as_str())?;
        changed = true;
    }
    for (key, value) in new.iter().filter(|(key, value)| !old.get(*key).is_some_and(|o| same(o, value))) {
        let text = serde_json::to_string(value).map_err(|e| bad_record(key, &e))?;
        table.insert(key.as_str(), text.as_str())?;
        changed = true;
    }
    Ok(changed)
}

fn bad_record(key: &str, error: &serde_json::Error) -> Error {
    Error::System(format!("image database: the record of {key} is damaged: {error}"))
}

/// Digests that the database itself wrote; a damaged one is left out.
pub(crate) fn digests<'a>(texts: impl IntoIterator<Item = &'a String>) -> impl Iterator<Item = Digest> {
    texts.into_iter().filter_map(|text| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_durable_or_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images.redb");
        let db = Db::open(&path).unwrap();
        assert!(Db::open(&path).err().unwrap().to_string().contains("in use by another daemon"));
        db.update(|state| {
            let image = ImageRecord {
                config: "{}".into(),
                manifests: Vec::new(),
                layers: Vec::new(),
                size: 0,
                parent: None,
                last_tag_time: None,
            };
            state.images.insert("sha256:x".into(), Arc::new(image));
            state.references.insert("docker.io/library/lost:1".into(), "sha256:y".into());
            state.references.insert("docker.io/library/a:1".into(), "sha256:x".into());
            state.layers.insert("d".into(), Arc::new(LayerRecord { blob: "b".into(), size: 7 }));
            Ok(())
        })
        .unwrap();
        let failed: Result<()> = db.update(|state| {
            state.references.clear();
            Err(Error::Conflict("no".into()))
        });
        assert!(failed.is_err());
        db.update(|state| {
            state.references.insert("docker.io/library/a:2".into(), "sha256:x".into());
            state.layers.remove("d");
            Ok(())
        })
        .unwrap();
        drop(db);
        let state = Db::open(&path).unwrap().state();
        assert_eq!(state.references.len(), 2, "the name of a lost image is dropped");
        assert!(state.layers.is_empty());
        let familiar: Vec<_> = state.references_of("sha256:x").iter().map(Reference::familiar).collect();
        assert_eq!(familiar, ["a:1", "a:2"]);
    }

    fn image() -> Arc<ImageRecord> {
        Arc::new(ImageRecord {
            config: "{}".into(),
            manifests: Vec::new(),
            layers: Vec::new(),
            size: 0,
            parent: None,
            last_tag_time: None,
        })
    }

    /// SPEC I17
    #[test]
    fn a_damaged_record_harms_no_other_and_can_be_healed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images.redb");
        let db = Db::open(&path).unwrap();
        db.update(|state| {
            state.images.insert("sha256:a".into(), image());
            state.references.insert("docker.io/library/a:1".into(), "sha256:a".into());
            Ok(())
        })
        .unwrap();
        drop(db);
        let raw = Database::create(&path).unwrap();
        let transaction = raw.begin_write().unwrap();
        for (table, key) in [
            (IMAGES, "sha256:b"),
            (ORPHANS, "sha256:c"),
            (REFERENCES, "docker.io/library/b:1"),
            (LAYERS, "sha256:d"),
        ] {
            transaction.open_table(table).unwrap().insert(key, "{\"config\":\"{}").unwrap();
        }
        transaction.commit().unwrap();
        drop(raw);
        let db = Db::open(&path).unwrap();
        let state = db.state();
        assert_eq!((state.images.len(), state.references.len(), state.layers.len()), (1, 1, 0));
        let damaged = |state: &State| state.damaged.iter().cloned().collect::<Vec<_>>();
        assert_eq!(damaged(&state), ["sha256:b", "sha256:c"]);
        for id in ["sha256:b", "sha256:c"] {
            db.update(|state| {
                state.images.insert(id.into(), image());
                Ok(())
            })
            .unwrap();
        }
        assert!(db.state().damaged.is_empty());
        drop(db);
        let state = Db::open(&path).unwrap().state();
        assert_eq!((state.images.len(), state.orphans.len(), damaged(&state).len()), (3, 0, 0));
    }

    #[test]
    fn a_database_that_a_crash_left_unmade_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images.redb");
        // redb writes its mark last: this is what a kill in between leaves.
        fs::write(path.with_extension("new"), vec![0; 4096]).unwrap();
        drop(Db::open(&path).unwrap());
        assert!(!path.with_extension("new").exists());
        drop(Db::open(&path).unwrap());
        fs::write(&path, "").unwrap();
        drop(Db::open(&path).unwrap());
        fs::write(&path, "no database at all\n".repeat(1000)).unwrap();
        let told = Db::open(&path).err().unwrap().to_string();
        assert!(told.contains("images.redb") && told.contains("move the folder `images`"), "{told}");
    }
}
