//! Images made up for tests, and a registry in this process that can misbehave.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test uses a part of it")]

use std::{
    collections::HashMap,
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Response, StatusCode, header},
};
use bytes::Bytes;
use futures::StreamExt;
use images::{ImageStore, Options, ProgressEvent};
use sha2::{Digest, Sha256};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// A layer with one file.
pub fn layer(name: &str, content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content).unwrap();
    tar.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// Bytes that do not compress.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            u8::try_from(state & 0xff).unwrap()
        })
        .collect()
}

/// An image: configuration, manifest, and layers as (tar, blob).
pub struct TestImage {
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
    pub layers: Vec<(Vec<u8>, Vec<u8>)>,
}

impl TestImage {
    pub fn new(layers: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        let diff_ids: Vec<_> = layers.iter().map(|(tar, _)| digest(tar)).collect();
        Self::with_diff_ids(layers, &diff_ids)
    }

    pub fn with_diff_ids(layers: Vec<(Vec<u8>, Vec<u8>)>, diff_ids: &[String]) -> Self {
        let config = serde_json::json!({"os": "linux", "architecture": "amd64", "created": "2024-01-02T03:04:05Z",
            "config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created_by": "made up"}]});
        let config = config.to_string().into_bytes();
        let blobs: Vec<_> = layers
            .iter()
            .map(|(_, blob)| serde_json::json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(blob), "size": blob.len()}))
            .collect();
        let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len()},
            "layers": blobs});
        Self { config, manifest: manifest.to_string().into_bytes(), layers }
    }

    pub fn id(&self) -> String {
        digest(&self.config)
    }
}

/// How a path is answered.
#[derive(Clone)]
pub enum Answer {
    Bytes(Bytes, &'static str),
    /// The bytes, cut after so many in each request; ranges are honoured.
    Cut(Bytes, usize),
    /// So many bytes, then nothing, at the first request; all of the rest later.
    Stall(Bytes, usize),
    /// A redirect to itself.
    Redirect,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    None,
    Basic,
    Bearer,
}

pub struct Fake {
    pub host: String,
    pub paths: Arc<Mutex<HashMap<String, Answer>>>,
    pub requests: Arc<Mutex<Vec<String>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Clone)]
struct Shared {
    paths: Arc<Mutex<HashMap<String, Answer>>>,
    requests: Arc<Mutex<Vec<String>>>,
    auth: Auth,
    host: String,
}

impl Fake {
    pub async fn start(auth: Auth) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (paths, requests) = (Arc::default(), Arc::default());
        let shared =
            Shared { paths: Arc::clone(&paths), requests: Arc::clone(&requests), auth, host: host.clone() };
        let router = Router::new().fallback(answer).with_state(shared);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { host, paths, requests, server }
    }

    pub fn put(&self, path: &str, answer: Answer) {
        self.paths.lock().unwrap().insert(path.to_owned(), answer);
    }

    /// Serves an image as `repository:latest`.
    pub fn serve(&self, repository: &str, image: &TestImage) {
        self.manifest(repository, "latest", &image.manifest, OCI_MANIFEST);
        self.blob(repository, &image.config);
        for (_, blob) in &image.layers {
            self.blob(repository, blob);
        }
    }

    pub fn manifest(&self, repository: &str, tag: &str, bytes: &[u8], kind: &'static str) {
        for name in [tag.to_owned(), digest(bytes)] {
            let bytes = Bytes::copy_from_slice(bytes);
            self.put(&format!("/v2/{repository}/manifests/{name}"), Answer::Bytes(bytes, kind));
        }
    }

    pub fn blob(&self, repository: &str, bytes: &[u8]) {
        self.put(&self.blob_path(repository, bytes), Answer::Bytes(Bytes::copy_from_slice(bytes), "x/blob"));
    }

    pub fn blob_path(&self, repository: &str, bytes: &[u8]) -> String {
        format!("/v2/{repository}/blobs/{}", digest(bytes))
    }

    pub fn count(&self, path: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|request| request.as_str() == path).count()
    }
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let header =
        |name| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let seen = {
        let mut requests = shared.requests.lock().unwrap();
        requests.push(path.clone());
        requests.iter().filter(|request| **request == path).count()
    };
    let plain = |status: StatusCode, text: &'static str| {
        Response::builder().status(status).body(Body::from(text)).unwrap()
    };
    if path == "/token" {
        let query = request.uri().query().unwrap_or_default();
        // "user:secret"
        if header(header::AUTHORIZATION) != "Basic dXNlcjpzZWNyZXQ="
            || !query.contains("scope=repository%3Aa%3Apull")
        {
            return plain(StatusCode::UNAUTHORIZED, "{}");
        }
        return plain(StatusCode::OK, r#"{"token":"the-token"}"#);
    }
    let (wanted, challenge) = match shared.auth {
        Auth::None => (String::new(), String::new()),
        Auth::Basic => ("Basic dXNlcjpzZWNyZXQ=".to_owned(), "Basic realm=\"r\"".to_owned()),
        Auth::Bearer => (
            "Bearer the-token".to_owned(),
            format!("Bearer realm=\"http://{}/token\",service=\"fake\"", shared.host),
        ),
    };
    if !wanted.is_empty() && header(header::AUTHORIZATION) != wanted {
        return Response::builder()
            .status(StatusCode::UNAUTHORIZED)
            .header(header::WWW_AUTHENTICATE, challenge)
            .body(Body::empty())
            .unwrap();
    }
    if path == "/v2/" {
        return plain(StatusCode::OK, "{}");
    }
    let Some(found) = shared.paths.lock().unwrap().get(&path).cloned() else {
        return plain(
            StatusCode::NOT_FOUND,
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
        );
    };
    let range = header(header::RANGE);
    let from: usize =
        range.strip_prefix("bytes=").and_then(|r| r.trim_end_matches('-').parse().ok()).unwrap_or(0);
    let partial = |all: &Bytes, status: StatusCode| {
        Response::builder()
            .status(if from > 0 { StatusCode::PARTIAL_CONTENT } else { status })
            .header(header::CONTENT_RANGE, format!("bytes {from}-{}/{}", all.len() - 1, all.len()))
    };
    match found {
        Answer::Bytes(bytes, kind) => {
            Response::builder().header(header::CONTENT_TYPE, kind).body(Body::from(bytes)).unwrap()
        }
        Answer::Cut(bytes, after) => {
            let end = (from + after).min(bytes.len());
            let part = bytes.slice(from..end);
            let failure = std::io::Error::other("cut");
            let tail = if end < bytes.len() { vec![Err(failure)] } else { vec![] };
            // The flush makes sure that the bytes are out before the connection breaks.
            let body = futures::stream::iter([Ok(part)]).chain(
                futures::stream::once(async move {
                    tokio::task::yield_now().await;
                    tail
                })
                .flat_map(futures::stream::iter),
            );
            partial(&bytes, StatusCode::OK).body(Body::from_stream(body)).unwrap()
        }
        Answer::Stall(bytes, after) => {
            if seen > 1 {
                return partial(&bytes, StatusCode::OK).body(Body::from(bytes.slice(from..))).unwrap();
            }
            let part = bytes.slice(..after);
            let body =
                futures::stream::iter([Ok::<_, std::io::Error>(part)]).chain(futures::stream::pending());
            partial(&bytes, StatusCode::OK).body(Body::from_stream(body)).unwrap()
        }
        Answer::Redirect => Response::builder()
            .status(StatusCode::TEMPORARY_REDIRECT)
            .header(header::LOCATION, path)
            .body(Body::empty())
            .unwrap(),
    }
}

/// A store with short deadlines.
pub fn store(root: &std::path::Path) -> ImageStore {
    ImageStore::open(options(root)).unwrap()
}

pub fn options(root: &std::path::Path) -> Options {
    let mut options = Options::new(root);
    options.timeouts.stall = Duration::from_millis(300);
    options.timeouts.backoff = Duration::from_millis(5);
    options.timeouts.attempts = 3;
    options
}

/// Collects the messages.
#[derive(Default)]
pub struct Messages(Mutex<Vec<ProgressEvent>>);

impl images::Progress for Messages {
    fn event(&self, event: ProgressEvent) {
        self.0.lock().unwrap().push(event);
    }
}

impl Messages {
    /// Status texts, counted ones left out.
    pub fn states(&self) -> Vec<String> {
        let events = self.0.lock().unwrap();
        let state = |event: &ProgressEvent| match event {
            ProgressEvent::Status { status, .. } => Some(status.clone()),
            ProgressEvent::Layer { status, counted: None, .. } => Some((*status).to_owned()),
            ProgressEvent::Stream(text) => Some(text.clone()),
            ProgressEvent::Layer { .. } => None,
        };
        events.iter().filter_map(state).collect()
    }
}

/// Files under a folder of the store.
pub fn files(folder: &std::path::Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}
