//! Registries that stall, cut, lie and lead astray: each ends with a clear error in a bounded time, and leaves nothing.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;
#[path = "common/raw.rs"]
mod raw;

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use common::*;
use images::{Error, ImageStore, RegistryAuth};
use raw::{Asked, Raw, Step, answer};

/// A store whose deadlines are short, in the proportions of the real ones.
fn store(root: &Path) -> ImageStore {
    let mut options = options(root);
    options.timeouts.request = Duration::from_millis(700);
    options.timeouts.stall = Duration::from_millis(300);
    options.timeouts.window = Duration::from_millis(600);
    options.timeouts.attempts = 2;
    ImageStore::open(options).unwrap()
}

async fn pull(store: &ImageStore, host: &str, auth: Option<RegistryAuth>) -> Result<images::Pulled, Error> {
    let reference = format!("{host}/a").parse().unwrap();
    // Whatever a registry does, with these deadlines a pull ends long before.
    let pull = Box::pin(store.pull(&reference, None, auth, Arc::new(())));
    tokio::time::timeout(Duration::from_secs(15), pull).await.expect("the pull does not end")
}

fn image() -> TestImage {
    let tar = layer("big", &noise(300_000));
    TestImage::new(vec![(tar.clone(), tar)])
}

/// What a well-behaved registry without resuming answers.
fn honest(image: &TestImage, asked: &Asked) -> Vec<Step> {
    let path = asked.path.as_str();
    let is = |bytes: &[u8]| path.ends_with(&digest(bytes));
    if path == "/v2/" {
        answer("200 OK", "", b"{}")
    } else if path.ends_with("/manifests/latest") || is(&image.manifest) {
        answer("200 OK", &format!("Content-Type: {OCI_MANIFEST}\r\n"), &image.manifest)
    } else if is(&image.config) {
        answer("200 OK", "", &image.config)
    } else if is(&image.layers[0].1) {
        answer("200 OK", "", &image.layers[0].1)
    } else {
        answer("404 Not Found", "", b"{}")
    }
}

/// The steps of a pull, by the paths that are asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Ping,
    Manifest,
    Config,
    Layer,
}

const STAGES: [Stage; 4] = [Stage::Ping, Stage::Manifest, Stage::Config, Stage::Layer];

fn stage(image: &TestImage, asked: &Asked) -> Stage {
    if asked.path == "/v2/" {
        Stage::Ping
    } else if asked.path.contains("/manifests/") {
        Stage::Manifest
    } else if asked.path.ends_with(&digest(&image.config)) {
        Stage::Config
    } else {
        Stage::Layer
    }
}

/// Honest but at one stage.
async fn bad_at(
    at: Stage,
    bad: impl Fn(&TestImage, &Asked, Vec<Step>) -> Vec<Step> + Send + Sync + 'static,
) -> Raw {
    let image = image();
    Raw::start(move |asked| {
        let good = honest(&image, asked);
        if stage(&image, asked) == at { bad(&image, asked, good) } else { good }
    })
    .await
}

fn bytes(steps: &[Step]) -> Vec<u8> {
    match steps {
        [Step::Send(bytes)] => bytes.clone(),
        _ => panic!("one answer"),
    }
}

/// Neither images nor disks nor half-made files; blobs that are here have their digest.
async fn nothing_half_made(root: &Path, store: &ImageStore, what: &str) {
    assert!(store.list().unwrap().is_empty(), "{what}");
    assert_eq!(files(&root.join("disks")), 0, "{what}");
    // Writes in blocking threads end a moment later.
    let emptied = async {
        while files(&root.join("tmp")) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), emptied).await.expect(what);
    for entry in std::fs::read_dir(root.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("sha256:{}", path.file_name().unwrap().to_str().unwrap());
        assert_eq!(digest(&std::fs::read(&path).unwrap()), name, "{what}");
    }
}

async fn refused(raw: &Raw, what: &str) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let error = pull(&store, &raw.host, None).await.map(|_| ()).expect_err(what);
    nothing_half_made(dir.path(), &store, what).await;
    error
}

/// SPEC I9
#[tokio::test(flavor = "multi_thread")]
async fn stalls_end_wherever_they_are() {
    for at in STAGES {
        for part in ["at once", "in the headers", "in the body"] {
            let raw = bad_at(at, move |_, _, good| {
                let good = bytes(&good);
                let end = match part {
                    "at once" => 0,
                    "in the headers" => 20,
                    _ => good.len() - 1,
                };
                vec![Step::Send(good[..end].to_vec()), Step::Stall]
            })
            .await;
            if at == Stage::Ping && part == "in the body" {
                // Nobody reads it.
                continue;
            }
            let start = Instant::now();
            let error = refused(&raw, &format!("{at:?} {part}")).await.to_string();
            assert!(start.elapsed() < Duration::from_secs(8), "{at:?} {part}: {:?}", start.elapsed());
            let words = ["stalled", "no answer after", "no manifest after", "Client.Timeout"];
            assert!(
                words.iter().any(|w| error.contains(w)) && error.contains(&raw.host),
                "{at:?} {part}: {error}"
            );
        }
    }
    let raw = bad_at(Stage::Manifest, |_, _, _| {
        vec![Step::Send(b"HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\nerr".to_vec()), Step::Stall]
    })
    .await;
    assert!(refused(&raw, "an explanation that never comes").await.to_string().contains("500"));
}

/// SPEC I9
#[tokio::test(flavor = "multi_thread")]
async fn a_trickle_ends_too() {
    for at in [Stage::Manifest, Stage::Config, Stage::Layer] {
        let raw = bad_at(at, |_, _, good| {
            let good = bytes(&good);
            let body = good.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
            let every = Duration::from_millis(100);
            vec![Step::Send(good[..body].to_vec()), Step::Drip(good[body..].to_vec(), every)]
        })
        .await;
        let error = refused(&raw, &format!("{at:?}")).await.to_string();
        assert!(error.contains("too slow") || error.contains("no manifest after"), "{at:?}: {error}");
    }
    let raw =
        bad_at(Stage::Layer, |_, _, good| vec![Step::Drip(bytes(&good), Duration::from_millis(100))]).await;
    refused(&raw, "headers").await;
}

/// SPEC I1, I9
#[tokio::test(flavor = "multi_thread")]
async fn cut_at_every_point() {
    let image = image();
    let tar = image.layers[0].1.clone();
    // A layer goes on after a cut, with a server that resumes and with one that starts again.
    for resumes in [true, false] {
        for first in [1, 20, 60, 100, 200, 5000, 200_000, 299_999] {
            let (image, tar) = (
                TestImage {
                    layers: image.layers.clone(),
                    config: image.config.clone(),
                    manifest: image.manifest.clone(),
                },
                tar.clone(),
            );
            let cut = std::sync::atomic::AtomicBool::new(true);
            let raw = Raw::start(move |asked| {
                if stage(&image, asked) != Stage::Layer {
                    return honest(&image, asked);
                }
                if cut.swap(false, Ordering::SeqCst) {
                    return vec![Step::Send(bytes(&honest(&image, asked))[..first].to_vec())];
                }
                let from = asked.from();
                if !resumes || from == 0 {
                    return honest(&image, asked);
                }
                let range = format!("Content-Range: bytes {from}-{}/{}\r\n", tar.len() - 1, tar.len());
                answer("206 Partial Content", &range, &tar[from..])
            })
            .await;
            let dir = tempfile::tempdir().unwrap();
            let store = store(dir.path());
            pull(&store, &raw.host, None).await.unwrap_or_else(|e| panic!("{first} bytes: {e}"));
            assert_eq!(store.list().unwrap().len(), 1);
        }
    }
    for at in [Stage::Ping, Stage::Manifest, Stage::Config, Stage::Layer] {
        for keep in [0, 10, 40, 90, 120] {
            let raw = bad_at(at, move |_, _, good| {
                vec![Step::Send(bytes(&good)[..keep.min(bytes(&good).len() - 3)].to_vec())]
            })
            .await;
            if at == Stage::Ping && keep > 40 {
                continue;
            }
            refused(&raw, &format!("{at:?} cut after {keep} bytes")).await;
        }
    }
}

/// SPEC I1, I10
#[tokio::test(flavor = "multi_thread")]
async fn lengths_and_ranges_that_lie() {
    let head = |status: &str, headers: &str| format!("HTTP/1.1 {status}\r\n{headers}\r\n").into_bytes();
    for at in [Stage::Config, Stage::Layer] {
        for (what, status, headers, more) in [
            ("a longer one", "200 OK", "Content-Length: 400000000000", 0),
            ("a shorter one", "200 OK", "Content-Length: 10", 0),
            ("none, and more bytes", "200 OK", "X: y", 5000),
            (
                "another range",
                "206 Partial Content",
                "Content-Range: bytes 5-9/300000\r\nContent-Length: 5",
                0,
            ),
            ("no range", "206 Partial Content", "Content-Length: 5", 0),
            ("nothing", "204 No Content", "X: y", 0),
            ("a compressed answer", "200 OK", "Content-Encoding: gzip", 0),
            ("two lengths", "200 OK", "Content-Length: 5\r\nContent-Length: 6", 0),
            ("a negative one", "200 OK", "Content-Length: -1", 0),
        ] {
            let head = head(status, &format!("{headers}\r\n"));
            let raw = bad_at(at, move |_, _, good| {
                let good = bytes(&good);
                let body = good.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
                vec![Step::Send([&head, &good[body..], &vec![0; more]].concat())]
            })
            .await;
            let error = refused(&raw, &format!("{at:?}: {what}")).await;
            assert!(raw.requests("/v2/a/blobs") <= 6, "{at:?}: {what}: {error}");
        }
    }
    // A manifest that claims a size that the blob has not.
    for size in
        ["0", "1", "300001", "9223372036854775807", "18446744073709551615", "-1", "1e3", "\"5\"", "null"]
    {
        let image = image();
        let stated = format!("\"size\":{}}}", image.layers[0].1.len());
        let text = String::from_utf8(image.manifest.clone()).unwrap();
        assert_eq!(text.matches(&stated).count(), 1);
        let image = TestImage {
            manifest: text.replace(&stated, &format!("\"size\":{size}}}")).into_bytes(),
            ..image
        };
        let raw = Raw::start(move |asked| honest(&image, asked)).await;
        let error = refused(&raw, size).await.to_string();
        if size.len() > 18 {
            assert!(error.contains("maxLayerSize") || error.contains("not valid"), "{size}: {error}");
        }
    }
}

/// SPEC I10
#[tokio::test(flavor = "multi_thread")]
async fn endless_answers_are_cut_soon() {
    let chunk = || format!("10000\r\n{}\r\n", "x".repeat(1 << 16)).into_bytes();
    let most = 24 << 20;
    for at in STAGES {
        let raw = bad_at(at, move |_, _, _| {
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            vec![Step::Send(head), Step::Endless(chunk())]
        })
        .await;
        if at == Stage::Ping {
            // Not read: the pull goes on.
            let dir = tempfile::tempdir().unwrap();
            pull(&store(dir.path()), &raw.host, None).await.unwrap();
        } else {
            refused(&raw, &format!("{at:?}")).await;
        }
        assert!(raw.sent.load(Ordering::SeqCst) < most, "{at:?}: {} bytes", raw.sent.load(Ordering::SeqCst));
    }
    for at in STAGES {
        for line in ["X-Flood: y\r\n".to_owned(), "y".repeat(1 << 16)] {
            let raw = bad_at(at, move |_, _, _| {
                vec![Step::Send(b"HTTP/1.1 200 OK\r\nX: ".to_vec()), Step::Endless(line.clone().into_bytes())]
            })
            .await;
            refused(&raw, &format!("{at:?}: headers")).await;
            assert!(raw.sent.load(Ordering::SeqCst) < most, "{at:?}: headers");
        }
    }
}

/// SPEC I9
#[tokio::test(flavor = "multi_thread")]
async fn come_back_in_a_year() {
    for status in ["429 Too Many Requests", "503 Service Unavailable"] {
        for at in STAGES {
            let raw = bad_at(at, move |_, _, _| answer(status, "Retry-After: 31536000\r\n", b"{}")).await;
            if at == Stage::Ping && status.starts_with("429") {
                // dockerd takes it as a sign of life, too.
                continue;
            }
            let error = refused(&raw, status).await.to_string();
            assert!(error.contains(status.get(..3).unwrap()), "{at:?}: {error}");
        }
    }
}

fn credentials() -> Option<RegistryAuth> {
    Some(RegistryAuth {
        username: Some("user".into()),
        password: Some("secret".into()),
        ..RegistryAuth::default()
    })
}

/// SPEC I12
#[tokio::test(flavor = "multi_thread")]
async fn credentials_stay_at_the_registry() {
    // The blobs are elsewhere, and elsewhere asks for a password.
    let elsewhere = Raw::start(|asked| {
        if asked.path.starts_with("/token") {
            return answer("200 OK", "", br#"{"token":"theirs"}"#);
        }
        let own = asked.header("host").unwrap_or_default();
        let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{own}/token\"\r\n");
        answer("401 Unauthorized", &challenge, b"{}")
    })
    .await;
    let (image, host) = (image(), elsewhere.host.clone());
    let raw = Raw::start(move |asked| {
        if asked.header("authorization") != Some("Basic dXNlcjpzZWNyZXQ=") {
            return answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b"{}");
        }
        if asked.path.contains("/blobs/") {
            let to = format!("Location: http://{host}{}\r\n", asked.path);
            return answer("307 Temporary Redirect", &to, b"");
        }
        honest(&image, asked)
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let error = pull(&store(dir.path()), &raw.host, credentials()).await.unwrap_err();
    assert_eq!(error.kind(), images::ErrorKind::Unauthorized, "{error}");
    let asked = elsewhere.asked.lock().unwrap().clone();
    assert!(!asked.is_empty());
    assert!(asked.iter().all(|asked| asked.header("authorization").is_none()), "{asked:?}");
    assert!(asked.iter().all(|asked| !asked.head.contains("dXNlcjpzZWNyZXQ=")), "{asked:?}");
    // A token service that sends the secret on.
    let host = elsewhere.host.clone();
    let service = Raw::start(move |asked| {
        answer("307 Temporary Redirect", &format!("Location: http://{host}/token{}\r\n", asked.path), b"")
    })
    .await;
    let realm = service.host.clone();
    let raw = Raw::start(move |_| {
        let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{realm}/t\",service=\"s\"\r\n");
        answer("401 Unauthorized", &challenge, b"{}")
    })
    .await;
    let token = RegistryAuth { identity_token: Some("the-secret".into()), ..RegistryAuth::default() };
    for auth in [credentials(), Some(token)] {
        let error = pull(&store(dir.path()), &raw.host, auth).await.unwrap_err();
        assert!(error.to_string().contains("credentials to another host"), "{error}");
    }
    assert_eq!(elsewhere.requests("/token"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_that_lead_nowhere() {
    for (to, text) in [
        ("file:///etc/passwd", "302 Found"),
        ("ftp://127.0.0.1/x", "refused a redirect"),
        ("http://127.0.0.1:1/x", "connection refused"),
        ("/v2/a/manifests/latest", "stopped after 10 redirects"),
    ] {
        let raw =
            bad_at(Stage::Manifest, move |_, _, _| answer("302 Found", &format!("Location: {to}\r\n"), b""))
                .await;
        let error = refused(&raw, to).await.to_string();
        assert!(error.contains(text), "{to}: {error}");
        assert!(raw.requests("/v2/a/manifests") <= 11);
    }
    for to in ["", "http://", "http://[::1", "\u{1}"] {
        let raw =
            bad_at(Stage::Manifest, move |_, _, _| answer("302 Found", &format!("Location: {to}\r\n"), b""))
                .await;
        refused(&raw, to).await;
    }
}

/// SPEC I12
#[tokio::test(flavor = "multi_thread")]
async fn token_services_that_misbehave() {
    // Never satisfied: the token is asked for twice, no more.
    type Script = fn() -> Vec<Step>;
    let scripts: [(&str, Script); 6] = [
        ("never content", || answer("200 OK", "", br#"{"token":"good"}"#)),
        ("megabytes", || {
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            vec![
                Step::Send(head),
                Step::Endless(format!("10000\r\n{}\r\n", "x".repeat(1 << 16)).into_bytes()),
            ]
        }),
        ("stalls", || {
            vec![Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{".to_vec()), Step::Stall]
        }),
        ("no token", || answer("200 OK", "", b"{}")),
        ("a line break in the token", || answer("200 OK", "", br#"{"token":"a\r\nX: y"}"#)),
        ("no JSON", || answer("200 OK", "", b"<html>")),
    ];
    for (what, script) in scripts {
        let service = Raw::start(move |_| script()).await;
        let realm = service.host.clone();
        let raw = Raw::start(move |_| {
            let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{realm}/t\"\r\n");
            answer("401 Unauthorized", &challenge, b"{}")
        })
        .await;
        let error = refused(&raw, what).await;
        assert!(service.requests("/t") <= 2, "{what}: {error}");
        assert!(raw.requests("/v2/a/") <= 3, "{what}: {error}");
        assert!(service.sent.load(Ordering::SeqCst) < 16 << 20, "{what}");
    }
}

/// SPEC I11
#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_given_up_leaves_nothing_running() {
    let raw =
        bad_at(Stage::Layer, |_, _, good| vec![Step::Send(bytes(&good)[..200_000].to_vec()), Step::Stall])
            .await;
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.timeouts.stall = Duration::from_secs(60);
    let store = ImageStore::open(options).unwrap();
    let reference = format!("{}/a", raw.host).parse().unwrap();
    let task = tokio::spawn({
        let store = store.clone();
        async move { Box::pin(store.pull(&reference, None, None, Arc::new(()))).await.map(|_| ()) }
    });
    let blob = digest(&image().layers[0].1);
    while raw.requests(&format!("/v2/a/blobs/{blob}")) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    task.abort();
    let _ = task.await;
    let gone = async {
        while raw.open.load(Ordering::SeqCst) > 0 || files(&dir.path().join("tmp")) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.expect("the download goes on");
    nothing_half_made(dir.path(), &store, "given up").await;
}

/// SPEC I11
#[tokio::test(flavor = "multi_thread")]
async fn a_stalling_registry_holds_up_no_other() {
    let image = image();
    let bad = bad_at(Stage::Layer, |_, _, _| vec![Step::Stall]).await;
    let good = Raw::start(move |asked| honest(&image, asked)).await;
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.timeouts.request = Duration::from_secs(60);
    let store = ImageStore::open(options).unwrap();
    let mut stalled = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let (store, reference) = (store.clone(), format!("{}/{name}", bad.host).parse().unwrap());
        stalled.push(tokio::spawn(async move {
            let _ = Box::pin(store.pull(&reference, None, None, Arc::new(()))).await;
        }));
    }
    while bad.asked.lock().unwrap().iter().all(|asked| !asked.path.contains("/blobs/")) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The same layer from a registry that works.
    pull(&store, &good.host, None).await.unwrap();
    stalled.iter().for_each(tokio::task::JoinHandle::abort);
}
