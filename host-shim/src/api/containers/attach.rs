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
use runner::logs::{Entry, LogStream};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

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
    let hijack = Hijack::take(&mut request)?;
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
    let past = runner::logs::Query { stdout, stderr, ..runner::logs::Query::default() };
    let past = if query.bool("logs") { Some(engine.logs(&container, past).await?) } else { None };
    Ok(hijack.answer(version, options, async move { streams(attachment, past).await }))
}

/// The log so far.
type Past = ReceiverStream<Result<Entry, runner::Error>>;

/// The log so far, then what comes.
async fn streams(attachment: Option<Attachment>, past: Option<Past>) -> Result<Streams, Bytes> {
    let live = match attachment {
        Some(attachment) => attachment.streams().await,
        None => None,
    };
    let Some(mut past) = past else { return live.ok_or_else(Bytes::new) };
    let (sender, output) = mpsc::channel(4);
    let (input, live) = match live {
        Some(live) => (live.input, Some(live.output)),
        None => (mpsc::channel(1).0, None),
    };
    tokio::spawn(async move {
        while let Some(entry) = past.next().await {
            let Ok(entry) = entry else { return };
            let chunk = Output { stderr: entry.stream == LogStream::Stderr, data: entry.line };
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
