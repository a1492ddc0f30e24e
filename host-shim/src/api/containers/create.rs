//! `POST /containers/create`

use std::sync::Arc;

use axum::{body::Body, extract::State, http::Request, response::Response};
use serde_json::{Value, json};

use crate::{
    api::{json, query::Query, respond},
    engine::{Engine, create},
    error::Result,
};

pub(super) async fn create(
    State(engine): State<Arc<Engine>>,
    query: Query,
    request: Request<Body>,
) -> Result<Response> {
    let body: Value = json::required(request).await?;
    // What says nothing is as good as null.
    let body = if body.as_object().is_some_and(serde_json::Map::is_empty) { Value::Null } else { body };
    let created = engine.create(query.get("name"), create::Body::parse(body)?).await?;
    Ok(respond::created(&json!({ "Id": created.id, "Warnings": created.warnings })))
}
