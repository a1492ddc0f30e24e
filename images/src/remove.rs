//! Removing names and images by dockerd's rules and in its words.

use std::collections::{BTreeMap, BTreeSet};

use time::OffsetDateTime;

use crate::{
    db::{State, digests},
    digest::{Digest, chain_id},
    error::{Error, Result},
    image::{ContainerUse, Image, PruneFilters, Removed},
    progress::short_id,
    query,
    reference::Reference,
};

/// Which containers use an image, by image ID.
pub(crate) type InUse<'a> = &'a dyn Fn(&str) -> Vec<ContainerUse>;

/// What stands against deleting an image.
#[derive(Debug, PartialEq, Eq)]
struct Conflict {
    /// Force does not help.
    hard: bool,
    /// A container uses it.
    used: bool,
    why: String,
}

/// `docker rmi NAME`.
pub(crate) fn remove(
    state: &mut State,
    name: &str,
    force: bool,
    noprune: bool,
    in_use: InUse,
) -> Result<Vec<Removed>> {
    let id = query::resolve_existing(state, name)?;
    let mut records = Vec::new();
    let references = state.references_of(&id);
    let by_id = id.starts_with(name) || id.split_once(':').is_some_and(|(_, hex)| hex.starts_with(name));
    if by_id {
        // An ID takes all names with it if they are of one repository.
        if is_single_reference(&references) {
            if let Some(conflict) = conflict(state, &id, !force, false, in_use) {
                return Err(conflict.error(&id));
            }
            for reference in references {
                untag(state, &reference, &mut records);
            }
        }
    } else {
        if let Some(user) = in_use(&id).first().filter(|_| !force && is_single_reference(&references)) {
            return Err(Error::Conflict(format!(
                "conflict: unable to remove repository reference {name:?} (must force) - container {} is using its referenced image {}",
                short_id(&user.id),
                short_id(&id)
            )));
        }
        let given = name.parse::<Reference>()?.tag_or_latest();
        let given = match given.digest() {
            Some(digest) => given.digested(digest)?,
            None => given,
        };
        untag(state, &given, &mut records);
        let same_name = |r: &Reference| r.name() == given.name();
        let left = state.references_of(&id);
        // Digests of a repository go with its last tag.
        if given.digest().is_none() && !left.iter().any(|r| r.digest().is_none() && same_name(r)) {
            for reference in left.iter().filter(|r| r.digest().is_some() && same_name(r)) {
                untag(state, reference, &mut records);
            }
        }
        if !state.references_of(&id).is_empty() {
            return Ok(records);
        }
    }
    delete(state, &id, force, !noprune, !by_id, in_use, &mut records)?;
    Ok(records)
}

/// `docker image prune`: the records and the content bytes of the layers that went.
pub(crate) fn prune(
    state: &mut State,
    dangling_only: bool,
    filters: &PruneFilters,
    in_use: InUse,
) -> Result<(Vec<Removed>, u64)> {
    let sizes = chain_sizes(state);
    let mut records = Vec::new();
    for image in query::list(state)? {
        let references = state.references_of(&image.id);
        let tagged = references.iter().any(|r| r.digest().is_none());
        let is_parent = references.is_empty() && state.has_children(&image.id);
        if is_parent || (dangling_only && tagged) || !wanted(&image, filters) {
            continue;
        }
        let names: Vec<String> = if references.is_empty() {
            vec![image.id.clone()]
        } else {
            references.iter().map(ToString::to_string).collect()
        };
        for name in names {
            match remove(state, &name, false, false, in_use) {
                Ok(more) => records.extend(more),
                // In use, or gone with its tag: not prune's concern.
                Err(Error::Conflict(_) | Error::NotFound(_)) => {}
                Err(e) => return Err(e),
            }
        }
    }
    let reclaimed = records.iter().filter_map(|record| match record {
        Removed::Deleted(id) => sizes.get(id),
        Removed::Untagged(_) => None,
    });
    let reclaimed = reclaimed.sum();
    Ok((records, reclaimed))
}

fn wanted(image: &Image, filters: &PruneFilters) -> bool {
    let has = |label: &String| {
        let (key, value) = label.split_once('=').map_or((label.as_str(), None), |(k, v)| (k, Some(v)));
        let found = image.config.config.labels.as_ref().and_then(|labels| labels.get(key));
        found.is_some_and(|found| value.is_none_or(|value| value == found))
    };
    filters.until.is_none_or(|until: OffsetDateTime| image.created.is_some_and(|created| created <= until))
        && filters.labels.iter().all(has)
        && !filters.not_labels.iter().any(has)
}

/// One tag at most, and all digests of that repository.
fn is_single_reference(references: &[Reference]) -> bool {
    if references.len() <= 1 {
        return true;
    }
    let (digests, tags): (Vec<_>, Vec<_>) = references.iter().partition(|r| r.digest().is_some());
    let names: BTreeSet<_> = digests.iter().map(|r| r.name()).collect();
    let single = match tags.as_slice() {
        [] => references[0].name(),
        [tag] => tag.name(),
        _ => return false,
    };
    names.len() == 1 && names.contains(&single)
}

/// `soft`: stopped containers count; `referenced`: names count.
fn conflict(state: &State, id: &str, soft: bool, referenced: bool, in_use: InUse) -> Option<Conflict> {
    let hard = |used, why| Some(Conflict { hard: true, used, why });
    if state.has_children(id) {
        return hard(false, "image has dependent child images".to_owned());
    }
    let users = in_use(id);
    if let Some(user) = users.iter().find(|user| user.running) {
        return hard(true, format!("image is being used by running container {}", short_id(&user.id)));
    }
    if referenced && !state.references_of(id).is_empty() {
        let why = "image is referenced in multiple repositories".to_owned();
        return Some(Conflict { hard: false, used: false, why });
    }
    let user = users.first().filter(|_| soft)?;
    let why = format!("image is being used by stopped container {}", short_id(&user.id));
    Some(Conflict { hard: false, used: true, why })
}

impl Conflict {
    fn error(&self, id: &str) -> Error {
        let force = if self.hard { "cannot be forced" } else { "must be forced" };
        Error::Conflict(format!("conflict: unable to delete {} ({force}) - {}", short_id(id), self.why))
    }
}

fn untag(state: &mut State, reference: &Reference, records: &mut Vec<Removed>) {
    if state.references.remove(&reference.to_string()).is_some() {
        records.push(Removed::Untagged(reference.familiar()));
    }
}

/// Deletes an image, then parents that nothing else needs. `quiet` after a name was removed: then an image in
/// use just stays.
fn delete(
    state: &mut State,
    id: &str,
    force: bool,
    prune: bool,
    quiet: bool,
    in_use: InUse,
    records: &mut Vec<Removed>,
) -> Result<()> {
    if let Some(conflict) = conflict(state, id, !force, !force, in_use) {
        if quiet && (conflict.used || !state.references_of(id).is_empty()) {
            return Ok(());
        }
        return Err(conflict.error(id));
    }
    for reference in state.references_of(id) {
        untag(state, &reference, records);
    }
    let Some(record) = state.images.remove(id) else { return Ok(()) };
    records.push(Removed::Deleted(id.to_owned()));
    let parent = record.parent.clone().filter(|_| prune);
    if in_use(id).is_empty() {
        let kept: BTreeSet<Digest> =
            state.images.values().chain(state.orphans.values()).flat_map(|r| chains(&r.layers)).collect();
        let gone = chains(&record.layers).into_iter().rev().filter(|chain| !kept.contains(chain));
        records.extend(gone.map(|chain| Removed::Deleted(chain.to_string())));
    } else {
        // A stopped container must still start: the layers stay until it is gone.
        state.orphans.insert(id.to_owned(), record);
    }
    match parent.filter(|parent| state.images.contains_key(parent)) {
        // A parent that has a conflict or a name of its own stays, without a word.
        Some(parent) if state.references_of(&parent).is_empty() => {
            match delete(state, &parent, false, true, true, in_use, records) {
                Err(Error::Conflict(_)) => Ok(()),
                other => other,
            }
        }
        _ => Ok(()),
    }
}

/// The chain ID of every layer, lowest first.
fn chains(layers: &[String]) -> Vec<Digest> {
    let diff_ids: Vec<_> = digests(layers).collect();
    let mut chains: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chains.last() {
            Some(below) => chain_id(&[below.clone(), diff_id]),
            None => Some(diff_id),
        };
        chains.extend(next);
    }
    chains
}

fn chain_sizes(state: &State) -> BTreeMap<String, u64> {
    let mut sizes = BTreeMap::new();
    for record in state.images.values() {
        for (chain, diff_id) in chains(&record.layers).into_iter().zip(&record.layers) {
            sizes.insert(chain.to_string(), state.layers.get(diff_id).map_or(0, |layer| layer.size));
        }
    }
    sizes
}

#[cfg(test)]
#[path = "remove_tests.rs"]
mod tests;
