//! The Docker Engine API v1.51: HTTP only. Parse, call the engine, answer like dockerd.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Method, Request, StatusCode},
    response::{IntoResponse, Response},
};
use tower::ServiceExt;

use crate::{
    engine::Engine,
    error::{Error, Kind},
};

mod connections;
pub mod containers;
pub mod exec;
pub mod hijack;
pub mod json;
pub mod lenient;
mod limits;
mod protocol;
pub mod query;
pub mod respond;
pub mod server;
pub(crate) mod socket;
pub mod status;
mod tree;
mod upload;
mod version;

mod auth;
mod events;
mod images;
mod info;
mod networks;
#[cfg(test)]
mod routes;
#[cfg(test)]
mod slow;
mod stubs;
mod system;
#[cfg(test)]
pub(crate) mod tests;
mod volumes;

pub(crate) use images::until;
pub use version::Version;

/// All routes, without the version prefix.
pub fn router(engine: Arc<Engine>) -> Router {
    Router::new()
        .merge(system::routes())
        .merge(status::routes())
        .merge(auth::routes())
        .merge(events::routes())
        .merge(images::routes())
        .merge(containers::routes())
        .merge(exec::routes())
        .merge(networks::routes())
        .merge(volumes::routes())
        .merge(stubs::routes())
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
        .with_state(engine)
}

#[allow(clippy::result_large_err, reason = "the answer is sent as it is")]
fn prepare(request: &mut Request<Body>) -> Result<(), Response> {
    protocol::settle(request)?;
    version::strip(request)
}

/// Answers one request: version prefix, route, the headers that every answer of dockerd carries.
pub async fn answer(router: Router, mut request: Request<Body>) -> Response {
    let mut response = match prepare(&mut request) {
        Ok(()) if stray_head(&request) => page_not_found(),
        Ok(()) => match router.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        Err(refusal) => refusal,
    };
    let headers = response.headers_mut();
    headers.insert("Api-Version", HeaderValue::from_static("1.51"));
    headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    headers
        .insert("Server", HeaderValue::from_static(concat!("Arca/", env!("CARGO_PKG_VERSION"), " (linux)")));
    response
}

/// The router would answer HEAD wherever GET is served; dockerd knows it for two paths only.
fn stray_head(request: &Request<Body>) -> bool {
    let path = request.uri().path();
    request.method() == Method::HEAD && path != "/_ping" && !path.ends_with("/archive")
}

async fn not_found() -> Response {
    page_not_found()
}

/// 404 as dockerd answers where it has no route.
pub(crate) fn page_not_found() -> Response {
    Error::not_found("page not found").into_response()
}

/// 501 with a sentence.
pub(crate) fn not_implemented(sentence: &str) -> Response {
    Error::new(Kind::NotImplemented, sentence).into_response()
}

/// 204
pub(crate) fn no_content() -> Response {
    respond::empty(StatusCode::NO_CONTENT)
}
