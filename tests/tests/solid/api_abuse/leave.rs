//! Clients that do not read, and clients that leave.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use tests::wait::eventually;

use super::raw::{Process, connect, panics, read, request, time_of};
use crate::support::{fresh, name};

fn upgrade(socket: &Path, target: &str, body: &str) -> UnixStream {
    let mut stream = connect(socket);
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// Reads an answer's header.
#[track_caller]
fn head(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn exec(socket: &Path, container: &str, script: &str) -> String {
    let body = format!(
        r#"{{"AttachStdin":true,"AttachStdout":true,"AttachStderr":true,"Cmd":["sh","-c","{script}"]}}"#
    );
    let headers = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    let answer = request(socket, &format!("POST /containers/{container}/exec"), &headers, body.as_bytes());
    let (_, id) = answer.text.split_once(r#""Id":""#).unwrap_or_else(|| panic!("{}", answer.text));
    id[..64].to_owned()
}

/// SPEC A12, A13, A16, A17
#[test]
fn clients_that_do_not_read_or_leave_cost_nothing() {
    let daemon = fresh(&serde_json::json!({}));
    let docker = daemon.docker();
    let socket = std::path::PathBuf::from(docker.socket());
    let container = name("leave");
    // A terminal and a stdin, as `docker run -it`; it floods its log when told to.
    let script = "while read line; do yes 0123456789 | head -c 4000000; echo flooded; done";
    docker.run(&["run", "-di", "--name", &container, "busybox", "sh", "-c", script]).ok();
    let process = Process::of(&daemon);
    let terminal = exec(&socket, &container, "true");
    let mut stream = upgrade(&socket, &format!("/exec/{terminal}/start"), "{}");
    assert!(head(&mut stream).starts_with("HTTP/1.1 101"));
    read(&mut stream);
    drop(stream);
    let (files, memory) = (process.files(), process.memory());

    // Nobody of these reads.
    let mut deaf = Vec::new();
    for target in [
        format!("/containers/{container}/logs?follow=1&stdout=1&stderr=1"),
        format!("/containers/{container}/stats"),
        "/events".to_owned(),
        format!("/containers/{container}/archive?path=/bin"),
        "/containers/json?all=1".to_owned(),
    ] {
        for _ in 0..4 {
            let mut stream = connect(&socket);
            stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: d\r\n\r\n").as_bytes()).unwrap();
            deaf.push(stream);
        }
    }
    let mut input = upgrade(&socket, &format!("/containers/{container}/attach?stream=1&stdin=1"), "");
    assert!(head(&mut input).starts_with("HTTP/1.1 101"));
    input.write_all(b"go\n").unwrap();
    eventually("the flood is in the log in spite of those who do not read", Duration::from_secs(120), || {
        docker.run(&["logs", "--tail", "1", &container]).stdout.trim().ends_with("flooded")
    });
    for _ in 0..4 {
        // As with dockerd, what an attached client does not read the process cannot write: so after the flood.
        let target = format!("/containers/{container}/attach?stream=1&stdout=1&stderr=1&logs=1");
        deaf.push(upgrade(&socket, &target, ""));
        let id = exec(&socket, &container, "yes");
        deaf.push(upgrade(&socket, &format!("/exec/{id}/start"), "{}"));
    }
    // Time enough to pile up what would.
    std::thread::sleep(Duration::from_secs(3));
    let grown = process.memory().saturating_sub(memory);
    assert!(grown < 96 << 10, "{grown} KiB for {} clients that do not read", deaf.len());
    let took = time_of(&socket, "/containers/json");
    assert!(took < Duration::from_secs(5), "docker ps took {took:?}");
    drop(deaf);

    // And these leave, at every point.
    let id = exec(&socket, &container, "sleep 1000");
    drop(upgrade(&socket, &format!("/exec/{id}/start"), "{}"));
    drop(upgrade(&socket, &format!("/exec/{id}/start"), r#"{"Tty":"#));
    drop(upgrade(&socket, &format!("/containers/{container}/attach?stream=1&stdin=1&stdout=1"), ""));
    let put = format!(
        "PUT /containers/{container}/archive?path=/tmp HTTP/1.1\r\nHost: d\r\nContent-Length: 100000\r\n\r\n"
    );
    for part in [put.len() / 2, put.len()] {
        connect(&socket).write_all(&put.as_bytes()[..part]).unwrap();
    }
    let load = b"POST /images/load HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n";
    connect(&socket).write_all(load).unwrap();
    for target in
        ["wait", "stop?t=1000000", "logs?follow=1&stdout=1"].map(|t| format!("/containers/nosuch/{t}"))
    {
        connect(&socket).write_all(format!("POST {target} HTTP/1.1\r\nHost: d\r\n\r\n").as_bytes()).unwrap();
    }
    drop(input);

    // A body that is cut while its client still listens is no success.
    let mut cut = connect(&socket);
    cut.write_all(put.as_bytes()).unwrap();
    cut.write_all(&[0; 1024]).unwrap();
    cut.shutdown(std::net::Shutdown::Write).unwrap();
    let answer = read(&mut cut);
    assert!(answer.status == 400 || answer.status == 0, "{}", answer.text);
    // While one that has ended its half after a whole request gets its answer, late as it may be.
    let mut half = connect(&socket);
    half.write_all(
        format!("GET /containers/{container}/stats?stream=0 HTTP/1.1\r\nHost: d\r\n\r\n").as_bytes(),
    )
    .unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    let answer = read(&mut half);
    assert!(answer.status == 200 && answer.text.contains("cpu_stats"), "{}", answer.text);

    eventually("file descriptors are given back", Duration::from_secs(30), || process.files() <= files + 4);
    assert_eq!(docker.run(&["inspect", "-f", "{{.State.Status}}", &container]).ok(), "running");
    assert_eq!(docker.run(&["exec", &container, "echo", "alive"]).ok(), "alive");
    docker.run(&["rm", "-f", &container]).ok();
    assert_eq!(panics(&daemon), [""; 0]);
}
