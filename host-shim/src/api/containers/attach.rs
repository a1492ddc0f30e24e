//! `POST /containers/{id}/attach`

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::{Path, State},
    http::Request,
    response::Response,
};
use bytes::Bytes;
use runner::logs::LogStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;

use crate::{
    api::{
        Version,
        hijack::{self, Hijack, Options},
        not_implemented,
        query::Query,
    },
    engine::{
        Engine,
        attach::{Attachment, Output, Streams, Wanted},
        container::Container,
    },
    error::{Error, Result},
};

pub(super) async fn websocket(State(engine): State<Arc<Engine>>, Path(id): Path<String>) -> Result<Response> {
    engine.find(&id)?;
    Ok(not_implemented("attach over a websocket is not implemented: use POST /containers/{id}/attach"))
}

pub(super) async fn attach(
    State(engine): State<Arc<Engine>>,
    Extension(version): Extension<Version>,
    Path(id): Path<String>,
    query: Query,
    mut request: Request<Body>,
) -> Result<Response> {
    let hijack = Hijack::take(&mut request);
    let keys = hijack::parse_keys(query.get("detachKeys")).map_err(Error::invalid)?;
    let container = engine.find(&id)?;
    let record = container.record();
    if record.state.status == crate::engine::record::Status::Paused {
        return Err(Error::conflict(format!(
            "container {id} is paused, unpause the container before attach"
        )));
    }
    let config = &record.config;
    let (stdin, stdout, stderr) = (query.bool("stdin"), query.bool("stdout"), query.bool("stderr"));
    let stream = query.bool("stream");
    let options = Options {
        tty: config.tty,
        stdin: stdin && stream && config.open_stdin,
        eof: config.stdin_once && !config.tty,
        detach: if config.tty && stdin { keys } else { Vec::new() },
    };
    let wanted = Wanted { stdin: options.stdin, stdout, stderr };
    // Subscribed before the log is read, so that nothing falls between the two; what is in both is rare and harmless.
    let attachment = if stream { Some(engine.attach(&container, wanted).await?) } else { None };
    let past = if query.bool("logs") { past(&engine, &container, stdout, stderr).await? } else { Vec::new() };
    Ok(hijack.answer(version, options, async move { streams(attachment, past).await }))
}

/// The log so far.
async fn past(
    engine: &Engine,
    container: &Arc<Container>,
    stdout: bool,
    stderr: bool,
) -> Result<Vec<Output>> {
    let query = runner::logs::Query { stdout, stderr, ..runner::logs::Query::default() };
    let mut entries = engine.logs(container, query)?;
    let mut past = Vec::new();
    let mut size = 0;
    while let Some(entry) = entries.next().await {
        let entry = entry.map_err(|error| Error::system(error.to_string()).because(error))?;
        size += entry.line.len();
        // Bounded: whoever wants more asks `logs`.
        if size > 16 << 20 {
            break;
        }
        past.push(Output { stderr: entry.stream == LogStream::Stderr, data: entry.line });
    }
    Ok(past)
}

/// The log so far, then what comes.
async fn streams(attachment: Option<Attachment>, past: Vec<Output>) -> Result<Streams, Bytes> {
    let live = match attachment {
        Some(attachment) => attachment.streams().await,
        None => None,
    };
    if past.is_empty() {
        return live.ok_or_else(Bytes::new);
    }
    let (sender, output) = mpsc::channel(4);
    let (input, live) = match live {
        Some(live) => (live.input, Some(live.output)),
        None => (mpsc::channel(1).0, None),
    };
    tokio::spawn(async move {
        for chunk in past {
            if sender.send(chunk).await.is_err() {
                return;
            }
        }
        let Some(mut live) = live else { return };
        loop {
            let chunk = tokio::select! {
                chunk = live.recv() => chunk,
                () = sender.closed() => None,
            };
            let Some(chunk) = chunk else { return };
            if sender.send(chunk).await.is_err() {
                return;
            }
        }
    });
    Ok(Streams { input, output })
}
