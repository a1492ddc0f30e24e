//! `GET /containers/{id}/logs`

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::{Path, State},
    http::{HeaderValue, header},
    response::Response,
};
use bytes::{BufMut, Bytes, BytesMut};
use runner::logs::{Entry, LogStream};
use tokio_stream::StreamExt;

use crate::{
    api::{Version, query::Query},
    engine::{Engine, clock},
    error::{Error, Result},
};

pub(super) async fn logs(
    State(engine): State<Arc<Engine>>,
    Extension(version): Extension<Version>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response> {
    let wanted = parse(&query)?;
    let (timestamps, details) = (query.bool("timestamps"), query.bool("details"));
    let container = engine.find(&id)?;
    let tty = container.record().config.tty;
    let entries = engine.logs(&container, wanted).await?;
    let details = if details { Some(attributes(&container.record())) } else { None };
    let body =
        entries.map(move |entry| entry.map(|entry| render(&entry, tty, timestamps, details.as_deref())));
    let media = if tty || !version.at_least(42) {
        "application/vnd.docker.raw-stream"
    } else {
        "application/vnd.docker.multiplexed-stream"
    };
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    Ok(response)
}

/// The query of the log reader.
pub(crate) fn parse(query: &Query) -> Result<runner::logs::Query> {
    let (stdout, stderr) = (query.bool("stdout"), query.bool("stderr"));
    if !stdout && !stderr {
        return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
    }
    // Zero is the CLI's word for: from the beginning, without end.
    let time = |name: &str| query.time(name).map(|time| time.filter(|t| *t != 0).map(clock::split));
    let tail = match query.get("tail") {
        None | Some("all") => None,
        // Whatever is no number is everything, as in moby.
        Some(text) => text.parse().ok(),
    };
    Ok(runner::logs::Query {
        since: time("since")?,
        until: time("until")?,
        tail,
        follow: query.bool("follow"),
        stdout,
        stderr,
    })
}

/// `labels` and `env` of the log driver, which `--details` shows.
fn attributes(record: &crate::engine::record::Record) -> String {
    let options = &record.host.log_config.config;
    let names =
        |key: &str| options.get(key).map(|list| list.split(',').collect::<Vec<_>>()).unwrap_or_default();
    let mut pairs: Vec<String> = names("labels")
        .iter()
        .filter_map(|name| Some(format!("{name}={}", record.config.label(name)?)))
        .collect();
    for name in names("env") {
        let prefix = format!("{name}=");
        pairs.extend(record.config.env.iter().flatten().filter(|entry| entry.starts_with(&prefix)).cloned());
    }
    pairs.sort();
    pairs.join(",")
}

/// One entry as the client sees it.
pub(super) fn render(entry: &Entry, tty: bool, timestamps: bool, details: Option<&str>) -> Bytes {
    let mut text = BytesMut::with_capacity(entry.line.len() + 48);
    if !tty {
        text.put_slice(&[if entry.stream == LogStream::Stderr { 2 } else { 1 }, 0, 0, 0, 0, 0, 0, 0]);
    }
    if timestamps {
        text.put_slice(padded(&entry.time).as_bytes());
        text.put_u8(b' ');
    }
    if let Some(details) = details {
        text.put_slice(details.as_bytes());
        text.put_u8(b' ');
    }
    text.put_slice(&entry.line);
    if !tty {
        let length = u32::try_from(text.len() - 8).unwrap_or(u32::MAX);
        text[4..8].copy_from_slice(&length.to_be_bytes());
    }
    text.freeze()
}

/// `--timestamps` has nine digits, always.
fn padded(time: &str) -> String {
    let bare = time.trim_end_matches('Z');
    let (seconds, fraction) = bare.split_once('.').unwrap_or((bare, ""));
    format!("{seconds}.{fraction:0<9}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_framed_and_stamped() {
        let entry = Entry {
            time: "2026-01-02T03:04:05.5Z".into(),
            stream: LogStream::Stderr,
            line: Bytes::from_static(b"hi\n"),
        };
        assert_eq!(&render(&entry, false, false, None)[..], b"\x02\0\0\0\0\0\0\x03hi\n");
        assert_eq!(&render(&entry, true, true, None)[..], b"2026-01-02T03:04:05.500000000Z hi\n");
    }

    #[test]
    fn queries() {
        let query = parse(&Query::parse("stdout=1&tail=5&since=1.5&until=0")).unwrap();
        assert_eq!(
            (query.tail, query.since, query.until, query.stderr),
            (Some(5), Some((1, 500_000_000)), None, false)
        );
        assert_eq!(
            parse(&Query::parse("tail=5")).unwrap_err().message,
            "Bad parameters: you must choose at least one stream"
        );
    }
}
