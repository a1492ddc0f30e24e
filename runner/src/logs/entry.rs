//! One entry and its JSON form.

use std::{borrow::Cow, io};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Where an entry came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output; everything of a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One entry: a line, or a part of one that was longer than 16 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// RFC 3339 with nanoseconds, as written.
    pub time: String,
    /// Its origin.
    pub stream: LogStream,
    /// The bytes, with the newline when there was one.
    pub line: Bytes,
}

/// The keys in docker's order.
#[derive(Serialize, Deserialize)]
struct Json<'a> {
    #[serde(borrow, default)]
    log: Cow<'a, str>,
    stream: LogStream,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

/// Appends the JSON line of an entry. What is no UTF-8 becomes U+FFFD, as docker has it.
pub(super) fn encode(out: &mut Vec<u8>, stream: LogStream, time: &str, line: &[u8]) {
    let json = Json { log: String::from_utf8_lossy(line), stream, time: time.into() };
    let start = out.len();
    if let Err(error) = serde_json::to_writer(&mut *out, &json) {
        // A vector always has room and strings always encode.
        tracing::debug!(%error, "log entry dropped");
        out.truncate(start);
        return;
    }
    out.push(b'\n');
}

/// The entry of a JSON line.
pub(super) fn decode(line: &[u8]) -> io::Result<Entry> {
    let json: Json<'_> = serde_json::from_slice(line)?;
    Ok(Entry {
        time: json.time.into_owned(),
        stream: json.stream,
        line: Bytes::from(json.log.into_owned().into_bytes()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_dockers_form() {
        let mut out = Vec::new();
        encode(&mut out, LogStream::Stderr, "2026-01-01T00:00:00.5Z", b"a \"b\"\xff\n");
        assert_eq!(
            String::from_utf8(out.clone()).unwrap(),
            "{\"log\":\"a \\\"b\\\"\u{fffd}\\n\",\"stream\":\"stderr\",\"time\":\"2026-01-01T00:00:00.5Z\"}\n"
        );
        let entry = decode(&out).unwrap();
        assert_eq!((entry.stream, &entry.line[..]), (LogStream::Stderr, "a \"b\"\u{fffd}\n".as_bytes()));
        assert!(decode(b"{\"log\":1}").is_err());
    }
}
