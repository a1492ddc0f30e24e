//! Writer and reader together.

use std::{path::PathBuf, time::Duration};

use futures::StreamExt;
use tokio::{sync::watch, time::timeout};

use super::{LogStream, LogWriter, Query, read};
use crate::clock;

const PATIENCE: Duration = Duration::from_secs(20);

async fn all(path: PathBuf, query: Query) -> Vec<String> {
    let (_running, ended) = watch::channel(false);
    let lines =
        read(path, query, ended).map(|entry| String::from_utf8(entry.unwrap().line.to_vec()).unwrap());
    timeout(PATIENCE, lines.collect()).await.unwrap()
}

fn numbers(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| format!("{n}\n")).collect()
}

#[tokio::test]
async fn tail_and_streams_over_rotated_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.log");
    assert!(all(path.clone(), Query::default()).await.is_empty(), "no log yet");
    let mut log = LogWriter::open(&path, 1000, 100).unwrap();
    for n in 0..200 {
        let stream = if n % 2 == 0 { LogStream::Stdout } else { LogStream::Stderr };
        log.write(stream, format!("{n}\n").as_bytes());
    }
    assert!(dir.path().join("c.log.5").exists());
    assert_eq!(all(path.clone(), Query::default()).await, numbers(0, 200));
    for tail in [0, 1, 13, 14, 15, 60, 199, 200, 1000] {
        let query = Query { tail: Some(tail), ..Query::default() };
        assert_eq!(all(path.clone(), query).await, numbers(200 - tail.min(200), 200), "tail {tail}");
    }
    let query = Query { tail: Some(4), stderr: false, ..Query::default() };
    assert_eq!(all(path, query).await, ["196\n", "198\n"]);
}

#[tokio::test]
async fn since_and_until_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.log");
    let mut log = LogWriter::open(&path, 0, 1).unwrap();
    log.write(LogStream::Stdout, b"old\n");
    let between = clock::now();
    log.write(LogStream::Stdout, b"new\n");
    assert_eq!(all(path.clone(), Query { since: Some(between), ..Query::default() }).await, ["new\n"]);
    assert_eq!(all(path.clone(), Query { until: Some(between), ..Query::default() }).await, ["old\n"]);
    // A following read ends when its time is over, though the container runs.
    let soon = clock::now();
    let query = Query { until: Some((soon.0 + 1, soon.1)), follow: true, ..Query::default() };
    assert_eq!(all(path, query).await, ["old\n", "new\n"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follows_through_rotations_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.log");
    let (running, ended) = watch::channel(false);
    let query = Query { follow: true, ..Query::default() };
    let mut entries = read(path.clone(), query, ended);
    let mut log = LogWriter::open(&path, 5000, 200).unwrap();
    for n in 0..10 {
        log.write(LogStream::Stdout, format!("{n}\n").as_bytes());
        let entry = timeout(PATIENCE, entries.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(entry.line, format!("{n}\n"));
    }
    let writer = tokio::task::spawn_blocking(move || {
        for n in 10..5000 {
            log.write(LogStream::Stdout, format!("{n}\n").as_bytes());
        }
        log.write(LogStream::Stdout, b"last");
        log.finish(LogStream::Stdout);
        running.send_replace(true);
    });
    let mut seen = Vec::new();
    while let Some(entry) = timeout(PATIENCE, entries.next()).await.unwrap() {
        seen.push(String::from_utf8(entry.unwrap().line.to_vec()).unwrap());
    }
    writer.await.unwrap();
    assert_eq!(seen.pop().unwrap(), "last");
    assert!(seen == numbers(10, 5000), "{} entries, first {:?}", seen.len(), seen.first());
}

#[tokio::test]
async fn damage_is_skipped_and_a_half_written_entry_waits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.log");
    LogWriter::open(&path, 0, 1).unwrap().write(LogStream::Stdout, b"one\n");
    let mut content = std::fs::read(&path).unwrap();
    let entry = content.clone();
    content.extend_from_slice(b"garbage\n");
    content.extend(std::iter::repeat_n(b'x', 1 << 20));
    content.push(b'\n');
    content.extend_from_slice(&entry);
    content.extend_from_slice(&entry[..20]);
    std::fs::write(&path, &content).unwrap();
    assert_eq!(all(path.clone(), Query::default()).await, ["one\n", "one\n"]);
    let (_running, ended) = watch::channel(false);
    let mut entries = read(path.clone(), Query { follow: true, tail: Some(0), ..Query::default() }, ended);
    tokio::task::yield_now().await;
    content.extend_from_slice(&entry[20..]);
    std::fs::write(dir.path().join("other"), b"x").unwrap();
    use std::io::Write;
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(&entry[20..]).unwrap();
    assert_eq!(timeout(PATIENCE, entries.next()).await.unwrap().unwrap().unwrap().line, "one\n");
}
