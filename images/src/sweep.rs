//! Deleting what nothing refers to any more: blobs, layer disks, layer records.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{
    content::ContentStore,
    db::{Db, digests},
    digest::Digest,
    disks::{DiskBuilder, plan},
    error::{Error, Result},
    lease::Leases,
    remove::InUse,
};

/// Marks from the images, the containers that outlive theirs, and the leases; deletes the rest.
pub(crate) fn sweep(
    db: &Db,
    content: &ContentStore,
    disks: &DiskBuilder,
    leases: &Leases,
    max_disks: usize,
    in_use: InUse,
) -> Result<()> {
    // Held to the end: who leases later looks after us and finds the truth.
    let leased = leases.lock();
    let mut blobs: BTreeSet<Digest> = leased.keys().cloned().collect();
    let mut keys = blobs.clone();
    db.update(|state| {
        if state.orphans.keys().any(|id| in_use(id).is_empty()) {
            state.orphans.retain(|id, _| !in_use(id).is_empty());
        }
        let mut layers = BTreeSet::new();
        for (id, record) in state.images.iter().chain(&state.orphans) {
            blobs.extend(digests([id]));
            blobs.extend(digests(&record.manifests));
            let diff_ids: Vec<_> = digests(&record.layers).collect();
            keys.extend(plan(&diff_ids, max_disks).into_iter().map(|plan| plan.key));
            layers.extend(diff_ids);
        }
        state.layers.retain(|diff_id, _| {
            diff_id.parse().is_ok_and(|id: Digest| layers.contains(&id) || leased.contains_key(&id))
        });
        blobs.extend(digests(state.layers.values().map(|layer| &layer.blob)));
        Ok(())
    })?;
    delete_others(content.folder(), |name| blobs.iter().any(|blob| blob.hex() == name))?;
    delete_others(&disks.folder, |name| {
        let hex = name.strip_suffix(".erofs").and_then(|name| name.split_once('-')).map(|(_, hex)| hex);
        keys.iter().any(|key| Some(key.hex()) == hex)
    })
}

fn delete_others(folder: &Path, keep: impl Fn(&str) -> bool) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let entry = entry.map_err(Error::io("list", folder))?;
        if !entry.file_name().to_str().is_some_and(&keep) {
            fs::remove_file(entry.path()).map_err(Error::io("delete", &entry.path()))?;
        }
    }
    Ok(())
}
