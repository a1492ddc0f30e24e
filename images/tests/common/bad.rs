//! Registries that are honest but at one stage of a pull, and what a pull from them must not leave.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "for tests"
)]

use std::{path::Path, sync::Arc, time::Duration};

use images::{Error, ImageStore, RegistryAuth};

use crate::{
    common::*,
    raw::{Asked, Raw, Step, answer},
};

/// A store whose deadlines are short, in the proportions of the real ones.
pub fn hasty_store(root: &Path) -> ImageStore {
    let mut options = options(root);
    options.timeouts.request = Duration::from_millis(700);
    options.timeouts.stall = Duration::from_millis(300);
    options.timeouts.window = Duration::from_millis(600);
    options.timeouts.attempts = 2;
    ImageStore::open(options).unwrap()
}

pub async fn pull(
    store: &ImageStore,
    host: &str,
    auth: Option<RegistryAuth>,
) -> Result<images::Pulled, Error> {
    let reference = format!("{host}/a").parse().unwrap();
    // Whatever a registry does, with these deadlines a pull ends long before.
    let pull = Box::pin(store.pull(&reference, None, auth, Arc::new(())));
    tokio::time::timeout(Duration::from_secs(15), pull).await.expect("the pull does not end")
}

pub fn image() -> TestImage {
    let tar = layer("big", &noise(300_000));
    TestImage::new(vec![(tar.clone(), tar)])
}

/// What a well-behaved registry without resuming answers.
pub fn honest(image: &TestImage, asked: &Asked) -> Vec<Step> {
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
pub enum Stage {
    Ping,
    Manifest,
    Config,
    Layer,
}

pub const STAGES: [Stage; 4] = [Stage::Ping, Stage::Manifest, Stage::Config, Stage::Layer];

pub fn stage(image: &TestImage, asked: &Asked) -> Stage {
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
pub async fn bad_at(
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

pub fn bytes(steps: &[Step]) -> Vec<u8> {
    match steps {
        [Step::Send(bytes)] => bytes.clone(),
        _ => panic!("one answer"),
    }
}

/// Neither images nor disks nor half-made files; blobs that are here have their digest.
pub async fn nothing_half_made(root: &Path, store: &ImageStore, what: &str) {
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

pub async fn refused(raw: &Raw, what: &str) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let store = hasty_store(dir.path());
    let error = pull(&store, &raw.host, None).await.map(|_| ()).expect_err(what);
    nothing_half_made(dir.path(), &store, what).await;
    error
}
