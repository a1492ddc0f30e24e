//! A client of the daemon's API that needs nothing but a socket: one GET, one answer.

use std::{
    io::{self, Read, Write},
    path::Path,
    time::Duration,
};

use crate::api::socket::connect;

/// Longest time one read may take, and to be accepted.
const READ: Duration = Duration::from_secs(5);
/// Most bytes of an answer.
const MOST: u64 = 16 << 20;

/// Body of the 200 answer to `GET path`.
///
/// # Errors
/// When nobody answers, or with something else than 200.
pub(super) fn get(socket: &Path, path: &str) -> io::Result<String> {
    let mut stream = connect(socket, READ)?;
    stream.set_read_timeout(Some(READ))?;
    stream.set_write_timeout(Some(READ))?;
    // HTTP/1.0: the answer ends with the connection and is never chunked.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: arca\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MOST).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    if head.split(' ').nth(1) == Some("200") {
        return Ok(body.to_owned());
    }
    Err(io::Error::other(format!("{path}: {}", head.lines().next().unwrap_or(""))))
}

/// Whether the daemon answers.
pub(super) fn ping(socket: &Path) -> bool {
    get(socket, "/_ping").is_ok_and(|body| body == "OK")
}

/// Process id of who serves a socket, where the operating system tells.
pub(super) fn server(socket: &Path) -> Option<i32> {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
        let stream = connect(socket, Duration::ZERO).ok()?;
        getsockopt(&stream, PeerCredentials).ok().map(|peer| peer.pid())
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = socket;
        None
    }
}
