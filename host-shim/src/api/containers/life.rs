//! Changes of a container's state.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, State},
    http::{Request, StatusCode},
    response::Response,
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    api::{exec::size, json, lenient, no_content, query::Query, respond},
    engine::{Engine, model::HostConfig, remove::Removal, wait::Condition},
    error::{Error, Kind, Result},
};

type Shared = State<Arc<Engine>>;

pub(super) async fn start(State(engine): Shared, Path(id): Path<String>) -> Result<Response> {
    let container = engine.find(&id)?;
    engine.start_container(&container).await?;
    Ok(no_content())
}

/// `signal` and `t` of stop and restart.
fn stopping(query: &Query) -> Result<(Option<String>, Option<i64>)> {
    Ok((query.get("signal").map(str::to_owned), query.int("t")?))
}

pub(super) async fn stop(State(engine): Shared, Path(id): Path<String>, query: Query) -> Result<Response> {
    let (signal, timeout) = stopping(&query)?;
    let container = engine.find(&id)?;
    engine.stop(&container, signal.as_deref(), timeout).await?;
    Ok(no_content())
}

pub(super) async fn restart(State(engine): Shared, Path(id): Path<String>, query: Query) -> Result<Response> {
    let (signal, timeout) = stopping(&query)?;
    let container = engine.find(&id)?;
    engine.restart(&container, signal.as_deref(), timeout).await?;
    Ok(no_content())
}

pub(super) async fn kill(State(engine): Shared, Path(id): Path<String>, query: Query) -> Result<Response> {
    let container = engine.find(&id)?;
    let signal = query.get("signal").unwrap_or("").to_owned();
    engine.kill(&container, &id, &signal).await?;
    Ok(no_content())
}

pub(super) async fn pause(State(engine): Shared, Path(id): Path<String>) -> Result<Response> {
    let container = engine.find(&id)?;
    engine.pause(&container).await?;
    Ok(no_content())
}

pub(super) async fn unpause(State(engine): Shared, Path(id): Path<String>) -> Result<Response> {
    let container = engine.find(&id)?;
    engine.unpause(&container).await?;
    Ok(no_content())
}

pub(super) async fn rename(State(engine): Shared, Path(id): Path<String>, query: Query) -> Result<Response> {
    let container = engine.find(&id)?;
    let name = query.get("name").unwrap_or("").to_owned();
    engine.rename(&container, &name).await?;
    Ok(no_content())
}

pub(super) async fn remove(State(engine): Shared, Path(id): Path<String>, query: Query) -> Result<Response> {
    if query.bool("link") {
        return Err(Error::new(Kind::NotImplemented, "legacy links are not supported"));
    }
    let container = engine.find(&id)?;
    let removal = Removal { force: query.bool("force"), volumes: query.bool("v") };
    engine.remove(&container, removal).await?;
    Ok(no_content())
}

pub(super) async fn prune(State(engine): Shared, query: Query) -> Result<Response> {
    let filters = query.filters()?;
    let pruned = engine.prune(&filters).await?;
    let deleted = if pruned.deleted.is_empty() { Value::Null } else { json!(pruned.deleted) };
    Ok(respond::ok(&json!({ "ContainersDeleted": deleted, "SpaceReclaimed": pruned.reclaimed })))
}

pub(super) async fn resize(State(engine): Shared, Path(id): Path<String>, query: Query) -> Result<Response> {
    let (width, height) = size(&query)?;
    let container = engine.find(&id)?;
    engine.resize(&container, width, height).await?;
    Ok(respond::empty(StatusCode::OK))
}

pub(super) async fn wait(State(engine): Shared, Path(id): Path<String>, query: Query) -> Result<Response> {
    let condition = Condition::parse(query.get("condition").unwrap_or(""))?;
    let container = engine.find(&id)?;
    let waited = engine.wait(&container, condition);
    drop(container);
    // The header is out at once: `docker run` waits for it before it starts the container.
    let body = futures::stream::once(async move {
        let waited = waited.await;
        let mut answer = json!({ "StatusCode": waited.exit_code });
        if !waited.error.is_empty() {
            answer["Error"] = json!({ "Message": waited.error });
        }
        Ok::<_, std::convert::Infallible>(Bytes::from(format!("{answer}\n")))
    });
    let mut response = respond::empty(StatusCode::OK);
    let json = axum::http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(axum::http::header::CONTENT_TYPE, json);
    *response.body_mut() = Body::from_stream(body);
    Ok(response)
}

/// What of an update is not in [`HostConfig`]'s place.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Policy {
    restart_policy: Option<crate::engine::model::RestartPolicy>,
}

pub(super) async fn update(
    State(engine): Shared,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response> {
    let body: Value = json::optional(request).await?.unwrap_or_default();
    let invalid = |error: serde_json::Error| Error::invalid(format!("invalid JSON: {error}"));
    let policy: Policy = lenient::from_value(body.clone()).map_err(invalid)?;
    let wanted: HostConfig = lenient::from_value(body).map_err(invalid)?;
    let container = engine.find(&id)?;
    let warnings = engine.update(&container, &wanted, policy.restart_policy).await?;
    Ok(respond::ok(&json!({ "Warnings": if warnings.is_empty() { Value::Null } else { json!(warnings) } })))
}
