//! `docker login`.

use std::sync::Arc;

use axum::{Router, response::Response, routing::post};

use crate::engine::Engine;

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new().route("/auth", post(login))
}

async fn login() -> Response {
    super::not_implemented(
        "docker login is not supported yet: credentials that another engine's `docker login` stored are used for pulls",
    )
}
