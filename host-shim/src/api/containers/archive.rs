//! `/containers/{id}/archive`: what `docker cp` uses.

use std::sync::{Arc, OnceLock};

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderName, HeaderValue, Request, StatusCode, header},
    response::Response,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use proto::sandbox::{ArchivePutOpen, PathStat};
use serde_json::json;
use tokio_stream::StreamExt;

use crate::{
    api::{query::Query, respond},
    engine::{Engine, clock},
    error::{Error, Result},
};

const STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");

type Shared = State<Arc<Engine>>;

pub(super) async fn head(State(engine): Shared, Path(id): Path<String>, query: Query) -> Result<Response> {
    let path = path(&query)?;
    let container = engine.find(&id)?;
    let stat = engine.stat_path(&container, &path).await?;
    let mut response = respond::empty(StatusCode::OK);
    response.headers_mut().insert(STAT, encode(&stat)?);
    Ok(response)
}

pub(super) async fn get(State(engine): Shared, Path(id): Path<String>, query: Query) -> Result<Response> {
    let path = path(&query)?;
    let container = engine.find(&id)?;
    // The body is fed by a task that keeps the files' VM for as long as it reads.
    let (stat, body) = engine.get_archive(&container, &path).await?;
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(STAT, encode(&stat)?);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    Ok(response)
}

pub(super) async fn put(
    State(engine): Shared,
    Path(id): Path<String>,
    query: Query,
    request: Request<Body>,
) -> Result<Response> {
    let open = ArchivePutOpen {
        container_id: String::new(),
        path: path(&query)?,
        no_overwrite_dir_non_dir: query.bool("noOverwriteDirNonDir"),
        copy_uid_gid: query.bool("copyUIDGID"),
    };
    let container = engine.find(&id)?;
    // A client that breaks off, or stops sending, ends the stream early; a tar may look whole all the same.
    let broke = Arc::new(OnceLock::new());
    let told = broke.clone();
    let parts = request.into_body().into_data_stream().map_while(move |part| match part {
        Ok(part) => Some(part),
        Err(error) => {
            let _ = told.set(error.to_string());
            None
        }
    });
    let put = engine.put_archive(&container, open, parts).await;
    match broke.get() {
        Some(error) => Err(Error::invalid(format!("the archive broke off: {error}"))),
        None => put.map(|()| respond::empty(StatusCode::OK)),
    }
}

fn path(query: &Query) -> Result<String> {
    match query.get("path") {
        Some(path) => Ok(path.to_owned()),
        None => Err(Error::invalid("bad parameter: pathcannot be empty")),
    }
}

/// The header: base64 of JSON.
pub(crate) fn encode(stat: &PathStat) -> Result<HeaderValue> {
    let nanos = i128::from(stat.mtime_seconds) * 1_000_000_000 + i128::from(stat.mtime_nanoseconds);
    let value = json!({
        "name": stat.name,
        "size": stat.size,
        "mode": stat.mode,
        "mtime": clock::format(nanos),
        "linkTarget": stat.link_target,
    });
    HeaderValue::try_from(BASE64_STANDARD.encode(value.to_string()))
        .map_err(|error| Error::system("cannot encode a stat").because(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stat_header_is_base64_json() {
        let stat =
            PathStat { name: "hosts".into(), size: 5, mode: 0o644, mtime_seconds: 1, ..PathStat::default() };
        let json = BASE64_STANDARD.decode(encode(&stat).unwrap()).unwrap();
        assert_eq!(
            String::from_utf8(json).unwrap(),
            r#"{"name":"hosts","size":5,"mode":420,"mtime":"1970-01-01T00:00:01Z","linkTarget":""}"#
        );
    }
}
