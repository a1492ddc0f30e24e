//! `/images/...`: names contain slashes, so what follows `/images/` is taken apart here.

mod create;
mod filter;
mod load;
mod progress;
mod remove;
mod view;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{Request, StatusCode},
    response::Response,
    routing::{delete, get, post},
};

pub(crate) use filter::until;
pub(super) use view::summary;

use super::{not_implemented, page_not_found, query::Query, respond, version::Version};
use crate::{
    engine::{
        Engine,
        events::{Event, Kind},
    },
    error::{Error, Result},
};

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/images/json", get(list))
        .route("/images/search", get(async || not_implemented("docker search is not supported yet")))
        .route("/images/get", get(async || not_implemented(SAVE)))
        .route("/images/create", post(create::create))
        .route("/images/load", post(load::load))
        .route("/images/prune", post(remove::prune))
        .route("/images/{*rest}", get(get_one).post(post_one).merge(delete(remove::remove)))
        .route("/commit", post(async || not_implemented("docker commit is not supported yet")))
        .route("/build", post(async || not_implemented(BUILD)))
        .route("/build/cancel", post(async || not_implemented(BUILD)))
        .route("/build/prune", post(build_prune))
}

const SAVE: &str = "docker save is not supported yet";
pub(super) const BUILD: &str = "docker build is not supported yet: build the image elsewhere and bring it here with \
                                docker pull or docker load";

/// Filters of `docker images`, as moby's `imageService.Images` has them.
const LIST_FILTERS: [&str; 6] = ["dangling", "label", "before", "since", "reference", "until"];

async fn list(
    State(engine): State<Arc<Engine>>,
    axum::Extension(version): axum::Extension<Version>,
    query: Query,
) -> Result<Response> {
    let filters = query.filters()?;
    filters.check(&LIST_FILTERS)?;
    let store = engine.images.clone();
    let found = blocking(move || store.list()).await?;
    let selection = filter::Selection::new(&engine, &filters)?;
    let shared_size = query.bool("shared-size");
    let shared = if shared_size {
        let store = engine.images.clone();
        blocking(move || store.disk_usage()).await?.images
    } else {
        Vec::new()
    };
    let mut answer = Vec::new();
    for mut image in found {
        if !selection.keep(&mut image) {
            continue;
        }
        let mut value = summary(&image, engine.containers_using(&image.id).len());
        if let Some((_, bytes)) = shared.iter().find(|(i, _)| i.id == image.id) {
            value["SharedSize"] = (*bytes).into();
        }
        view::for_old_clients(&mut value, version);
        answer.push(value);
    }
    Ok(respond::ok(&answer))
}

async fn get_one(
    State(engine): State<Arc<Engine>>,
    axum::Extension(version): axum::Extension<Version>,
    Path(rest): Path<String>,
) -> Result<Response> {
    let Some((name, action)) = rest.rsplit_once('/') else { return Ok(page_not_found()) };
    let name = name.to_owned();
    let store = engine.images.clone();
    match action {
        "json" => {
            let image = blocking(move || store.get(&name)).await?;
            let mut value = view::inspect(&image);
            view::for_old_clients(&mut value, version);
            Ok(respond::ok(&value))
        }
        "history" => {
            let rows = blocking(move || store.history(&name)).await?;
            Ok(respond::ok(&rows.iter().map(view::history).collect::<Vec<_>>()))
        }
        "get" => Ok(not_implemented(SAVE)),
        _ => Ok(page_not_found()),
    }
}

async fn post_one(
    State(engine): State<Arc<Engine>>,
    Path(rest): Path<String>,
    query: Query,
    _body: Request<Body>,
) -> Result<Response> {
    match rest.rsplit_once('/') {
        Some((name, "tag")) => tag(&engine, name, &query).await,
        Some((_, "push")) => Ok(not_implemented("docker push is not supported yet")),
        _ => Ok(page_not_found()),
    }
}

async fn tag(engine: &Engine, name: &str, query: &Query) -> Result<Response> {
    let repo = query.get("repo").ok_or_else(|| Error::invalid("invalid reference format"))?.to_owned();
    let (store, name, tag) =
        (engine.images.clone(), name.to_owned(), query.get("tag").unwrap_or("").to_owned());
    let (id, familiar) = blocking(move || {
        let id = store.get(&name)?.id;
        store.tag(&id, &repo, &tag).map(|familiar| (id, familiar))
    })
    .await?;
    publish(engine, "tag", &id, &familiar);
    Ok(respond::empty(StatusCode::CREATED))
}

async fn build_prune(query: Query) -> Result<Response> {
    query.filters()?;
    Ok(respond::ok(&serde_json::json!({"CachesDeleted": null, "SpaceReclaimed": 0})))
}

/// An event of an image: `actor` is what it is about, `name` how users call it; the image's labels are attributes.
fn publish(engine: &Engine, action: &str, actor: &str, name: &str) {
    let mut event = Event::new(Kind::Image, action, actor);
    if let Ok(Some(image)) = engine.images.find(actor) {
        for (key, value) in image.config.config.labels.unwrap_or_default() {
            event = event.with(key, value);
        }
    }
    engine.events.publish(event.with("name", name));
}

/// Runs `work` of the image store, which reads and writes files, where blocking is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, ::images::Error> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(Error::system("an image task was lost").because(error)),
    }
}
