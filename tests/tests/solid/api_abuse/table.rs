//! Some six hundred malformed requests, each with the status of the real engine.

use std::{path::PathBuf, time::Duration};

use super::raw::{self, Answer};
use crate::support::shared;
use tests::docker::Docker;

const TABLE: &str = include_str!("requests.tsv");
/// Some requests have no answer; those that do are answered long before.
const SILENCE: Duration = Duration::from_secs(3);

struct Row {
    line: usize,
    reference: u16,
    /// Arca's status, where it is another; with the reason.
    differs: Option<u16>,
    sent: Vec<u8>,
    message: String,
}

/// `\r`, `\n`, `\t`, `\\` and `\xNN`.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (byte, length) = match (c, rest.get(1..2)) {
            ('\\', Some("r")) => (b'\r', 2),
            ('\\', Some("n")) => (b'\n', 2),
            ('\\', Some("t")) => (b'\t', 2),
            ('\\', Some("x")) => (u8::from_str_radix(&rest[2..4], 16).unwrap(), 4),
            ('\\', _) => (b'\\', 2),
            (c, _) => (u8::try_from(c).unwrap(), 1),
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    bytes
}

fn row((at, text): (usize, &str)) -> Row {
    let columns: Vec<&str> = text.split('\t').collect();
    let [reference, differs, request, body, message] = columns[..] else {
        panic!("requests.tsv:{}: {} columns", at + 1, columns.len())
    };
    let sent = if body == "raw" {
        unescape(request)
    } else {
        let mut sent = unescape(request);
        sent.extend_from_slice(b" HTTP/1.1\r\nHost: d\r\nConnection: close\r\n");
        if let Some((media, body)) = body.split_once(' ') {
            let media = match media {
                "json" => "application/json",
                "json;charset" => "application/json; charset=utf-8",
                "tar" => "application/x-tar",
                other => other,
            };
            if media != "none" {
                sent.extend_from_slice(format!("Content-Type: {media}\r\n").as_bytes());
            }
            let body = unescape(body);
            sent.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            sent.extend_from_slice(&body);
        } else {
            sent.extend_from_slice(b"\r\n");
        }
        sent
    };
    Row {
        line: at + 1,
        reference: reference.parse().unwrap(),
        differs: differs.split_once(' ').map(|(status, _)| status.parse().unwrap()),
        sent,
        message: String::from_utf8(unescape(message)).unwrap(),
    }
}

/// The message of an error, be it JSON or plain text.
fn message(answer: &Answer) -> String {
    let body = answer.text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let json =
        body.find('{').and_then(|at| serde_json::Deserializer::from_str(&body[at..]).into_iter().next());
    let json = json.and_then(|value: Result<serde_json::Value, _>| value.ok());
    let text = json.as_ref().and_then(|value| value["message"].as_str());
    text.unwrap_or(body).trim().to_owned()
}

/// SPEC A4
#[test]
fn nothing_is_smuggled_behind_an_ambiguous_request() {
    let socket = PathBuf::from(shared().docker().socket());
    let post = "POST /v1.51/containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n";
    let get = "GET /v1.51/info HTTP/1.1\r\n";
    for (request, status) in [
        (format!("{post}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}"), 400),
        (format!("{post}Content-Length: 2, 3\r\n\r\n{{}}"), 400),
        (format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 501),
        (format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 501),
        (format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("{get}Host: a\r\nHost: b\r\n\r\n"), 400),
        (format!("{get}\r\n"), 400),
        (format!("{get}Host: a/b\r\n\r\n"), 400),
    ] {
        let mut stream = raw::connect(&socket);
        let smuggled = format!("{request}GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n");
        std::io::Write::write_all(&mut stream, smuggled.as_bytes()).unwrap();
        let answer = raw::read(&mut stream);
        assert_eq!(answer.status, status, "{request:?}: {}", answer.text);
        assert_eq!(answer.text.matches("HTTP/1.").count(), 1, "{request:?}: {}", answer.text);
    }
    // Both at once are chunked to everybody (RFC 9112 6.3), and nothing more on that connection.
    let both =
        format!("{post}Content-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n");
    let mut stream = raw::connect(&socket);
    std::io::Write::write_all(
        &mut stream,
        format!("{both}GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").as_bytes(),
    )
    .unwrap();
    let answer = raw::read(&mut stream);
    assert!(answer.text.contains("config cannot be empty"), "{}", answer.text);
}

/// SPEC A1, A2, A4
#[test]
fn malformed_requests_are_answered_as_dockerd_does() {
    let other = std::env::var("ARCA_E2E_HOST").ok();
    let docker = match &other {
        Some(host) => Docker::new(host.clone(), &PathBuf::from("/nonexistent")),
        None => shared().docker().clone(),
    };
    let clean = || drop(docker.run(&["rm", "-f", "abuse", "abuse-live"]));
    clean();
    docker.run(&["create", "--name", "abuse", "--network", "none", "busybox", "true"]).ok();
    let live = ["run", "-d", "--name", "abuse-live", "--network", "none", "busybox", "sleep", "100000"];
    docker.run(&live).ok();
    let rows: Vec<Row> =
        TABLE.lines().enumerate().filter(|(_, line)| !line.starts_with('#')).map(row).collect();
    assert!(rows.len() > 500, "{} rows", rows.len());
    let socket = std::path::PathBuf::from(docker.socket());
    let mut wrong = Vec::new();
    for row in rows {
        let wanted = if other.is_some() { row.reference } else { row.differs.unwrap_or(row.reference) };
        let patience = if wanted == 0 { SILENCE } else { Duration::from_secs(30) };
        let answer = raw::exchange(&socket, &row.sent, patience);
        let said = message(&answer);
        if answer.status != wanted
            || (!row.message.is_empty() && row.differs.is_none() && said != row.message.trim())
        {
            let sent = String::from_utf8_lossy(&row.sent[..row.sent.len().min(150)]).into_owned();
            wrong.push(format!(
                "requests.tsv:{}: {} {said:?} instead of {wanted} {:?}: {sent:?}",
                row.line, answer.status, row.message
            ));
        }
    }
    let alive = docker.run(&["exec", "abuse-live", "echo", "alive"]);
    clean();
    assert!(wrong.is_empty(), "{} answers differ:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(alive.ok(), "alive");
    if other.is_none() {
        assert_eq!(raw::panics(shared()), [""; 0]);
    }
}
