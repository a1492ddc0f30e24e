//! Bytes to a socket and what comes back; and what a daemon holds.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tests::daemon::Daemon;

/// Longest wait for an answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer: status (0: none came) and text.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: String,
}

/// A connection with a deadline for each read and write.
pub(super) fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What follows an answer's first bytes comes soon; a connection that stays open is not waited for.
const REST: Duration = Duration::from_secs(1);

/// Sends `bytes` and reads what comes. Whoever is refused early may not get rid of all it wanted to send.
pub(super) fn exchange(socket: &Path, bytes: &[u8], patience: Duration) -> Answer {
    let mut stream = connect(socket);
    stream.set_read_timeout(Some(patience)).unwrap();
    let _ = stream.write_all(bytes);
    let mut first = [0];
    if !matches!(stream.read(&mut first), Ok(1)) {
        return answer(&[]);
    }
    stream.set_read_timeout(Some(REST)).unwrap();
    let mut bytes = first.to_vec();
    let mut part = [0; 64 << 10];
    while !whole(&bytes) {
        match stream.read(&mut part) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&part[..n]),
            _ => break,
        }
    }
    answer(&bytes)
}

/// Whether an answer that says its length is all here.
fn whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok();
    !head.contains(" 100 ") && head.lines().find_map(length).is_some_and(|length: usize| body.len() >= length)
}

/// Reads to the end, or to the deadline.
pub(super) fn read(stream: &mut UnixStream) -> Answer {
    answer(&drain(stream))
}

fn drain(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut part = [0; 64 << 10];
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&part[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    bytes
}

fn answer(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes).into_owned();
    // An interim answer says nothing.
    let text = text.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&text).to_owned();
    let status = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok()).unwrap_or(0);
    Answer { status, text }
}

/// A request whose connection is closed after the answer.
pub(super) fn request(socket: &Path, line: &str, headers: &str, body: &[u8]) -> Answer {
    let head = format!("{line} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{headers}\r\n");
    exchange(socket, &[head.as_bytes(), body].concat(), PATIENCE)
}

/// Time until `GET path` is answered with 200.
#[track_caller]
pub(super) fn time_of(socket: &Path, path: &str) -> Duration {
    let start = Instant::now();
    let answer = request(socket, &format!("GET {path}"), "", b"");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    start.elapsed()
}

/// The process of a daemon.
#[derive(Debug)]
pub(super) struct Process(PathBuf);

impl Process {
    pub(super) fn of(daemon: &Daemon) -> Self {
        let lock = fs::read_to_string(daemon.home().join("daemon.lock")).unwrap();
        let digits: String =
            lock.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        Self(Path::new("/proc").join(digits))
    }

    pub(super) fn pid(&self) -> &str {
        self.0.file_name().unwrap().to_str().unwrap()
    }

    /// Open file descriptors.
    pub(super) fn files(&self) -> usize {
        fs::read_dir(self.0.join("fd")).unwrap().count()
    }

    /// Resident memory in KiB.
    pub(super) fn memory(&self) -> u64 {
        let status = fs::read_to_string(self.0.join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

/// What the daemon's log says of panics.
pub(super) fn panics(daemon: &Daemon) -> Vec<String> {
    let log = fs::read_to_string(daemon.home().join("daemon.log")).unwrap_or_default();
    log.lines().filter(|line| line.contains("panicked")).map(str::to_owned).collect()
}
