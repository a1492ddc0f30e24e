//! Deleting what nothing refers to: blobs, layer disks, layer records.
//!
//! A removal takes all of it. What a failed pull or load has left, whole blobs and disks, stays for the next
//! attempt, a limited time and amount: that is looked after when the store is opened and after each failure.
//! Half-made files never stay.

use std::{
    collections::BTreeSet,
    fs::{self, DirEntry},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use crate::{
    db::digests,
    digest::Digest,
    disks::plan,
    error::{Error, Result},
    remove::InUse,
    store::Inner,
};

/// Images that were removed by force and live on for their containers.
pub(crate) enum Orphans<'a> {
    /// All stay: nobody knows yet which containers there are.
    Stay,
    /// They go once no container uses them.
    Unless(InUse<'a>),
}

/// What may stay though nothing refers to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    pub(crate) age: Duration,
    pub(crate) bytes: u64,
}

impl Keep {
    pub(crate) const NOTHING: Self = Self { age: Duration::ZERO, bytes: 0 };
}

/// A file that nothing refers to.
struct Leftover {
    path: PathBuf,
    age: Duration,
    bytes: u64,
}

/// Marks from the images, the containers that outlive theirs, and the leases; deletes the rest but `keep`. A file that cannot be
/// deleted is only told in the log.
pub(crate) fn sweep(inner: &Inner, orphans: &Orphans, keep: Keep) -> Result<()> {
    // Gigabytes are deleted slowly, and each start of a container takes a lease: so not under the lock.
    for path in unlink(inner, orphans, keep)? {
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot delete what is not used any more");
        }
    }
    Ok(())
}

/// Decides, and moves what goes to the temporary folder, which a crash does not let grow: it is emptied at each start.
fn unlink(inner: &Inner, orphans: &Orphans, keep: Keep) -> Result<Vec<PathBuf>> {
    // Held to the end: who leases later looks after us and finds the truth.
    let leased = inner.leases.lock();
    let mut blobs: BTreeSet<Digest> = leased.keys().cloned().collect();
    let mut keys = blobs.clone();
    let mut layers = blobs.clone();
    if let Orphans::Unless(in_use) = orphans
        && inner.db.state().orphans.keys().any(|id| in_use(id).is_empty())
    {
        inner.db.update(|state| {
            state.orphans.retain(|id, _| !in_use(id).is_empty());
            Ok(())
        })?;
    }
    let state = inner.db.state();
    if !state.damaged.is_empty() {
        tracing::warn!(
            images = ?state.damaged,
            "nothing is deleted: records of images are damaged, and nobody knows what they need; pull them again, or stop the \
             daemon, move the folder `images` of ARCA_HOME away and pull all images again"
        );
        return Ok(Vec::new());
    }
    for (id, record) in state.images.iter().chain(&state.orphans) {
        blobs.extend(digests([id]));
        blobs.extend(digests(&record.manifests));
        let diff_ids: Vec<_> = digests(&record.layers).collect();
        keys.extend(plan(&diff_ids, inner.max_disks).into_iter().map(|plan| plan.key));
        layers.extend(diff_ids);
    }
    let is_used = |diff_id: &str| diff_id.parse().is_ok_and(|id: Digest| layers.contains(&id));
    let used = state.layers.iter().filter(|(diff_id, _)| is_used(diff_id));
    blobs.extend(digests(used.map(|(_, layer)| &layer.blob)));
    let hexes =
        |digests: &BTreeSet<Digest>| digests.iter().map(|d| d.hex().to_owned()).collect::<BTreeSet<_>>();
    let (blobs, keys) = (hexes(&blobs), hexes(&keys));
    let mut leftovers = others(inner.content.folder(), |name| blobs.contains(name))?;
    leftovers.extend(others(&inner.disks.folder, |name| {
        let hex = name.strip_suffix(".erofs").and_then(|name| name.split_once('-')).map(|(_, hex)| hex);
        hex.is_some_and(|hex| keys.contains(hex))
    })?);
    leftovers.sort_by_key(|leftover| leftover.age);
    let mut kept = 0u64;
    let mut moved = Vec::new();
    for leftover in leftovers {
        kept = kept.saturating_add(leftover.bytes);
        if leftover.age >= keep.age || kept > keep.bytes {
            static NUMBER: AtomicU64 = AtomicU64::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let to = inner.content.tmp().join(format!("deleted-{number}"));
            match fs::rename(&leftover.path, &to) {
                Ok(()) => moved.push(to),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let path = leftover.path.display();
                    tracing::warn!(%path, %error, "cannot delete what is not used any more");
                }
            }
        }
    }
    // A record counts for as long as the layer is used or its blob is here.
    let is_gone = |diff_id: &str, blob: &str| {
        !is_used(diff_id) && blob.parse().is_ok_and(|blob: Digest| inner.content.size(&blob).is_none())
    };
    if state.layers.iter().any(|(diff_id, layer)| is_gone(diff_id, &layer.blob)) {
        inner.db.update(|state| {
            state.layers.retain(|diff_id, layer| !is_gone(diff_id, &layer.blob));
            Ok(())
        })?;
    }
    Ok(moved)
}

/// The files of a folder that are not to be kept.
fn others(folder: &Path, keep: impl Fn(&str) -> bool) -> Result<Vec<Leftover>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let entry: DirEntry = entry.map_err(Error::io("list", folder))?;
        if entry.file_name().to_str().is_some_and(&keep) {
            continue;
        }
        // One that vanishes meanwhile is as good as deleted.
        let Ok(metadata) = entry.metadata() else { continue };
        let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        // A file from the future, after the clock was set back, is new.
        let age = SystemTime::now().duration_since(modified).unwrap_or_default();
        found.push(Leftover { path: entry.path(), age, bytes: metadata.len() });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use redb::{Database, TableDefinition};

    use super::*;
    use crate::{ImageStore, Options};

    const BLOB: &str = "aa";

    /// A store with a blob that nothing refers to, of an hour ago.
    fn root() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        drop(ImageStore::open(options(dir.path())).unwrap());
        let blob = dir.path().join("blobs/sha256").join(BLOB);
        fs::write(&blob, "blob").unwrap();
        let before = SystemTime::now() - Duration::from_secs(3600);
        fs::File::options().write(true).open(blob).unwrap().set_modified(before).unwrap();
        dir
    }

    fn options(root: &Path) -> Options {
        Options { keep_leftovers: Duration::from_secs(60), ..Options::new(root) }
    }

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// SPEC I17
    #[test]
    fn nothing_is_deleted_while_a_record_is_damaged() {
        let dir = root();
        let table = TableDefinition::<&str, &str>::new("images");
        let change = |value: Option<&str>| {
            let raw = Database::create(dir.path().join("images.redb")).unwrap();
            let transaction = raw.begin_write().unwrap();
            {
                let mut rows = transaction.open_table(table).unwrap();
                match value {
                    Some(value) => drop(rows.insert("sha256:a", value).unwrap()),
                    None => drop(rows.remove("sha256:a").unwrap()),
                }
            }
            transaction.commit().unwrap();
        };
        change(Some("{\"layers\":[\""));
        let store = ImageStore::open(options(dir.path())).unwrap();
        store.prune(false, &crate::PruneFilters::default(), &|_| Vec::new()).unwrap();
        drop(store);
        assert_eq!(names(&dir.path().join("blobs/sha256")), [BLOB]);
        change(None);
        drop(ImageStore::open(options(dir.path())).unwrap());
        assert!(names(&dir.path().join("blobs/sha256")).is_empty());
    }

    #[test]
    fn what_cannot_be_deleted_keeps_no_store_from_being_opened() {
        let dir = root();
        // A folder is no file: it cannot be deleted as one.
        fs::create_dir_all(dir.path().join("blobs/sha256/bb/cc")).unwrap();
        let options = Options { keep_leftovers: Duration::ZERO, ..options(dir.path()) };
        let store = ImageStore::open(options.clone()).unwrap();
        assert!(names(&dir.path().join("blobs/sha256")).is_empty());
        drop(store);
        drop(ImageStore::open(options).unwrap());
        assert!(names(&dir.path().join("tmp")).is_empty());
    }

    #[test]
    fn leases_are_free_while_files_are_deleted() {
        let dir = root();
        let options = Options { keep_leftovers: Duration::from_secs(24 * 3600), ..options(dir.path()) };
        let store = ImageStore::open(options).unwrap();
        let blobs = dir.path().join("blobs/sha256");
        assert_eq!(names(&blobs), [BLOB]);
        let inner = Arc::clone(store.inner());
        let moved = unlink(&inner, &Orphans::Stay, Keep::NOTHING).unwrap();
        // Not there for whoever leases it now, and not deleted yet.
        drop(inner.leases.take([Digest::of(b"x")]));
        assert!(names(&blobs).is_empty());
        assert_eq!(moved.len(), 1);
        assert!(moved.iter().all(|path| path.exists()));
        sweep(&inner, &Orphans::Stay, Keep::NOTHING).unwrap();
    }
}
