//! The pump against a fake guest.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use proto::sandbox::sandbox_client::SandboxClient;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    Hub, Input, Pump, Wanted,
    fake::{Script, guest},
};
use crate::logs::{self, LogWriter, Query};

const ALL: Wanted = Wanted { stdin: true, stdout: true, stderr: true, stdin_once: true };
const PATIENCE: Duration = Duration::from_secs(60);

/// Lines that differ, so that a lost, doubled or swapped piece shows.
fn text(bytes: usize) -> Bytes {
    let mut text = String::with_capacity(bytes + 100);
    let mut n = 0_u64;
    while text.len() < bytes {
        text.push_str(&format!("line {n:>60}\n"));
        n += 1;
    }
    text.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_megabytes_through_lost_streams_into_log_and_client() {
    let dir = tempfile::tempdir().unwrap();
    let output = text(50 << 20);
    let script = Arc::new(Script { cut_after: 7 << 20, ..Script::new(output.clone()) });
    let path = dir.path().join("c.log");
    let log = LogWriter::open(&path, 0, 1).unwrap();
    let hub = Arc::new(Hub::new());
    let client = hub.subscribe(true, true);
    let (_stdin, source) = mpsc::channel(1);
    let mut pump =
        Pump::new(guest(dir.path(), Arc::clone(&script)), "c", ALL, Some(log), Arc::clone(&hub), source);
    pump.open().await.unwrap();
    let reading = tokio::spawn(client.fold(Vec::new(), async |mut all, item| {
        all.extend_from_slice(&item.unwrap().data);
        all
    }));
    timeout(PATIENCE, pump.run()).await.unwrap().unwrap();
    hub.end(Ok(()));
    let read = reading.await.unwrap();
    assert!(read == output, "the client read {} of {} bytes, or others", read.len(), output.len());

    let mut logged = Vec::new();
    let mut entries = logs::read(path, Query::default(), watch::channel(true).1);
    while let Some(entry) = entries.next().await {
        logged.extend_from_slice(&entry.unwrap().line);
    }
    assert!(logged == output, "the log has {} of {} bytes, or others", logged.len(), output.len());
    let seen = script.seen.lock().unwrap();
    assert!(seen.opens >= 7, "{} streams", seen.opens);
    assert!(seen.ahead <= 256 << 10, "{} bytes ahead", seen.ahead);
}

#[tokio::test]
async fn input_arrives_once_and_in_order_and_ends_with_its_first_client() {
    let dir = tempfile::tempdir().unwrap();
    let script = Arc::new(Script { cut_input_after: 1 << 20, until_eof: true, ..Script::new(text(100)) });
    let hub = Arc::new(Hub::new());
    let (stdin, source) = mpsc::channel(1);
    let mut pump = Pump::new(guest(dir.path(), Arc::clone(&script)), "c", ALL, None, hub, source);
    pump.open().await.unwrap();
    let pump = tokio::spawn(pump.run());
    let input = text(3 << 20);
    for piece in input.chunks(100_000) {
        stdin.send(Input::Data(Bytes::copy_from_slice(piece))).await.unwrap();
    }
    stdin.send(Input::Left).await.unwrap();
    timeout(PATIENCE, pump).await.unwrap().unwrap().unwrap();
    let seen = script.seen.lock().unwrap();
    assert!(seen.stdin == input, "the process read {} of {} bytes, or others", seen.stdin.len(), input.len());
    assert!(seen.stdin_eof);
    assert_eq!(seen.opens, 2);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_the_process_until_it_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let script = Arc::new(Script::new(text(8 << 20)));
    let hub = Arc::new(Hub::new());
    let client = hub.subscribe(true, true);
    let (_stdin, source) = mpsc::channel(1);
    let mut pump = Pump::new(guest(dir.path(), Arc::clone(&script)), "c", ALL, None, hub, source);
    pump.open().await.unwrap();
    let mut pump = tokio::spawn(pump.run());
    assert!(timeout(Duration::from_millis(500), &mut pump).await.is_err(), "it must wait");
    // The queue of the client and what the guest may be ahead: no more left the process.
    assert!(script.seen.lock().unwrap().acked <= (1 << 20) + (256 << 10));
    drop(client);
    timeout(PATIENCE, pump).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn without_stdin_once_input_stays_open() {
    let dir = tempfile::tempdir().unwrap();
    let script = Arc::new(Script { until_eof: true, ..Script::new(text(100)) });
    let wanted = Wanted { stdin_once: false, ..ALL };
    let (stdin, source) = mpsc::channel(1);
    let client = guest(dir.path(), Arc::clone(&script));
    let mut pump = Pump::new(client, "c", wanted, None, Arc::new(Hub::new()), source);
    pump.open().await.unwrap();
    let mut pump = tokio::spawn(pump.run());
    stdin.send(Input::Left).await.unwrap();
    stdin.send(Input::Data(Bytes::from_static(b"more"))).await.unwrap();
    assert!(timeout(Duration::from_millis(300), &mut pump).await.is_err());
    assert_eq!(script.seen.lock().unwrap().stdin, b"more");
    pump.abort();
}

/// Found by fuzzing: a guest may say any offset.
#[tokio::test]
async fn output_at_the_last_offset_ends_the_stream_and_nothing_else() {
    use proto::sandbox::{OutputChunk, StdioResponse, Stream, stdio_response::Kind};
    let (_stdin, source) = mpsc::channel(1);
    let nobody = SandboxClient::new(proto::dial::guest_channel("/nowhere".into(), 1));
    let mut pump = Pump::new(nobody, "c", ALL, None, Arc::new(Hub::new()), source);
    let chunk = |offset, data: &'static [u8]| {
        let output = OutputChunk { stream: Stream::Stdout.into(), offset, data: data.into(), eof: false };
        StdioResponse { kind: Some(Kind::Output(output)) }
    };
    // Refused for the gap, taken with it, refused: three bytes do not fit behind this offset.
    let messages = vec![chunk(u64::MAX - 2, b"ab"), chunk(u64::MAX - 2, b"ab"), chunk(u64::MAX - 1, b"abc")];
    assert_eq!(pump.feed(messages).await, 1);
}
