//! Registries that lead astray, to other hosts and token services: no password goes where it does not belong, and all ends.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "common/bad.rs"]
mod bad;
mod common;
#[path = "common/raw.rs"]
mod raw;

use std::sync::atomic::Ordering;

use bad::*;
use images::RegistryAuth;
use raw::{Raw, Step, answer};

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
    let error = pull(&hasty_store(dir.path()), &raw.host, credentials()).await.unwrap_err();
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
        let error = pull(&hasty_store(dir.path()), &raw.host, auth).await.unwrap_err();
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
