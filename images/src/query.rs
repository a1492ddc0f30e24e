//! Looking images up: names, digests, ID prefixes; lists, history, sizes.

use std::collections::BTreeMap;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    config::ImageConfig,
    db::{ImageRecord, State},
    error::{Error, Result},
    image::{HistoryEntry, Image},
    reference::Reference,
};

/// The ID of the image that `text` means: a reference first, then an ID or the start of one, as dockerd does.
pub(crate) fn resolve(state: &State, text: &str) -> Result<Option<String>> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let is_hex = !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if is_hex && hex.len() == 64 {
        let id = format!("sha256:{hex}");
        return Ok(state.images.contains_key(&id).then_some(id));
    }
    let mut key = text.parse::<Reference>()?.tag_or_latest();
    if let Some(digest) = key.digest() {
        // With a digest the tag says nothing: it may have moved.
        key = key.digested(digest)?;
    }
    if let Some(id) = state.references.get(&key.to_string()) {
        return Ok(Some(id.clone()));
    }
    if !is_hex {
        return Ok(None);
    }
    let prefix = format!("sha256:{hex}");
    let mut matching =
        state.images.range(prefix.clone()..).map(|(id, _)| id).take_while(|id| id.starts_with(&prefix));
    match (matching.next(), matching.next()) {
        (Some(id), None) => Ok(Some(id.clone())),
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(Error::NotFound(format!(
            "No such image: {text} is ambiguous: several image IDs begin with it, give more digits"
        ))),
    }
}

/// As [`resolve`], with dockerd's error.
pub(crate) fn resolve_existing(state: &State, text: &str) -> Result<String> {
    resolve(state, text)?.ok_or_else(|| {
        let shown =
            text.parse::<Reference>().map_or_else(|_| text.to_owned(), |r| r.tag_or_latest().familiar());
        Error::NotFound(format!("No such image: {shown}"))
    })
}

/// An image with all that is known of it.
pub(crate) fn image(state: &State, id: &str, record: &ImageRecord) -> Result<Image> {
    let damaged =
        |e: serde_json::Error| Error::Corrupt(format!("the configuration of image {id} is damaged: {e}"));
    let config: ImageConfig = serde_json::from_str(&record.config).map_err(damaged)?;
    let (digests, tags): (Vec<_>, Vec<_>) =
        state.references_of(id).into_iter().partition(|r| r.digest().is_some());
    let familiar =
        |references: Vec<Reference>| references.iter().map(Reference::familiar).collect::<Vec<_>>();
    Ok(Image {
        id: id.to_owned(),
        created: config.created.as_deref().and_then(parse_time),
        config,
        raw_config: serde_json::from_str(&record.config).map_err(damaged)?,
        repo_tags: familiar(tags),
        repo_digests: familiar(digests),
        size: record.size,
        layers: record.layers.clone(),
        parent: record.parent.clone(),
        last_tag_time: record.last_tag_time,
    })
}

pub(crate) fn list(state: &State) -> Result<Vec<Image>> {
    let mut images =
        state.images.iter().map(|(id, record)| image(state, id, record)).collect::<Result<Vec<_>>>()?;
    images.sort_by_key(|image| std::cmp::Reverse(image.created));
    Ok(images)
}

pub(crate) fn history(state: &State, image: &Image) -> Vec<HistoryEntry> {
    let mut layers = image.layers.iter();
    let mut rows: Vec<_> = image
        .config
        .history
        .iter()
        .map(|step| {
            let layer = if step.empty_layer { None } else { layers.next() };
            let size = layer.and_then(|diff_id| state.layers.get(diff_id)).map_or(0, |layer| layer.size);
            let created = step.created.as_deref().and_then(parse_time);
            HistoryEntry {
                id: "<missing>".into(),
                created: created.map_or(0, OffsetDateTime::unix_timestamp),
                created_by: step.created_by.clone(),
                tags: Vec::new(),
                size,
                comment: step.comment.clone(),
            }
        })
        .collect();
    rows.reverse();
    if let Some(newest) = rows.first_mut() {
        newest.id.clone_from(&image.id);
        newest.tags.clone_from(&image.repo_tags);
    }
    rows
}

/// Content bytes of all layers, and of each image those that another image has as well.
pub(crate) fn shared_sizes(state: &State) -> (u64, BTreeMap<String, u64>) {
    let mut users: BTreeMap<&str, usize> = BTreeMap::new();
    let sets: Vec<_> = state
        .images
        .iter()
        .map(|(id, record)| {
            let layers: std::collections::BTreeSet<&str> = record.layers.iter().map(String::as_str).collect();
            (id, layers)
        })
        .collect();
    for layer in sets.iter().flat_map(|(_, layers)| layers) {
        *users.entry(layer).or_default() += 1;
    }
    let size = |layer: &str| state.layers.get(layer).map_or(0, |record| record.size);
    let all = users.keys().map(|layer| size(layer)).sum();
    let shared = |layers: &std::collections::BTreeSet<&str>| {
        layers.iter().filter(|layer| users.get(*layer).is_some_and(|n| *n > 1)).map(|layer| size(layer)).sum()
    };
    (all, sets.iter().map(|(id, layers)| ((*id).clone(), shared(layers))).collect())
}

fn parse_time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}
