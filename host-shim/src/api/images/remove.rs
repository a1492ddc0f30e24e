//! `DELETE /images/{name}` and `POST /images/prune`.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::Response,
};
use images::{PruneFilters, Removed};
use serde_json::{Value, json};

use super::super::{query::Query, respond};
use crate::{engine::Engine, error::Result};

/// moby's `imagesAcceptedFilters` of prune.
const PRUNE_FILTERS: [&str; 4] = ["dangling", "label", "label!", "until"];

pub(super) async fn remove(
    State(engine): State<Arc<Engine>>,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response> {
    let (force, noprune) = (query.bool("force"), query.bool("noprune"));
    let (asked, name) = (engine.clone(), name);
    let (id, removed) = super::blocking(move || {
        let id = asked.images.get(&name)?.id;
        let removed = asked.images.remove(&name, force, noprune, &|image| asked.containers_using(image))?;
        Ok((id, removed))
    })
    .await?;
    publish(&engine, &id, &removed);
    Ok(respond::ok(&records(&removed)))
}

pub(super) async fn prune(State(engine): State<Arc<Engine>>, query: Query) -> Result<Response> {
    let filters = query.filters()?;
    filters.check(&PRUNE_FILTERS)?;
    let dangling = filters.bool_or("dangling", true)?;
    let selection = PruneFilters {
        until: super::filter::until(&filters)?,
        labels: filters.get("label").to_vec(),
        not_labels: filters.get("label!").to_vec(),
    };
    let asked = engine.clone();
    let (known, removed, bytes) = super::blocking(move || {
        let known = asked.images.list()?;
        let (removed, bytes) =
            asked.images.prune(dangling, &selection, &|image| asked.containers_using(image))?;
        Ok((known, removed, bytes))
    })
    .await?;
    for record in &removed {
        // Layers are deleted as well, and have no events.
        if let Removed::Deleted(id) = record
            && let Some(image) = known.iter().find(|image| image.id == *id)
        {
            for _ in &image.repo_tags {
                super::publish(&engine, "untag", id, id);
            }
            super::publish(&engine, "delete", id, id);
        }
    }
    engine.events.publish(
        crate::engine::events::Event::new(crate::engine::events::Kind::Image, "prune", "")
            .with("reclaimed", bytes.to_string()),
    );
    let records = if removed.is_empty() { Value::Null } else { records(&removed) };
    Ok(respond::ok(&json!({"ImagesDeleted": records, "SpaceReclaimed": bytes})))
}

/// `untag` for each name, `delete` for the image itself; layers have no events.
fn publish(engine: &Engine, id: &str, removed: &[Removed]) {
    for record in removed {
        match record {
            Removed::Untagged(_) => super::publish(engine, "untag", id, id),
            Removed::Deleted(deleted) if deleted == id => super::publish(engine, "delete", id, id),
            Removed::Deleted(_) => {}
        }
    }
}

fn records(removed: &[Removed]) -> Value {
    removed
        .iter()
        .map(|record| match record {
            Removed::Untagged(name) => json!({"Untagged": name}),
            Removed::Deleted(id) => json!({"Deleted": id}),
        })
        .collect()
}
