//! Blobs and disks that were lost, cut or changed on the host's disk; what failed pulls leave behind.
#![allow(clippy::string_slice, reason = "test data")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use common::*;
use images::{Error, ImageStore, Pulled};

fn image() -> TestImage {
    let (a, b) = (layer("a", &noise(100_000)), layer("b", b"two"));
    TestImage::new(vec![(a.clone(), gzip(&a)), (b.clone(), zstd(&b))])
}

async fn pull(store: &ImageStore, name: &str) -> Result<Pulled, Error> {
    Box::pin(store.pull(&name.parse().unwrap(), None, None, Arc::new(()))).await
}

fn blob(root: &Path, bytes: &[u8]) -> PathBuf {
    root.join("blobs/sha256").join(&digest(bytes)[7..])
}

/// SPEC I15
#[tokio::test]
async fn damaged_disks_are_made_again() {
    let (dir, fake, image) = (tempfile::tempdir().unwrap(), Fake::start(Auth::None).await, image());
    fake.serve("a", &image);
    let store = store(dir.path());
    pull(&store, &format!("{}/a", fake.host)).await.unwrap();
    let disks = store.disks(&image.id()).await.unwrap();
    let good = fs::read(&disks[0]).unwrap();
    type Harm = fn(&Path, &[u8]);
    let harms: [(&str, Harm); 5] = [
        ("lost", |path, _| fs::remove_file(path).unwrap()),
        ("empty", |path, _| fs::write(path, b"").unwrap()),
        ("cut", |path, good| fs::write(path, &good[..good.len() - 4096]).unwrap()),
        ("longer", |path, good| fs::write(path, [good, &[0; 4096]].concat()).unwrap()),
        ("overwritten", |path, good| fs::write(path, vec![7; good.len()]).unwrap()),
    ];
    for (what, harm) in harms {
        harm(&disks[0], &good);
        assert_eq!(store.disks(&image.id()).await.unwrap(), disks, "{what}");
        assert!(fs::read(&disks[0]).unwrap() == good, "{what}");
    }
    // A lost blob is not missed while the disks are here.
    fs::remove_file(blob(dir.path(), &image.layers[0].1)).unwrap();
    assert_eq!(store.disks(&image.id()).await.unwrap(), disks);
}

/// SPEC I15
#[tokio::test]
async fn what_is_lost_is_told_and_a_pull_brings_it_back() {
    let (fake, image) = (Fake::start(Auth::None).await, image());
    fake.serve("a", &image);
    let name = format!("{}/a", fake.host);
    for what in ["lost", "changed", "cut"] {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        pull(&store, &name).await.unwrap();
        let disks = store.disks(&image.id()).await.unwrap();
        let good = fs::read(&disks[0]).unwrap();
        let path = blob(dir.path(), &image.layers[0].1);
        let mut bytes = fs::read(&path).unwrap();
        match what {
            "lost" => fs::remove_file(&path).unwrap(),
            "changed" => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(&path, &bytes).unwrap();
            }
            _ => fs::write(&path, &bytes[..1000]).unwrap(),
        }
        fs::remove_file(&disks[0]).unwrap();
        drop(store);
        let store = common::store(dir.path());
        let error = store.disks(&image.id()).await.unwrap_err();
        assert!(error.to_string().contains("pull"), "{what}: {error}");
        assert!(!path.exists(), "{what}: a damaged blob goes");
        assert_eq!((files(&dir.path().join("tmp")), disks[0].exists()), (0, false), "{what}");
        pull(&store, &name).await.unwrap();
        assert_eq!(store.disks(&image.id()).await.unwrap(), disks, "{what}");
        assert!(fs::read(&disks[0]).unwrap() == good, "{what}");
    }
}

/// SPEC I15
#[tokio::test]
async fn a_pull_heals_a_damaged_blob_on_the_way() {
    let (dir, fake, first) = (tempfile::tempdir().unwrap(), Fake::start(Auth::None).await, image());
    fake.serve("a", &first);
    let (shared, own) = (first.layers[0].clone(), layer("c", b"three"));
    // The shared layer is in the middle now, so that another disk is made of it.
    let second = TestImage::new(vec![(own.clone(), gzip(&own)), shared]);
    fake.serve("b", &second);
    let store = store(dir.path());
    pull(&store, &format!("{}/a", fake.host)).await.unwrap();
    let path = blob(dir.path(), &first.layers[0].1);
    let mut bytes = fs::read(&path).unwrap();
    bytes[5000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    pull(&store, &format!("{}/b", fake.host)).await.unwrap();
    assert_eq!(store.disks(&second.id()).await.unwrap().len(), 2);
    assert_eq!(digest(&fs::read(&path).unwrap()), digest(&first.layers[0].1));
}

/// SPEC I16
#[tokio::test]
async fn what_failed_pulls_leave_is_used_and_bounded() {
    let fake = Fake::start(Auth::None).await;
    let image = image();
    fake.serve("a", &image);
    let last = fake.blob_path("a", &image.layers[1].1);
    let broken = || fake.put(&last, Answer::Bytes(vec![0; image.layers[1].1.len()].into(), "x/blob"));
    let name = format!("{}/a", fake.host);
    let first = fake.blob_path("a", &image.layers[0].1);
    let leftovers = |dir: &Path| files(&dir.join("blobs/sha256")) + files(&dir.join("disks"));
    let dir = tempfile::tempdir().unwrap();
    // The whole layer of the failed pull is not downloaded again, not even by the next daemon.
    broken();
    pull(&store(dir.path()), &name).await.unwrap_err();
    let asked = fake.count(&first);
    fake.blob("a", &image.layers[1].1);
    let store = store(dir.path());
    assert!(leftovers(dir.path()) > 0);
    pull(&store, &name).await.unwrap();
    assert_eq!(fake.count(&first), asked);
    drop(store);
    // Too old, or too much.
    for (age, bytes) in [(Duration::ZERO, u64::MAX), (Duration::from_secs(3600), 50_000)] {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(dir.path());
        (options.keep_leftovers, options.max_leftovers) = (age, bytes);
        let store = ImageStore::open(options.clone()).unwrap();
        broken();
        pull(&store, &name).await.unwrap_err();
        let kept: u64 = ["blobs/sha256", "disks"]
            .iter()
            .flat_map(|folder| fs::read_dir(dir.path().join(folder)).unwrap())
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(kept <= if age.is_zero() { 0 } else { bytes }, "{kept} bytes are kept");
        fake.blob("a", &image.layers[1].1);
        pull(&store, &name).await.unwrap();
        drop(store);
        // An image's own content is no leftover.
        let store = ImageStore::open(options).unwrap();
        assert_eq!(store.disks(&image.id()).await.unwrap().len(), 2);
    }
    // A removal takes all at once.
    broken();
    let dir = tempfile::tempdir().unwrap();
    let store = common::store(dir.path());
    pull(&store, &name).await.unwrap_err();
    store.prune(true, &images::PruneFilters::default(), &|_| Vec::new()).unwrap();
    assert_eq!(leftovers(dir.path()), 0);
}
