//! `/networks`: until there are networks, the one that needs none.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, State},
    response::Response,
    routing::{get, post},
};
use serde_json::{Value, json};

use super::{not_implemented, query::Query, respond};
use crate::{
    engine::Engine,
    error::{Error, Kind, Result},
};

/// Id of the network `none`; the same everywhere, since it is the same everywhere.
pub(crate) const NONE_ID: &str = "6e6f6e65000000000000000000000000000000000000000000000000000000a0";
/// When it was made: with the engine.
const CREATED: &str = "2026-11-21T00:00:00Z";
/// moby's `network.AcceptedFilters`.
const FILTERS: [&str; 8] = ["dangling", "driver", "id", "idOrName", "label", "name", "scope", "type"];

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/", get(list))
        .route("/networks/create", post(async || not_implemented(UNSUPPORTED)))
        .route("/networks/prune", post(prune))
        .route("/networks/{id}", get(inspect).delete(remove))
        .route("/networks/{id}/connect", post(connect))
        .route("/networks/{id}/disconnect", post(connect))
}

const UNSUPPORTED: &str = "networks are not supported yet: every container runs as with --network none";

fn none() -> Value {
    json!({
        "Name": "none", "Id": NONE_ID, "Created": CREATED, "Scope": "local", "Driver": "null", "EnableIPv4": true,
        "EnableIPv6": false, "IPAM": {"Driver": "default", "Options": null, "Config": null}, "Internal": false,
        "Attachable": false, "Ingress": false, "ConfigFrom": {"Network": ""}, "ConfigOnly": false, "Containers": {},
        "Options": {}, "Labels": {},
    })
}

async fn list(query: Query) -> Result<Response> {
    let filters = query.filters()?;
    filters.check(&FILTERS)?;
    if let Some(unknown) = filters.get("type").iter().find(|t| !["builtin", "custom"].contains(&t.as_str())) {
        return Err(Error::system(format!("invalid filter: 'type'='{unknown}'")));
    }
    let dangling = filters.bool_or("dangling", false).map_err(|_| {
        Error::invalid(r#"invalid value for filter 'dangling', must be "true" (or "1"), or "false" (or "0")"#)
    })?;
    let prefix = |key: &str, text: &str| {
        let values = filters.get(key);
        values.is_empty() || values.iter().any(|v| text.contains(v.as_str()))
    };
    let wanted = prefix("name", "none")
        && prefix("id", NONE_ID)
        && filters.exact("driver", "null")
        && filters.exact("scope", "local")
        && filters.exact("type", "builtin")
        && filters.labels("label", |_| None)
        && !dangling;
    Ok(respond::ok(&if wanted { vec![none()] } else { Vec::new() }))
}

async fn prune(query: Query) -> Result<Response> {
    query.filters()?.check(&["until", "label", "label!"])?;
    Ok(respond::ok(&json!({"NetworksDeleted": null})))
}

fn find(id: &str) -> Result<()> {
    if id == "none" || (!id.is_empty() && NONE_ID.starts_with(id)) {
        return Ok(());
    }
    Err(Error::not_found(format!("network {id} not found")))
}

async fn inspect(Path(id): Path<String>) -> Result<Response> {
    find(&id)?;
    Ok(respond::ok(&none()))
}

async fn remove(Path(id): Path<String>) -> Result<Response> {
    find(&id)?;
    Err(Error::new(Kind::Forbidden, "none is a pre-defined network and cannot be removed"))
}

async fn connect(State(_): State<Arc<Engine>>, Path(id): Path<String>) -> Result<Response> {
    find(&id)?;
    Ok(not_implemented(UNSUPPORTED))
}
