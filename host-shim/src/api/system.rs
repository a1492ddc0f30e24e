//! `/_ping`, `/version`, `/info`, `/system/df`

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};

use super::{
    info,
    query::{Filters, Query},
    respond, version,
};
use crate::{
    engine::{Engine, list::Listing},
    error::{Error, Result},
};

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/_ping", get(ping))
        .route("/version", get(server_version))
        .route("/info", get(server_info))
        .route("/system/df", get(df))
}

/// `Builder-Version: 1`: there is no BuildKit behind this socket.
async fn ping() -> Response {
    let headers = [
        (header::CONTENT_TYPE.as_str(), "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL.as_str(), "no-cache, no-store, must-revalidate"),
        (header::PRAGMA.as_str(), "no-cache"),
        ("Builder-Version", "1"),
        ("Swarm", "inactive"),
    ];
    (StatusCode::OK, headers, "OK").into_response()
}

async fn server_version(State(engine): State<Arc<Engine>>) -> Response {
    let arca = env!("CARGO_PKG_VERSION");
    let kernel = info::guest_kernel(&engine.machine.kernel);
    let (api, oldest) = (version::CURRENT.to_string(), version::OLDEST.to_string());
    respond::ok(&json!({
        "Platform": {"Name": "Arca"},
        "Components": [{
            "Name": "Engine",
            "Version": arca,
            "Details": {
                "ApiVersion": api, "Arch": info::GOARCH, "BuildTime": "", "Experimental": "false", "GitCommit": "",
                "GoVersion": "", "KernelVersion": kernel, "MinAPIVersion": oldest, "Os": "linux",
            },
        }],
        "Version": arca, "ApiVersion": api, "MinAPIVersion": oldest, "GitCommit": "", "GoVersion": "", "Os": "linux",
        "Arch": info::GOARCH, "KernelVersion": kernel, "BuildTime": "",
    }))
}

async fn server_info(State(engine): State<Arc<Engine>>) -> Result<Response> {
    Ok(respond::ok(&info::info(&engine)?))
}

async fn df(State(engine): State<Arc<Engine>>, query: Query) -> Result<Response> {
    if let Some(unknown) =
        query.all("type").find(|t| !["image", "container", "volume", "build-cache"].contains(t))
    {
        return Err(Error::invalid(format!("unknown object type: {unknown}")));
    }
    let wanted = |kind: &str| !query.has("type") || query.all("type").any(|t| t == kind);
    let mut answer =
        json!({"LayersSize": 0, "Images": null, "Containers": null, "Volumes": null, "BuildCache": null});
    if wanted("image") {
        let store = engine.images.clone();
        let usage = super::images::blocking(move || store.disk_usage()).await?;
        let images: Vec<Value> = usage
            .images
            .iter()
            .map(|(image, shared)| {
                let mut value = super::images::summary(image, engine.containers_using(&image.id).len());
                value["SharedSize"] = json!(shared);
                value
            })
            .collect();
        answer["LayersSize"] = json!(usage.layers_size);
        answer["Images"] = json!(images);
    }
    if wanted("container") {
        let asked = engine.clone();
        let listing = Listing { all: true, limit: 0, size: true, filters: Filters::default() };
        let listed = tokio::task::spawn_blocking(move || asked.list(&listing)).await;
        answer["Containers"] = json!(listed.map_err(|e| Error::system("listing was lost").because(e))??);
    }
    if wanted("volume") {
        answer["Volumes"] = json!([]);
    }
    if wanted("build-cache") {
        answer["BuildCache"] = json!([]);
    }
    Ok(respond::ok(&answer))
}
