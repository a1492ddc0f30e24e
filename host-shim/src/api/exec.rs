//! `/containers/{id}/exec` and `/exec/{id}/...`.

use std::sync::Arc;

use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, State},
    http::{Request, StatusCode},
    response::Response,
    routing::{get, post},
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::{
    Version,
    hijack::{self, Hijack, Options},
    json,
    query::Query,
    respond,
};
use crate::{
    engine::{self, Engine, exec::ExecConfig},
    error::{Error, Result},
};

/// The routes.
pub fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/containers/{id}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/resize", post(resize))
        .route("/exec/{id}/json", get(inspect))
}

async fn create(
    State(engine): State<Arc<Engine>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response> {
    let config: ExecConfig = json::optional(request).await?.unwrap_or_default();
    if hijack::parse_keys(Some(config.detach_keys.as_str()).filter(|keys| !keys.is_empty())).is_err() {
        // As moby, which does not tell this mistake from its own.
        return Err(Error::system(format!("Invalid escape keys ({}) provided", config.detach_keys)));
    }
    let container = engine.find(&id)?;
    let exec = engine.create_exec(&container, config).await?;
    Ok(respond::created(&json!({ "Id": exec.id })))
}

/// The body of a start.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Start {
    detach: bool,
    console_size: Option<[u32; 2]>,
}

async fn start(
    State(engine): State<Arc<Engine>>,
    Extension(version): Extension<Version>,
    Path(id): Path<String>,
    mut request: Request<Body>,
) -> Result<Response> {
    let hijack = Hijack::take(&mut request)?;
    let start: Start = json::optional(request).await?.unwrap_or_default();
    let (container, exec) = engine.find_exec(&id)?;
    if start.detach {
        engine.start_exec(&container, &exec, true, start.console_size).await?;
        return Ok(respond::empty(StatusCode::OK));
    }
    exec.check()?;
    engine::exec::can_exec(&container)?;
    let config = &exec.config;
    let keys = Some(config.detach_keys.as_str()).filter(|keys| !keys.is_empty());
    let options = Options {
        tty: config.tty,
        stdin: config.attach_stdin,
        eof: true,
        detach: if config.tty { hijack::parse_keys(keys).map_err(Error::invalid)? } else { Vec::new() },
    };
    // As dockerd: the answer comes first, an error of the start is shown as output.
    let streams = async move {
        match engine.start_exec(&container, &exec, false, start.console_size).await {
            Ok(Some(streams)) => Ok(streams),
            Ok(None) => Err(Bytes::new()),
            Err(error) => Err(Bytes::from(format!("{}\r\n", error.message))),
        }
    };
    Ok(hijack.answer(version, options, streams))
}

async fn resize(State(engine): State<Arc<Engine>>, Path(id): Path<String>, query: Query) -> Result<Response> {
    let (width, height) = size(&query)?;
    let (container, exec) = engine.find_exec(&id)?;
    engine.resize_exec(&container, &exec, width, height).await?;
    Ok(respond::empty(StatusCode::OK))
}

async fn inspect(State(engine): State<Arc<Engine>>, Path(id): Path<String>) -> Result<Response> {
    let (container, exec) = engine.find_exec(&id)?;
    Ok(respond::ok(&exec.inspect(&container.id)))
}

/// `w` and `h` of a resize.
pub(crate) fn size(query: &Query) -> Result<(u32, u32)> {
    let number = |name: &str, word: &str| -> Result<u32> {
        let text = query.get(name).unwrap_or("");
        text.parse().map_err(|_| {
            let digits = text.strip_prefix('-').unwrap_or(text);
            let number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let why = if number { "value out of range" } else { "invalid syntax" };
            Error::invalid(format!("invalid resize {word} {text:?}: {why}"))
        })
    };
    let height = number("h", "height")?;
    Ok((number("w", "width")?, height))
}
