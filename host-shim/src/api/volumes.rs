//! `/volumes`: until there are volumes, there are none.

use std::sync::Arc;

use axum::{
    Router,
    extract::Path,
    response::Response,
    routing::{get, post},
};
use serde_json::json;

use super::{no_content, not_implemented, query::Query, respond};
use crate::{
    engine::Engine,
    error::{Error, Kind, Result},
};

/// moby's accepted filters of volumes.
const FILTERS: [&str; 4] = ["dangling", "name", "driver", "label"];
/// And of their prune.
const PRUNE_FILTERS: [&str; 3] = ["label", "label!", "all"];

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/volumes", get(list))
        .route(
            "/volumes/create",
            post(async || {
                not_implemented("volumes are not supported yet: use docker cp, or keep data in the container")
            }),
        )
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(inspect).put(update).delete(remove))
}

async fn list(query: Query) -> Result<Response> {
    let invalid = |e: Error| Error::invalid(format!("error reading volume filters: {}", e.message));
    let filters = query.filters().map_err(invalid)?;
    filters.check(&FILTERS)?;
    filters.bool_or("dangling", false)?;
    Ok(respond::ok(&json!({"Volumes": [], "Warnings": null})))
}

async fn prune(query: Query) -> Result<Response> {
    query.filters()?.check(&PRUNE_FILTERS)?;
    Ok(respond::ok(&json!({"VolumesDeleted": null, "SpaceReclaimed": 0})))
}

fn missing(name: &str) -> Error {
    Error::not_found(format!("get {name}: no such volume"))
}

async fn inspect(Path(name): Path<String>) -> Result<Response> {
    Err(missing(&name))
}

async fn remove(Path(name): Path<String>, query: Query) -> Result<Response> {
    if query.bool("force") { Ok(no_content()) } else { Err(missing(&name)) }
}

async fn update() -> Result<Response> {
    let text = "volume update only valid for cluster volumes, but swarm is unavailable";
    Err(Error::new(Kind::Unavailable, text))
}
