//! Registries that stall, cut and lie: each ends with a clear error in a bounded time, and leaves nothing.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "common/bad.rs"]
mod bad;
mod common;
#[path = "common/raw.rs"]
mod raw;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bad::*;
use common::*;
use images::ImageStore;
use raw::{Raw, Step, answer};

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
            let store = hasty_store(dir.path());
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
            pull(&hasty_store(dir.path()), &raw.host, None).await.unwrap();
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
