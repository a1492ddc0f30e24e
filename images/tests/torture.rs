//! A process that pulls, loads, tags and removes is killed at random instants, again and again, over one store: what it
//! said was done is there, what it was doing is done or not, and nothing in between is believed or left.
//!
//! `ARCA_TORTURE_ROUNDS=1000 cargo test -p images --test torture` for longer.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use common::*;
use images::{ImageStore, Options, PruneFilters};

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % n
    }
}

const OPERATIONS: [&str; 9] =
    ["pull 0", "pull 1", "load 0", "load 1", "tag 0", "tag 1", "remove 0", "unload 1", "prune 0"];

/// Two pairs of images that share their lowest layer.
fn image(n: usize) -> TestImage {
    let shared = layer("shared", &noise(200_000));
    let own = layer("own", &[u8::try_from(n).unwrap(); 5000]);
    TestImage::new(vec![(shared.clone(), gzip(&shared)), (own.clone(), zstd(&own))])
}

/// A docker archive of `image(2 + n)` as `lN:1`.
fn archive(n: usize) -> Vec<u8> {
    let image = image(2 + n);
    let manifest =
        serde_json::json!([{"Config": "c", "RepoTags": [format!("l{n}:1")], "Layers": ["0", "1"]}]);
    let mut tar = tar::Builder::new(Vec::new());
    let manifest = manifest.to_string();
    for (name, content) in [
        ("c", &image.config[..]),
        ("0", &image.layers[0].0),
        ("1", &image.layers[1].0),
        ("manifest.json", manifest.as_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content).unwrap();
    }
    tar.into_inner().unwrap()
}

async fn perform(store: &ImageStore, host: &str, operation: &str) {
    let (what, n) = operation.split_once(' ').unwrap();
    let n: usize = n.parse().unwrap();
    let unused = |_: &str| Vec::new();
    // Removing what is not there fails, and that is fine.
    match what {
        "pull" => {
            let name = format!("{host}/p{n}").parse().unwrap();
            Box::pin(store.pull(&name, None, None, Arc::new(()))).await.unwrap();
        }
        "load" => drop(Box::pin(store.load(&archive(n)[..], Arc::new(()))).await.unwrap()),
        "tag" => drop(store.tag(&format!("{host}/p{n}"), &format!("t{n}"), "1")),
        "remove" => drop(store.remove(&format!("{host}/p{n}"), false, false, &unused)),
        "unload" => drop(store.remove(&format!("l{n}:1"), false, false, &unused)),
        _ => drop(store.prune(true, &PruneFilters::default(), &unused).unwrap()),
    }
}

type Tags = BTreeMap<String, String>;

/// What the names are after an operation.
fn after(mut tags: Tags, host: &str, operation: &str) -> Tags {
    let (what, n) = operation.split_once(' ').unwrap();
    let number: usize = n.parse().unwrap();
    let pulled = format!("{host}/p{n}:latest");
    match what {
        "pull" => drop(tags.insert(pulled, image(number).id())),
        "load" => drop(tags.insert(format!("l{n}:1"), image(2 + number).id())),
        "tag" => {
            if let Some(id) = tags.get(&pulled).cloned() {
                tags.insert(format!("t{n}:1"), id);
            }
        }
        "remove" => drop(tags.remove(&pulled)),
        "unload" => drop(tags.remove(&format!("l{n}:1"))),
        _ => {}
    }
    tags
}

fn tags(store: &ImageStore) -> Tags {
    let images = store.list().unwrap();
    images
        .into_iter()
        .flat_map(|image| image.repo_tags.into_iter().map(move |tag| (tag, image.id.clone())))
        .collect()
}

/// The process that is killed.
#[tokio::test]
#[ignore = "started by the other test"]
async fn child() {
    let Ok(root) = std::env::var("TORTURE_ROOT") else { return };
    let (host, seed) = (std::env::var("TORTURE_HOST").unwrap(), std::env::var("TORTURE_SEED").unwrap());
    let store = ImageStore::open(Options::new(root)).unwrap();
    let mut random = Random(seed.parse().unwrap());
    let mut tell = std::io::stderr();
    loop {
        let operation = OPERATIONS[usize::try_from(random.below(OPERATIONS.len() as u64)).unwrap()];
        writeln!(tell, "@begin {operation}").unwrap();
        perform(&store, &host, operation).await;
        writeln!(tell, "@end {operation}").unwrap();
    }
}

fn content_digest(path: &Path) -> String {
    digest(&std::fs::read(path).unwrap())
}

/// SPEC I13
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_instant() {
    let rounds: u64 = std::env::var("ARCA_TORTURE_ROUNDS").map_or(60, |n| n.parse().unwrap());
    let fake = Fake::start(Auth::None).await;
    fake.serve("p0", &image(0));
    fake.serve("p1", &image(1));
    // What every disk must hold, from a store that nobody kills.
    let clean = tempfile::tempdir().unwrap();
    let store = ImageStore::open(Options::new(clean.path())).unwrap();
    for operation in ["pull 0", "pull 1", "load 0", "load 1"] {
        perform(&store, &fake.host, operation).await;
    }
    let disks: HashMap<_, _> = std::fs::read_dir(clean.path().join("disks"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name(), content_digest(&entry.path())))
        .collect();
    drop(store);

    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(std::process::id().into());
    let (mut before, mut finished, mut between) = (Tags::new(), 0, 0);
    let start = Instant::now();
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env("TORTURE_ROOT", dir.path())
            .env("TORTURE_HOST", &fake.host)
            .env("TORTURE_SEED", (random.below(u64::MAX - 1) + 1).to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Some die while they open the store, most in the middle of something.
        tokio::time::sleep(Duration::from_micros(random.below(300_000))).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let said: Vec<String> =
            BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap).collect();
        let mut half = None;
        for line in &said {
            match line.strip_prefix('@').and_then(|line| line.split_once(' ')) {
                Some(("begin", operation)) => half = Some(operation.to_owned()),
                Some((_, operation)) => {
                    before = after(before, &fake.host, operation);
                    half = None;
                    finished += 1;
                }
                None => assert!(!line.contains("panicked"), "{said:?}"),
            }
        }
        let store = ImageStore::open(Options::new(dir.path()))
            .unwrap_or_else(|e| panic!("round {round}: {e}: {said:?}"));
        let now = tags(&store);
        let done = half.as_deref().map(|operation| after(before.clone(), &fake.host, operation));
        between += usize::from(half.is_some());
        assert!(
            now == before || Some(&now) == done.as_ref(),
            "round {round}: {now:?} after {said:?} on {before:?}"
        );
        before = now;
        assert_eq!(files(&dir.path().join("tmp")), 0, "round {round}");
        for entry in std::fs::read_dir(dir.path().join("blobs/sha256")).unwrap().map(Result::unwrap) {
            let name = format!("sha256:{}", entry.file_name().to_str().unwrap());
            assert_eq!(content_digest(&entry.path()), name, "round {round}");
        }
        for entry in std::fs::read_dir(dir.path().join("disks")).unwrap().map(Result::unwrap) {
            assert_eq!(disks.get(&entry.file_name()), Some(&content_digest(&entry.path())), "round {round}");
        }
        for image in store.list().unwrap() {
            assert_eq!(store.disks(&image.id).await.unwrap().len(), 2, "round {round}");
        }
    }
    println!(
        "{rounds} kills, {between} of them in an operation, {finished} finished, {:.1?}",
        start.elapsed()
    );
    assert!(
        between * 3 > usize::try_from(rounds).unwrap() && finished > 0,
        "{between} of {rounds}, {finished}"
    );
    // Everything can be taken away again.
    let store = ImageStore::open(Options::new(dir.path())).unwrap();
    for image in store.list().unwrap() {
        store.remove(&image.id, true, false, &|_| Vec::new()).unwrap();
    }
    store.prune(false, &PruneFilters::default(), &|_| Vec::new()).unwrap();
    assert_eq!((files(&dir.path().join("blobs/sha256")), files(&dir.path().join("disks"))), (0, 0));
}
