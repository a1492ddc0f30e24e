//! Durable metadata: redb on disk, mirrored in memory, changed by one transaction per decision.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
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
    database: Database,
    state: RwLock<Arc<State>>,
    writer: Mutex<()>,
}

impl Db {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let database = Database::create(path).map_err(|e| match e {
            redb::DatabaseError::DatabaseAlreadyOpen => Error::System(format!(
                "{} is in use by another daemon: stop that one, or use another ARCA_HOME",
                path.display()
            )),
            other => other.into(),
        })?;
        let transaction = database.begin_write()?;
        for table in [IMAGES, ORPHANS, REFERENCES, LAYERS] {
            transaction.open_table(table)?;
        }
        transaction.commit()?;
        let state = State {
            images: read(&database, IMAGES)?,
            orphans: read(&database, ORPHANS)?,
            references: read(&database, REFERENCES)?,
            layers: read(&database, LAYERS)?,
        };
        Ok(Self { database, state: RwLock::new(Arc::new(state)), writer: Mutex::new(()) })
    }

    /// The metadata now; later changes do not show in it.
    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Decides and stores: `decide` changes a copy, which becomes the truth once it is durable; an error
    /// changes nothing.
    pub(crate) fn update<R>(&self, decide: impl FnOnce(&mut State) -> Result<R>) -> Result<R> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.state();
        let mut new = State::clone(&old);
        let result = decide(&mut new)?;
        let transaction = self.database.begin_write()?;
        let mut changed = write(&transaction, IMAGES, &old.images, &new.images, Arc::ptr_eq)?;
        changed |= write(&transaction, ORPHANS, &old.orphans, &new.orphans, Arc::ptr_eq)?;
        changed |= write(&transaction, REFERENCES, &old.references, &new.references, |a, b| a == b)?;
        changed |= write(&transaction, LAYERS, &old.layers, &new.layers, Arc::ptr_eq)?;
        if changed {
            transaction.commit()?;
            *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        }
        Ok(result)
    }
}

fn read<V: DeserializeOwned>(database: &Database, table: Table) -> Result<BTreeMap<String, V>> {
    let transaction = database.begin_read()?;
    let table = transaction.open_table(table)?;
    let mut all = BTreeMap::new();
    for row in table.iter()? {
        let (key, value) = row?;
        let value = serde_json::from_str(value.value()).map_err(|e| bad_record(key.value(), &e))?;
        all.insert(key.value().to_owned(), value);
    }
    Ok(all)
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
        assert_eq!(state.references.len(), 2);
        assert!(state.layers.is_empty());
        let familiar: Vec<_> = state.references_of("sha256:x").iter().map(Reference::familiar).collect();
        assert_eq!(familiar, ["a:1", "a:2"]);
    }
}
