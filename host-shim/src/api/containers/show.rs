//! What can be seen of containers.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Path, State},
    response::Response,
};
use serde_json::{Value, json};

use crate::{
    api::{not_implemented, query::Query, respond},
    engine::{Engine, list::Listing, stats::Sample},
    error::Result,
};

/// Between two samples of `stats`.
const INTERVAL: Duration = Duration::from_secs(1);

type Shared = State<Arc<Engine>>;

pub(super) async fn list(State(engine): Shared, query: Query) -> Result<Response> {
    let limit = query.int("limit")?.unwrap_or(0);
    let listing = Listing {
        all: query.bool("all"),
        limit: usize::try_from(limit).unwrap_or(0),
        size: query.bool("size"),
        filters: query.filters()?,
    };
    let listed = tokio::task::spawn_blocking(move || engine.list(&listing)).await;
    Ok(respond::ok(&listed.map_err(|error| crate::error::Error::system("a task was lost").because(error))??))
}

pub(super) async fn inspect(State(engine): Shared, Path(id): Path<String>, query: Query) -> Result<Response> {
    let container = engine.find(&id)?;
    Ok(respond::ok(&engine.inspect(&container, query.bool("size"))))
}

pub(super) async fn top(State(engine): Shared, Path(id): Path<String>, query: Query) -> Result<Response> {
    let container = engine.find(&id)?;
    Ok(respond::ok(&engine.top(&container, query.get("ps_args").unwrap_or("")).await?))
}

pub(super) async fn changes(State(engine): Shared, Path(id): Path<String>) -> Result<Response> {
    let container = engine.find(&id)?;
    let changes: Vec<Value> = engine
        .changes(&container)
        .await?
        .into_iter()
        .map(|change| json!({ "Path": change.path, "Kind": change.kind }))
        .collect();
    Ok(respond::ok(&if changes.is_empty() { Value::Null } else { Value::Array(changes) }))
}

pub(super) async fn export(State(engine): Shared, Path(id): Path<String>) -> Result<Response> {
    engine.find(&id)?;
    Ok(not_implemented("export comes with a later release of Arca"))
}

pub(super) async fn stats(State(engine): Shared, Path(id): Path<String>, query: Query) -> Result<Response> {
    let container = engine.find(&id)?;
    let stream = query.bool_or("stream", true);
    let one_shot = query.bool("one-shot");
    let (value, first) = engine.stats(&container, None).await?;
    if !stream && (one_shot || container.run().is_none()) {
        return Ok(respond::ok(&value));
    }
    if !stream {
        // A single answer holds two samples, from which the CLI computes its percentages.
        tokio::time::sleep(INTERVAL).await;
        let (value, _) = engine.stats(&container, Some(&first)).await?;
        return Ok(respond::ok(&value));
    }
    let (lines, response) = respond::json_lines();
    tokio::spawn(async move {
        let mut before: Option<Sample> = None;
        let (mut value, mut sample) = (value, first);
        while !container.seen().removed && lines.send(&value).await.is_ok() {
            before.replace(sample);
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = lines.closed() => return,
            }
            (value, sample) = match engine.stats(&container, before.as_ref()).await {
                Ok(next) => next,
                Err(error) => {
                    // It may be just ending.
                    tracing::debug!(%error, "no sample");
                    return;
                }
            };
        }
    });
    Ok(response)
}
