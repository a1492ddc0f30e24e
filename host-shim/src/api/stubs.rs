//! What Arca does not have, answered as dockerd does with swarm inactive and no plugins; and BuildKit's doors.

use std::sync::Arc;

use axum::{
    Router,
    extract::Path,
    response::Response,
    routing::{delete, get, post},
};

use super::{images::BUILD, not_implemented, page_not_found, query::Query, respond};
use crate::{
    engine::Engine,
    error::{Error, Kind, Result},
};

const NOT_A_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect \
                             this node to swarm and try again.";
const NO_SWARM: &str = "swarm mode is not supported";
const NO_PLUGINS: &str = "plugins are not supported";

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .merge(swarm())
        .merge(plugins())
        .route(
            "/distribution/{*rest}",
            get(async || {
                not_implemented("asking a registry about an image is not supported yet: docker pull it")
            }),
        )
        .route("/session", post(async || not_implemented(BUILD)))
        .route("/grpc", post(async || not_implemented(BUILD)))
}

fn swarm() -> Router<Arc<Engine>> {
    let mut router = Router::new()
        .route("/swarm", get(manager))
        .route("/swarm/init", post(async || not_implemented(NO_SWARM)))
        .route("/swarm/join", post(async || not_implemented(NO_SWARM)))
        .route("/swarm/leave", post(leave))
        .route("/swarm/update", post(manager))
        .route("/swarm/unlockkey", get(manager))
        .route("/swarm/unlock", post(manager))
        .route("/services/{id}/logs", get(logs))
        .route("/tasks/{id}/logs", get(logs))
        .route("/tasks", get(manager))
        .route("/tasks/{id}", get(manager))
        .route("/nodes", get(manager))
        .route("/nodes/{id}", get(manager).delete(manager))
        .route("/nodes/{id}/update", post(manager));
    for kind in ["services", "secrets", "configs"] {
        router = router
            .route(&format!("/{kind}"), get(manager))
            .route(&format!("/{kind}/create"), post(manager))
            .route(&format!("/{kind}/{{id}}"), get(manager).delete(manager))
            .route(&format!("/{kind}/{{id}}/update"), post(manager));
    }
    router
}

async fn manager() -> Error {
    Error::new(Kind::Unavailable, NOT_A_MANAGER)
}

async fn leave() -> Error {
    Error::new(Kind::Unavailable, "This node is not part of a swarm")
}

async fn logs(query: Query) -> Error {
    if query.bool("stdout") || query.bool("stderr") {
        return Error::new(Kind::Unavailable, NOT_A_MANAGER);
    }
    Error::system("Bad parameters: you must choose at least one stream")
}

fn plugins() -> Router<Arc<Engine>> {
    Router::new()
        .route("/plugins", get(plugin_list))
        .route("/plugins/privileges", get(async || respond::ok(&[(); 0])))
        .route("/plugins/pull", post(async || not_implemented(NO_PLUGINS)))
        .route("/plugins/create", post(async || not_implemented(NO_PLUGINS)))
        .route("/plugins/{*rest}", get(get_plugin).post(post_plugin).merge(delete(delete_plugin)))
}

async fn plugin_list(query: Query) -> Result<Response> {
    query.filters()?;
    Ok(respond::ok(&[(); 0]))
}

fn no_plugin(name: &str) -> Error {
    Error::not_found(format!("plugin \"{name}\" not found"))
}

async fn get_plugin(Path(rest): Path<String>) -> Result<Response> {
    match rest.rsplit_once('/') {
        Some((name, "json")) => Err(no_plugin(name)),
        _ => Ok(page_not_found()),
    }
}

async fn post_plugin(Path(rest): Path<String>) -> Result<Response> {
    match rest.rsplit_once('/') {
        Some((name, "enable" | "disable" | "upgrade" | "push" | "set")) => Err(no_plugin(name)),
        _ => Ok(page_not_found()),
    }
}

async fn delete_plugin(Path(name): Path<String>) -> Error {
    no_plugin(&name)
}
