//! `GET /events`

use std::sync::Arc;

use axum::{Router, extract::State, response::Response, routing::get};
use futures::StreamExt;

use super::{query::Query, respond};
use crate::{
    engine::{Engine, clock},
    error::{Error, Result},
};

/// moby's `events.validFilters`.
const FILTERS: [&str; 17] = [
    "config",
    "container",
    "daemon",
    "event",
    "id",
    "image",
    "label",
    "name",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
    "from",
];

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new().route("/events", get(events))
}

async fn events(State(engine): State<Arc<Engine>>, query: Query) -> Result<Response> {
    let (since, until) = (time(&query, "since")?, time(&query, "until")?);
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        return Err(Error::invalid("`since` time cannot be after `until` time"));
    }
    let filters = query.filters()?;
    filters.check(&FILTERS)?;
    let feed = engine.events.subscribe(since, until, filters);
    // The header is out at once: a client may wait for it before it does what it wants to see.
    let (lines, response) = respond::json_lines();
    tokio::spawn(async move {
        let mut feed = std::pin::pin!(feed);
        loop {
            let event = tokio::select! {
                event = feed.next() => event,
                () = lines.closed() => None,
            };
            let Some(event) = event else { break };
            if lines.send(&event.to_json()).await.is_err() {
                break;
            }
        }
    });
    Ok(response)
}

/// Nanoseconds since 1970.
fn time(query: &Query, name: &str) -> Result<Option<i128>> {
    let Some(text) = query.get(name) else { return Ok(None) };
    clock::parse_api(text)
        .map(Some)
        .ok_or_else(|| Error::invalid(format!("invalid value for {name}: {text:?}")))
}
