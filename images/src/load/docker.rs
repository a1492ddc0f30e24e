//! The docker archive (`docker save`): `manifest.json`, configurations and layers.

use serde::Deserialize;

use super::{
    Found, FoundLayer,
    archive::{Archive, MAX_IMAGES, invalid},
};
use crate::{
    error::Result,
    manifest::{MAX_CONFIG, MAX_MANIFEST},
    reference::Reference,
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

pub(super) fn images(archive: &Archive) -> Result<Vec<Found>> {
    let items: Vec<Item> = serde_json::from_slice(&archive.read("manifest.json", MAX_MANIFEST)?)
        .map_err(|e| invalid(&format!("manifest.json: {e}")))?;
    if items.len() > MAX_IMAGES {
        return Err(invalid(&format!("it holds more than {MAX_IMAGES} images")));
    }
    items.into_iter().map(|item| image(archive, item)).collect()
}

fn image(archive: &Archive, item: Item) -> Result<Found> {
    let config = String::from_utf8(archive.read(&item.config, MAX_CONFIG)?)
        .map_err(|_| invalid("a configuration is not text"))?;
    let layers = item.layers.unwrap_or_default();
    // Layers are checked by their diff IDs; names such as blobs/sha256/… state nothing more.
    let layers = layers.iter().map(|name| Ok(FoundLayer { member: archive.member(name)?, digest: None }));
    let mut tags = Vec::new();
    let names = item.repo_tags.unwrap_or_default();
    if names.len() > MAX_IMAGES {
        return Err(invalid(&format!("an image has more than {MAX_IMAGES} names")));
    }
    for tag in names {
        let tag: Reference = tag.parse()?;
        if tag.tag().is_none() || tag.digest().is_some() {
            return Err(invalid(&format!("invalid tag {tag}")));
        }
        tags.push(tag);
    }
    Ok(Found { config, manifests: Vec::new(), layers: layers.collect::<Result<_>>()?, tags, digest: None })
}
