//! The decision that ends a pull or load: the image and its names, in one transaction.

use std::sync::Arc;

use time::OffsetDateTime;

use crate::{
    db::{Db, ImageRecord},
    digest::Digest,
    error::{Error, Result},
    reference::Reference,
};

/// An image whose disks are made.
pub(crate) struct Ready {
    pub(crate) config: String,
    pub(crate) manifests: Vec<Digest>,
    pub(crate) diff_ids: Vec<Digest>,
    /// Tag and digest references to set.
    pub(crate) references: Vec<Reference>,
}

/// What the names meant before.
pub(crate) struct Committed {
    pub(crate) id: String,
    /// Some name is new or meant another image.
    pub(crate) changed: bool,
    /// Tags taken from another image, with that image's ID.
    pub(crate) moved: Vec<(Reference, String)>,
}

pub(crate) fn commit(db: &Db, ready: &Ready) -> Result<Committed> {
    let id = Digest::of(ready.config.as_bytes()).to_string();
    db.update(|state| {
        let mut size = 0;
        for diff_id in &ready.diff_ids {
            let layer = state.layers.get(diff_id.as_str());
            size +=
                layer.ok_or_else(|| Error::System(format!("the layer {diff_id} vanished; try again")))?.size;
        }
        let mut committed = Committed { id: id.clone(), changed: false, moved: Vec::new() };
        for reference in &ready.references {
            let old = state.references.insert(reference.to_string(), id.clone());
            committed.changed |= old.as_ref() != Some(&id);
            if let Some(old) = old.filter(|old| *old != id && reference.tag().is_some()) {
                committed.moved.push((reference.clone(), old));
            }
        }
        let known = state.images.get(&id).or_else(|| state.orphans.get(&id));
        let mut record = known.map_or_else(
            || ImageRecord {
                config: ready.config.clone(),
                manifests: Vec::new(),
                layers: ready.diff_ids.iter().map(ToString::to_string).collect(),
                size,
                parent: None,
                last_tag_time: None,
            },
            |known| ImageRecord::clone(known),
        );
        let mut fresh = !state.images.contains_key(&id);
        for manifest in ready.manifests.iter().map(ToString::to_string) {
            if !record.manifests.contains(&manifest) {
                record.manifests.push(manifest);
                fresh = true;
            }
        }
        if committed.changed {
            record.last_tag_time = Some(OffsetDateTime::now_utc());
        }
        if fresh || committed.changed {
            state.images.insert(id.clone(), Arc::new(record));
        }
        state.orphans.remove(&id);
        Ok(committed)
    })
}
