//! Too much at once: bodies, headers, connections.

use std::{
    io::Write,
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::json;
use tests::{daemon::Daemon, wait::eventually};

use super::raw::{Process, connect, exchange, panics, read, request, time_of};

/// Time for `docker ps`, whatever the others do.
const ANSWER: Duration = Duration::from_secs(5);

/// A daemon of its own, without images: floods change what is measured.
fn daemon() -> Daemon {
    Daemon::with_config(&json!({})).unwrap()
}

fn socket(daemon: &Daemon) -> std::path::PathBuf {
    daemon.home().join("arca.sock")
}

const CREATE: &str = "POST /v1.51/containers/create";
const JSON: &str = "Content-Type: application/json\r\n";

/// A body that goes on until the daemon has had enough.
fn endless(socket: &Path) -> u16 {
    let mut stream = connect(socket);
    let head = format!("{CREATE} HTTP/1.1\r\nHost: d\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(b"2\r\n[0\r\n").unwrap();
    let chunk = [b"10000\r\n".as_slice(), &b",0".repeat(0x8000), b"\r\n"].concat();
    let mut sent = 0;
    while stream.write_all(&chunk).is_ok() {
        sent += chunk.len();
        assert!(sent < 200 << 20, "200 MB were taken");
    }
    read(&mut stream).status
}

/// SPEC A5, A6
#[test]
fn huge_requests_are_refused_and_cost_little() {
    let daemon = daemon();
    let (socket, process) = (socket(&daemon), Process::of(&daemon));
    time_of(&socket, "/info");
    let before = process.memory();
    // 100 MB of a label, announced.
    let label = [br#"{"Image":"x","Labels":{"a":""#.as_slice(), &vec![b'x'; 100 << 20], br#""}}"#].concat();
    let headers = format!("{JSON}Content-Length: {}\r\n", label.len());
    let answer = request(&socket, CREATE, &headers, &label);
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert!(answer.text.contains("request body too large: more than 4194304 bytes"), "{}", answer.text);
    for _ in 0..8 {
        assert_eq!(endless(&socket), 400);
    }
    // What is small as text and large in memory.
    let list = [br#"{"Image":"x","X":[0"#.as_slice(), &b",0".repeat(1 << 20), b"]}"].concat();
    let answer = request(&socket, CREATE, &format!("{JSON}Content-Length: {}\r\n", list.len()), &list);
    assert!(answer.status == 400 && answer.text.contains("more than 100000 values"), "{}", answer.text);
    let deep =
        [br#"{"Image":"x","X":"#.as_slice(), &b"[".repeat(10_000), &b"]".repeat(10_000), b"}"].concat();
    let answer = request(&socket, CREATE, &format!("{JSON}Content-Length: {}\r\n", deep.len()), &deep);
    assert!(answer.status == 400 && answer.text.contains("recursion limit"), "{}", answer.text);
    let filters = format!("/containers/json?filters={}", "%5B".repeat(10_000));
    assert_eq!(request(&socket, &format!("GET {filters}"), "", b"").status, 400);

    let lines = |n: usize| (0..n).map(|i| format!("X-{i}: y\r\n")).collect::<String>();
    for (headers, wanted) in [
        (lines(490), 200),
        (lines(1000), 431),
        (lines(10_000), 431),
        (format!("X: {}\r\n", "y".repeat(100_000)), 200),
        (format!("X: {}\r\n", "y".repeat(2_000_000)), 431),
    ] {
        let answer = request(&socket, "GET /_ping", &headers, b"");
        // A client that still sends may lose the answer with the connection.
        assert!(
            answer.status == wanted || (wanted == 431 && answer.status == 0),
            "{} {wanted}",
            answer.status
        );
    }
    let target = format!("GET /{}", "x".repeat(2_000_000));
    assert!([0, 414, 431].contains(&request(&socket, &target, "", b"").status));

    let grown = process.memory().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more than before");
    time_of(&socket, "/containers/json");
    assert_eq!(panics(&daemon), [""; 0]);
}

/// Connections that idle after a request, and that never finish one.
fn crowd(socket: &Path, idle: usize, half: usize) -> Vec<UnixStream> {
    let mut crowd = Vec::new();
    for _ in 0..idle {
        let mut stream = connect(socket);
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
        crowd.push(stream);
    }
    let halves: [&[u8]; 4] = [
        b"GET /_ping HT",
        b"GET /_ping HTTP/1.1\r\nHost: d\r\nX-Slow: ",
        b"POST /v1.51/containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{",
        b"",
    ];
    for i in 0..half {
        let mut stream = connect(socket);
        stream.write_all(halves[i % halves.len()]).unwrap();
        crowd.push(stream);
    }
    crowd
}

/// SPEC A9, A12, A13
#[test]
fn a_thousand_idle_and_half_sent_connections_do_not_deafen() {
    let daemon = daemon();
    let (socket, process) = (socket(&daemon), Process::of(&daemon));
    time_of(&socket, "/info");
    let (files, memory) = (process.files(), process.memory());
    let all = crowd(&socket, 500, 500);
    let took = time_of(&socket, "/v1.51/containers/json?all=1");
    assert!(took < ANSWER, "docker ps took {took:?}");
    let grown = process.memory().saturating_sub(memory);
    assert!(grown < 64 << 10, "{grown} KiB for a thousand connections");
    drop(all);
    eventually("file descriptors are given back", Duration::from_secs(20), || process.files() <= files + 2);
    for _ in 0..3000 {
        let mut stream = connect(&socket);
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
    }
    for _ in 0..500 {
        time_of(&socket, "/_ping");
    }
    eventually("file descriptors are given back", Duration::from_secs(20), || process.files() <= files + 2);
    assert_eq!(panics(&daemon), [""; 0]);
}

/// SPEC A14
#[test]
fn out_of_file_descriptors_is_no_end() {
    let daemon = daemon();
    let (socket, process) = (socket(&daemon), Process::of(&daemon));
    let limit = format!("--nofile={}", process.files() + 40);
    let limited = Command::new("prlimit").args(["--pid", process.pid(), &limit]).status().unwrap();
    assert!(limited.success());
    // Far more than fit: those that idle longest give way.
    let mut all = Vec::new();
    for _ in 0..200 {
        let mut stream = connect(&socket);
        let _ = stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n");
        all.push(stream);
    }
    let start = Instant::now();
    let mut took = Duration::MAX;
    while took == Duration::MAX && start.elapsed() < Duration::from_secs(60) {
        let answer = exchange(
            &socket,
            b"GET /containers/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n",
            ANSWER,
        );
        if answer.status == 200 {
            took = start.elapsed();
        }
    }
    assert!(took < Duration::from_secs(60), "no answer with the clients still there");
    drop(all);
    let took = time_of(&socket, "/v1.51/containers/json");
    assert!(took < ANSWER, "docker ps took {took:?}");
    assert_eq!(panics(&daemon), [""; 0]);
}
