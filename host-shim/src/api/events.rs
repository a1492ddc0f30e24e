//! `GET /events`

use std::sync::Arc;

use axum::{Router, extract::State, response::Response, routing::get};
use futures::StreamExt;

use super::{query::Query, respond};
use crate::{
    engine::Engine,
    error::{Error, Result},
};

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new().route("/events", get(events))
}

async fn events(State(engine): State<Arc<Engine>>, query: Query) -> Result<Response> {
    let (since, until) = (query.time("since")?, query.time("until")?);
    if let (Some(from), Some(to)) = (since, until)
        && from > to
    {
        let word = |name: &str| query.get(name).unwrap_or("").to_owned();
        let text =
            format!("`since` time ({}) cannot be after `until` time ({})", word("since"), word("until"));
        return Err(Error::invalid(text));
    }
    // As moby: a key that means nothing selects nothing.
    let filters = query.filters()?;
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
