//! Slow, silent and too many clients, against limits that a test can wait for.

use std::time::Duration;

use hyper::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::{sleep, timeout},
};

use super::{limits::Limits, tests::Daemon};

/// Far beyond every limit of these tests.
const LONG: Duration = Duration::from_secs(20);

/// Limits that are over at once; each test lengthens what it is not about.
fn limits() -> Limits {
    Limits { unread: Duration::from_millis(200), stall: Duration::from_millis(300), ..Limits::default() }
}

async fn sent(daemon: &Daemon, bytes: &str) -> UnixStream {
    let mut stream = daemon.connect().await;
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream
}

/// All that comes until the connection is closed.
async fn rest(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end as well.
    let _ = timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("the connection is closed");
    String::from_utf8_lossy(&bytes).into_owned()
}

const PING: &str = "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n";
const CREATE: &str = "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n";

async fn pinged(daemon: &Daemon) -> UnixStream {
    let mut stream = sent(daemon, PING).await;
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    stream
}

/// SPEC A5
#[tokio::test]
async fn slow_headers_and_idle_connections_are_closed() {
    let daemon = Daemon::start(Limits { headers: Duration::from_millis(100), ..limits() }).await;
    let mut never = daemon.connect().await;
    let mut half = sent(&daemon, "GET /_ping HTTP/1.1\r\nHost: d\r\nX: ").await;
    let mut idle = pinged(&daemon).await;
    for stream in [&mut never, &mut half, &mut idle] {
        assert!(!rest(stream).await.starts_with("HTTP/1.1 200"));
    }
}

/// SPEC A7
#[tokio::test]
async fn a_body_of_json_comes_in_time_or_not_at_all() {
    let limits = Limits { json_time: Duration::from_millis(200), stall: LONG, ..limits() };
    let daemon = Daemon::start(limits).await;
    // It never stops for long, and never ends.
    let mut stream = sent(&daemon, &format!("{CREATE}Transfer-Encoding: chunked\r\n\r\n")).await;
    let drip = async {
        loop {
            if stream.write_all(b"1\r\n \r\n").await.is_err() {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, drip).await.expect("the connection is closed");
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("the request body did not arrive within 200ms"), "{answer}");
}

/// SPEC A8
#[tokio::test]
async fn an_upload_that_stops_fails_and_one_that_goes_on_does_not() {
    let daemon = Daemon::start(Limits { stall: Duration::from_millis(600), ..limits() }).await;
    let load = "POST /images/load HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n200\r\n";
    let zeros = "\0".repeat(0x200);
    let mut stops = sent(&daemon, &format!("{load}{zeros}\r\n")).await;
    let answer = rest(&mut stops).await;
    assert!(answer.contains("the client has sent nothing for 600ms"), "{answer}");
    let mut slow = sent(&daemon, &format!("{load}{zeros}\r\n")).await;
    for _ in 0..6 {
        sleep(Duration::from_millis(200)).await;
        slow.write_all(format!("200\r\n{zeros}\r\n").as_bytes()).await.unwrap();
    }
    slow.write_all(b"0\r\n\r\n").await.unwrap();
    slow.shutdown().await.unwrap();
    let answer = rest(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 400") && !answer.contains("has sent nothing"), "{answer}");
}

/// SPEC A9
#[tokio::test]
async fn who_idles_longest_gives_way() {
    let daemon = Daemon::start(Limits { connections: 3, ..limits() }).await;
    let mut first = pinged(&daemon).await;
    // Not idle: it is being served.
    let mut events = sent(&daemon, "GET /events HTTP/1.1\r\nHost: d\r\n\r\n").await;
    let mut answer = [0; 15];
    events.read_exact(&mut answer).await.unwrap();
    let mut second = pinged(&daemon).await;
    assert_eq!(daemon.call("GET", "/containers/json").await.0, StatusCode::OK);
    rest(&mut first).await;
    assert_eq!(daemon.call("GET", "/containers/json").await.0, StatusCode::OK);
    for _ in 0..20 {
        drop(pinged(&daemon).await);
    }
    rest(&mut second).await;
    let mut more = [0; 1];
    let open = timeout(Duration::from_millis(300), async {
        // The rest of the header, then nothing.
        while events.read(&mut more).await.unwrap() > 0 {}
    });
    assert!(open.await.is_err(), "who is served keeps its place");
}

/// SPEC A11
#[tokio::test]
async fn without_an_idle_one_the_new_one_is_refused_until_somebody_does_not_read() {
    let daemon = Daemon::start(Limits { connections: 2, ..limits() }).await;
    let follow = "GET /events?since=1 HTTP/1.1\r\nHost: d\r\n\r\n";
    let (mut one, two) = (sent(&daemon, follow).await, sent(&daemon, follow).await);
    let mut answer = [0; 15];
    one.read_exact(&mut answer).await.unwrap();
    let mut refused = daemon.connect().await;
    let text = rest(&mut refused).await;
    assert!(text.starts_with("HTTP/1.1 503") && text.contains("too many clients: 2 connections"), "{text}");
    // `two` does not read what there is for it.
    let label = "x".repeat(60 << 10);
    for _ in 0..100 {
        use crate::engine::events::{Event, Kind};
        daemon.engine.events.publish(Event::new(Kind::Image, "pull", "x").with("label", label.clone()));
        let mut part = vec![0; 64 << 10];
        one.read_exact(&mut part[..60 << 10]).await.unwrap();
    }
    sleep(Duration::from_millis(400)).await;
    assert_eq!(daemon.call("GET", "/_ping").await.0, StatusCode::OK);
    drop(two);
}

/// An answer that is larger than what the kernel holds for a client.
#[tokio::test]
async fn an_answer_that_is_not_read_is_cut_and_a_slow_reader_gets_it() {
    const SIZE: usize = 16 << 20;
    let big = axum::routing::get(|| async { "x".repeat(SIZE) });
    let daemon = Daemon::serving(limits(), |_| axum::Router::new().route("/big", big)).await;
    let get = "GET /big HTTP/1.1\r\nHost: d\r\n\r\n";
    let (mut never, mut slow) = (sent(&daemon, get).await, sent(&daemon, get).await);
    let mut part = vec![0; 1 << 20];
    for _ in 0..SIZE >> 20 {
        slow.read_exact(&mut part).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    let unread = rest(&mut never).await;
    assert!(unread.len() < SIZE / 2, "all of it came: {}", unread.len());
}

/// SPEC A10
#[tokio::test]
async fn attached_clients_leave_room_for_others() {
    let daemon = Daemon::start(Limits { sessions: 0, ..limits() }).await;
    let attach =
        "POST /containers/x/attach HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    let mut stream = sent(&daemon, attach).await;
    stream.shutdown().await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("too many clients are attached"),
        "{answer}"
    );
    assert_eq!(daemon.call("GET", "/containers/json").await.0, StatusCode::OK);
}

/// SPEC A17
#[tokio::test]
async fn a_client_that_ended_its_half_gets_its_answer() {
    let daemon = Daemon::start(limits()).await;
    let mut stream = sent(&daemon, "GET /events?until=1 HTTP/1.1\r\nHost: d\r\n\r\n").await;
    stream.shutdown().await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
}
