//! The API over a real unix socket.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, http::Request};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::server::{Limits, Socket, serve};
use crate::{
    config::{Config, Machine},
    engine::{
        self, Engine,
        events::{Event, Kind},
    },
    home::Home,
};

/// An engine with nothing in it, on a machine that cannot boot.
pub(crate) async fn engine() -> (TempDir, Arc<Engine>) {
    let dir = tempfile::tempdir().unwrap();
    let mut home = Home::new(dir.path()).unwrap();
    home.furnish().unwrap();
    let images = Arc::new(images::ImageStore::open(images::Options::new(home.images())).unwrap());
    let engine = Engine::start(
        home,
        Config::default(),
        Machine::nowhere(),
        images,
        tokio::time::Instant::now() + engine::START,
    )
    .await
    .unwrap();
    (dir, engine)
}

pub(super) struct Daemon {
    dir: TempDir,
    pub(super) engine: Arc<Engine>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Daemon {
    pub(super) async fn start(limits: Limits) -> Self {
        Self::serving(limits, super::router).await
    }

    pub(super) async fn serving(limits: Limits, router: impl FnOnce(Arc<Engine>) -> axum::Router) -> Self {
        let (dir, engine) = engine().await;
        let socket = Socket::bind(&dir.path().join("s")).unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(socket, router(engine.clone()), limits, stop.clone()));
        Self { dir, engine, stop, task }
    }

    pub(super) async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.dir.path().join("s")).await.unwrap()
    }

    async fn send(&self, mut request: Request<Full<Bytes>>) -> Response<Incoming> {
        request.headers_mut().insert("host", "arca".parse().unwrap());
        let (mut client, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(self.connect().await)).await.unwrap();
        tokio::spawn(connection);
        client.send_request(request).await.unwrap()
    }

    pub(super) async fn call(&self, method: &str, path: &str) -> (StatusCode, HeaderMap, String) {
        let request =
            Request::builder().method(method).uri(path).header("host", "arca").body(Full::default()).unwrap();
        read(self.send(request).await).await
    }

    async fn json(&self, path: &str) -> Value {
        let (status, _, text) = self.call("GET", path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }
}

async fn read(response: Response<Incoming>) -> (StatusCode, HeaderMap, String) {
    let (parts, body) = response.into_parts();
    let text = body.collect().await.unwrap().to_bytes();
    (parts.status, parts.headers, String::from_utf8(text.to_vec()).unwrap())
}

#[tokio::test]
async fn ping_has_dockerds_headers() {
    let daemon = Daemon::start(Limits::default()).await;
    for method in ["GET", "HEAD"] {
        let (status, headers, body) = daemon.call(method, "/_ping").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body, if method == "GET" { "OK" } else { "" });
        for (name, value) in [
            ("api-version", "1.51"),
            ("builder-version", "1"),
            ("docker-experimental", "false"),
            ("ostype", "linux"),
            ("swarm", "inactive"),
            ("cache-control", "no-cache, no-store, must-revalidate"),
            ("pragma", "no-cache"),
            ("content-type", "text/plain; charset=utf-8"),
        ] {
            assert_eq!(headers.get(name).map(|v| v.to_str().unwrap()), Some(value), "{name}");
        }
        assert!(headers["server"].to_str().unwrap().starts_with("Arca/"));
    }
}

#[tokio::test]
async fn versions_are_negotiated() {
    let daemon = Daemon::start(Limits::default()).await;
    let (status, headers, body) = daemon.call("GET", "/v1.99/info").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(body, "client version 1.99 is too new. Maximum supported API version is 1.51\n");
    let (status, _, body) = daemon.call("GET", "/v1.23/info").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.starts_with("client version 1.23 is too old. Minimum supported API version is 1.24, "));
    assert_eq!(daemon.json("/v1.24/version").await["ApiVersion"], "1.51");
    assert_eq!(daemon.json("/version").await["MinAPIVersion"], "1.24");
}

#[tokio::test]
async fn unknown_routes_and_methods_are_404() {
    let daemon = Daemon::start(Limits::default()).await;
    for (method, path) in
        [("GET", "/nosuch"), ("PUT", "/info"), ("HEAD", "/info"), ("GET", "/images/x"), ("GET", "/v1.51")]
    {
        let (status, _, body) = daemon.call(method, path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{method} {path}");
        if method != "HEAD" {
            assert_eq!(body, "{\"message\":\"page not found\"}\n", "{method} {path}");
        }
    }
}

/// `docker inspect x` walks all kinds of objects and wants 404 from each.
#[tokio::test]
async fn an_unknown_name_is_404_everywhere() {
    let daemon = Daemon::start(Limits::default()).await;
    for (path, message) in [
        ("/images/a/b:c/json", "No such image: a/b:c"),
        ("/networks/x", "network x not found"),
        ("/volumes/x", "get x: no such volume"),
        ("/plugins/a/b/json", "plugin \"a/b\" not found"),
    ] {
        let (status, _, body) = daemon.call("GET", path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), json!({"message": message}));
    }
}

/// Every key of a real dockerd's answer, except those of what Arca has no counterpart for.
#[tokio::test]
async fn info_has_dockerds_keys() {
    let daemon = Daemon::start(Limits::default()).await;
    let info = daemon.json("/info").await;
    for key in "ID Containers ContainersRunning ContainersPaused ContainersStopped Images Driver DriverStatus Plugins \
                MemoryLimit SwapLimit KernelMemoryTCP CpuCfsPeriod CpuCfsQuota CPUShares CPUSet PidsLimit IPv4Forwarding \
                Debug NFd OomKillDisable NGoroutines SystemTime LoggingDriver CgroupDriver CgroupVersion NEventsListener \
                KernelVersion OperatingSystem OSVersion OSType Architecture IndexServerAddress RegistryConfig NCPU \
                MemTotal GenericResources DockerRootDir HttpProxy HttpsProxy NoProxy Name Labels ExperimentalBuild \
                ServerVersion Runtimes DefaultRuntime Swarm LiveRestoreEnabled Isolation InitBinary ContainerdCommit \
                RuncCommit InitCommit SecurityOptions FirewallBackend CDISpecDirs Warnings"
        .split_whitespace()
    {
        assert!(info.get(key).is_some(), "{key}");
    }
    assert!(info["Warnings"][0].as_str().unwrap().contains("--network none"));
    assert_eq!(daemon.json("/networks").await[0]["Name"], "none");
    assert_eq!(daemon.json("/volumes").await, json!({"Volumes": [], "Warnings": null}));
    assert_eq!(daemon.json("/system/df").await["BuildCache"], json!([]));
}

#[tokio::test]
async fn events_are_flushed_at_once() {
    let daemon = Daemon::start(Limits::default()).await;
    let request =
        Request::get("/events?filters=%7B%22type%22%3A%5B%22image%22%5D%7D").body(Full::default()).unwrap();
    // The header comes although nothing has happened.
    let mut response = daemon.send(request).await;
    assert_eq!(response.status(), StatusCode::OK);
    daemon.engine.events.publish(Event::new(Kind::Network, "create", "n"));
    daemon.engine.events.publish(Event::new(Kind::Image, "pull", "busybox:latest"));
    let frame = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    let event: Value = serde_json::from_slice(&frame).unwrap();
    assert_eq!((&event["Action"], &event["id"]), (&json!("pull"), &json!("busybox:latest")));
    assert!(frame.ends_with(b"\n"));
    for bad in ["/events?since=2&until=1", "/events?filters=%7B%22x%22", "/events?since=1&x=%zz"] {
        assert_eq!(daemon.call("GET", bad).await.0, StatusCode::BAD_REQUEST, "{bad}");
    }
}

#[tokio::test]
async fn slow_headers_are_cut() {
    let limits = Limits { headers: Duration::from_millis(50), ..Limits::default() };
    let daemon = Daemon::start(limits).await;
    let mut stream = daemon.connect().await;
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: a\r\n").await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
}

#[tokio::test]
async fn stop_ends_streams_and_takes_the_socket_away() {
    let limits = Limits { drain: Duration::from_millis(50), ..Limits::default() };
    let daemon = Daemon::start(limits).await;
    let response = daemon.send(Request::get("/events").body(Full::default()).unwrap()).await;
    daemon.stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), daemon.task).await.unwrap().unwrap();
    assert!(!daemon.dir.path().join("s").exists());
    drop(response);
}

#[tokio::test]
async fn sockets_are_replaced_only_when_dead() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    std::fs::write(&path, "precious").unwrap();
    assert!(Socket::bind(&path).unwrap_err().message.contains("is not a socket"));
    std::fs::remove_file(&path).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let socket = Socket::bind(&path).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o777,
        0o660
    );
    assert!(Socket::bind(&path).unwrap_err().message.contains("another daemon answers"));
    drop(socket);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused() {
    let daemon = Daemon::start(Limits { header_bytes: 16 << 10, ..Limits::default() }).await;
    let path = format!("/{}", "x".repeat(32 << 10));
    let (status, ..) = daemon.call("GET", &path).await;
    assert!(
        matches!(status, StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        "{status}"
    );
}

#[tokio::test]
async fn refusals_of_what_there_is_not() {
    let (_dir, engine) = engine().await;
    let router = super::router(engine);
    for (method, path, status) in [
        ("GET", "/swarm", 503),
        ("POST", "/swarm/leave", 503),
        ("GET", "/services/x/logs", 500),
        ("PUT", "/volumes/x", 503),
        ("POST", "/build", 501),
        ("POST", "/networks/create", 501),
        ("DELETE", "/networks/none", 403),
        ("DELETE", "/volumes/x?force=1", 204),
        ("POST", "/images/create?fromSrc=-", 501),
        ("POST", "/images/create?fromImage=UPPER", 400),
        ("GET", "/images/json?filters=%7B%22bogus%22%3A%5B%22x%22%5D%7D", 400),
    ] {
        let request = Request::builder().method(method).uri(path).header("host", "d");
        let request = request.body(Body::empty()).unwrap();
        assert_eq!(super::answer(router.clone(), request).await.status(), status, "{method} {path}");
    }
}
