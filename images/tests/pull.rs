//! Pulls from a registry that may lie, cut, stall and redirect.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use std::{sync::Arc, time::Duration};

use common::*;
use images::{Error, ErrorKind, RegistryAuth};

async fn pull(store: &images::ImageStore, name: &str) -> Result<images::Pulled, Error> {
    let reference = name.parse().unwrap();
    tokio::time::timeout(Duration::from_secs(20), Box::pin(store.pull(&reference, None, None, Arc::new(()))))
        .await
        .unwrap()
}

fn simple() -> TestImage {
    let (a, b, c) = (layer("a", &noise(3000)), layer("b", b"two"), layer("c", b"three"));
    TestImage::new(vec![(a.clone(), gzip(&a)), (b.clone(), zstd(&b)), (c.clone(), c)])
}

#[tokio::test]
async fn gzip_zstd_and_plain_layers_with_all_messages() {
    let (dir, fake, image) = (tempfile::tempdir().unwrap(), Fake::start(Auth::None).await, simple());
    fake.serve("a", &image);
    let store = store(dir.path());
    let messages = Arc::new(Messages::default());
    let name = format!("{}/a", fake.host);
    let pulled = Box::pin(store.pull(&name.parse().unwrap(), None, None, messages.clone())).await.unwrap();
    assert_eq!(pulled.id, image.id());
    let states = messages.states();
    assert_eq!(states[..4], ["Pulling from a", "Pulling fs layer", "Pulling fs layer", "Pulling fs layer"]);
    assert_eq!(states.iter().filter(|s| *s == "Pull complete").count(), 3, "{states:?}");
    assert_eq!(states[states.len() - 2], format!("Digest: {}", digest(&image.manifest)));
    assert_eq!(states[states.len() - 1], format!("Status: Downloaded newer image for {name}:latest"));
    let disks = store.disks(&image.id()).await.unwrap();
    assert!(disks.len() == 3 && disks.iter().all(|disk| disk.metadata().unwrap().len() > 0));
    let again = pull(&store, &name).await.unwrap();
    assert!(!again.changed);
    let found = store.get(&name).unwrap();
    assert_eq!((found.repo_tags, found.size), (vec![format!("{name}:latest")], 3008));
    assert_eq!(found.repo_digests, [format!("{name}@{}", digest(&image.manifest))]);
    assert!(store.find(image.id().get(7..15).unwrap()).unwrap().is_some(), "by ID prefix");
    // It is all there after a restart, and all gone after a removal.
    drop(store);
    let store = common::store(dir.path());
    store.remove(&name, false, false, &|_| Vec::new()).unwrap();
    assert_eq!((files(&dir.path().join("blobs/sha256")), files(&dir.path().join("disks"))), (0, 0));
}

#[tokio::test]
async fn wrong_content_leaves_nothing() {
    let fake = Fake::start(Auth::None).await;
    let image = simple();
    // A blob with another content, a longer one, and a layer that is not what the configuration says.
    fake.serve("wrong", &image);
    fake.serve("long", &image);
    let blob = &image.layers[0].1;
    let mut other = blob.clone();
    other[40] ^= 1;
    let kind = "x/blob";
    fake.put(&fake.blob_path("wrong", blob), Answer::Bytes(other.into(), kind));
    let long = [blob.as_slice(), b"more"].concat();
    fake.put(&fake.blob_path("long", blob), Answer::Bytes(long.into(), kind));
    let tar = layer("x", b"x");
    let lying = TestImage::with_diff_ids(vec![(tar.clone(), gzip(&tar))], &[digest(b"other")]);
    fake.serve("lying", &lying);
    for (name, text) in [
        ("wrong", "filesystem layer verification failed"),
        ("long", "the manifest states"),
        ("lying", "layers from manifest don't match image configuration"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let error = pull(&store, &format!("{}/{name}", fake.host)).await.unwrap_err();
        assert!(error.to_string().contains(text), "{name}: {error}");
        assert!(store.list().unwrap().is_empty());
        assert_eq!(files(&dir.path().join("disks")), 0, "{name}");
        // The other layers' downloads are aborted; their blocking writes end a moment later.
        let emptied = async {
            while files(&dir.path().join("tmp")) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), emptied).await.expect(name);
    }
}

#[tokio::test]
async fn cut_and_stalled_downloads_resume() {
    let fake = Fake::start(Auth::None).await;
    let tar = layer("big", &noise(400_000));
    let image = TestImage::new(vec![(tar.clone(), tar.clone())]);
    fake.serve("cut", &image);
    fake.serve("stall", &image);
    fake.put(&fake.blob_path("cut", &tar), Answer::Cut(tar.clone().into(), 150_000));
    fake.put(&fake.blob_path("stall", &tar), Answer::Stall(tar.clone().into(), 150_000));
    for name in ["cut", "stall"] {
        let dir = tempfile::tempdir().unwrap();
        let pulled = pull(&store(dir.path()), &format!("{}/{name}", fake.host)).await.unwrap();
        assert_eq!(pulled.id, image.id());
        assert!(fake.count(&fake.blob_path(name, &tar)) >= 2, "{name} took one request");
    }
    // Nothing but cuts: given up after the attempts, not retried for ever.
    fake.serve("dead", &image);
    fake.put(&fake.blob_path("dead", &tar), Answer::Cut(tar.clone().into(), 0));
    let dir = tempfile::tempdir().unwrap();
    pull(&store(dir.path()), &format!("{}/dead", fake.host)).await.unwrap_err();
    assert_eq!(fake.count(&fake.blob_path("dead", &tar)), 3);
}

#[tokio::test]
async fn endless_redirects_end() {
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::start(Auth::None).await);
    fake.put("/v2/a/manifests/latest", Answer::Redirect);
    let error = pull(&store(dir.path()), &format!("{}/a", fake.host)).await.unwrap_err();
    assert!(error.to_string().contains("stopped after 10 redirects"), "{error}");
}

#[tokio::test]
async fn indexes_and_platforms() {
    let (dir, fake, image) = (tempfile::tempdir().unwrap(), Fake::start(Auth::None).await, simple());
    fake.serve("a", &image);
    let entry = |os: &str, architecture: &str| {
        serde_json::json!({"mediaType": OCI_MANIFEST, "digest": digest(&image.manifest), "size": image.manifest.len(),
            "platform": {"os": os, "architecture": architecture}})
    };
    let entries = [entry("unknown", "unknown"), entry("linux", "s390x"), entry("linux", "amd64")];
    let index =
        serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).to_string();
    fake.manifest("a", "many", index.as_bytes(), OCI_INDEX);
    let store = store(dir.path());
    let reference = format!("{}/a:many", fake.host).parse().unwrap();
    let get = |platform| Box::pin(store.pull(&reference, Some(platform), None, Arc::new(())));
    let error = get("linux/arm64").await.unwrap_err();
    assert_eq!(error.to_string(), "no matching manifest for linux/arm64 in the manifest list entries");
    let pulled = get("linux/amd64").await.unwrap();
    assert_eq!((pulled.id, pulled.digest), (image.id(), digest(index.as_bytes())));
    let by_digest = format!("{}/a@{}", fake.host, digest(index.as_bytes()));
    assert_eq!(pull(&store, &by_digest).await.unwrap().id, image.id());
}

#[tokio::test]
async fn basic_and_token_authorisation() {
    let image = simple();
    for kind in [Auth::Basic, Auth::Bearer] {
        let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::start(kind).await);
        fake.serve("a", &image);
        let store = store(dir.path());
        let reference = format!("{}/a", fake.host).parse().unwrap();
        let auth = |password: &str| {
            Some(RegistryAuth {
                username: Some("user".into()),
                password: Some(password.into()),
                ..RegistryAuth::default()
            })
        };
        for refused in [None, auth("wrong")] {
            let error = Box::pin(store.pull(&reference, None, refused, Arc::new(()))).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
        }
        let pulled = Box::pin(store.pull(&reference, None, auth("secret"), Arc::new(()))).await.unwrap();
        assert_eq!(pulled.id, image.id());
    }
}

#[tokio::test]
async fn dockerds_error_texts() {
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::start(Auth::None).await);
    let store = store(dir.path());
    let error = pull(&store, &format!("{}/x:1", fake.host)).await.unwrap_err();
    let wanted = format!("manifest for {}/x:1 not found: manifest unknown: manifest unknown", fake.host);
    assert_eq!((error.to_string(), error.kind()), (wanted, ErrorKind::NotFound));
    let error = pull(&store, "127.0.0.1:1/x").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused"#
    );
}

#[tokio::test]
async fn mirrors_first_and_one_download_for_two_pulls() {
    let (dir, fake, image) = (tempfile::tempdir().unwrap(), Fake::start(Auth::None).await, simple());
    fake.serve("library/busy", &image);
    let mut options = options(dir.path());
    options.mirrors = vec!["http://127.0.0.1:1".into(), format!("http://{}/", fake.host)];
    let store = images::ImageStore::open(options).unwrap();
    let (a, b) = tokio::join!(pull(&store, "busy"), pull(&store, "busy"));
    assert_eq!((a.unwrap().id, b.unwrap().id), (image.id(), image.id()));
    assert_eq!(fake.count(&fake.blob_path("library/busy", &image.layers[0].1)), 1);
    assert_eq!(store.get("busy").unwrap().repo_tags, ["busy:latest"]);
}

#[tokio::test]
async fn a_chain_of_127_layers_becomes_few_disks() {
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::start(Auth::None).await);
    let layers =
        (0..127u8).map(|n| layer(&format!("f{n}"), &[n])).map(|tar| (tar.clone(), gzip(&tar))).collect();
    let image = TestImage::new(layers);
    fake.serve("long", &image);
    let store = store(dir.path());
    let id = pull(&store, &format!("{}/long", fake.host)).await.unwrap().id;
    let (one, two) = tokio::join!(store.disks(&id), store.disks(&id));
    let disks = one.unwrap();
    assert_eq!(disks, two.unwrap());
    assert_eq!((disks.len(), files(&dir.path().join("disks"))), (8, 8));
    assert_eq!(store.get(&id).unwrap().size, 127);
    // A lost disk is made again from the blobs.
    std::fs::remove_file(&disks[0]).unwrap();
    let (one, two) = tokio::join!(store.disks(&id), store.disks(&id));
    assert!(one.unwrap() == two.unwrap() && disks[0].exists());
}
