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

/// Marks from the images, the containers that outlive theirs, and the leases; deletes the rest but `keep`.
pub(crate) fn sweep(inner: &Inner, orphans: &Orphans, keep: Keep) -> Result<()> {
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
    for leftover in leftovers {
        kept = kept.saturating_add(leftover.bytes);
        if leftover.age >= keep.age || kept > keep.bytes {
            match fs::remove_file(&leftover.path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("delete", &leftover.path)(e));
                }
                _ => {}
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
    Ok(())
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
