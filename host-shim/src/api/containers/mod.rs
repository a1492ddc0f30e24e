//! `/containers/...`

mod archive;
mod attach;
mod create;
mod life;
mod logs;
mod show;

use std::sync::Arc;

use axum::{
    Router,
    routing::{delete, get, post},
};

pub(crate) use archive::encode as path_stat;
pub(crate) use life::Policy;
pub(crate) use logs::parse as log_query;

use crate::engine::Engine;

/// The routes.
pub fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/containers/create", post(create::create))
        .route("/containers/json", get(show::list))
        .route("/containers/prune", post(life::prune))
        .route("/containers/{id}", delete(life::remove))
        .route("/containers/{id}/json", get(show::inspect))
        .route("/containers/{id}/top", get(show::top))
        .route("/containers/{id}/stats", get(show::stats))
        .route("/containers/{id}/changes", get(show::changes))
        .route("/containers/{id}/logs", get(logs::logs))
        .route("/containers/{id}/export", get(show::export))
        .route("/containers/{id}/start", post(life::start))
        .route("/containers/{id}/stop", post(life::stop))
        .route("/containers/{id}/restart", post(life::restart))
        .route("/containers/{id}/kill", post(life::kill))
        .route("/containers/{id}/pause", post(life::pause))
        .route("/containers/{id}/unpause", post(life::unpause))
        .route("/containers/{id}/rename", post(life::rename))
        .route("/containers/{id}/update", post(life::update))
        .route("/containers/{id}/wait", post(life::wait))
        .route("/containers/{id}/resize", post(life::resize))
        .route("/containers/{id}/attach", post(attach::attach))
        .route("/containers/{id}/attach/ws", get(attach::websocket))
        .route("/containers/{id}/archive", get(archive::get).head(archive::head).put(archive::put))
}
