//! Layers, manifests and configurations that are broken or lie, through a pull.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use common::*;
use images::{Error, ImageStore};

/// The memory of the process is measured, and bombs take time: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

async fn pull(store: &ImageStore, host: &str) -> Result<images::Pulled, Error> {
    let reference = format!("{host}/a").parse().unwrap();
    let pull = Box::pin(store.pull(&reference, None, None, Arc::new(())));
    tokio::time::timeout(Duration::from_secs(60), pull).await.expect("the pull does not end")
}

/// What is said of an image; nothing of it may stay but blobs that have their digest.
async fn refused(image: &TestImage, change: impl FnOnce(&mut images::Options)) -> String {
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::start(Auth::None).await);
    fake.serve("a", image);
    refused_from(&fake, dir.path(), change).await
}

async fn refused_from(fake: &Fake, root: &Path, change: impl FnOnce(&mut images::Options)) -> String {
    let mut options = options(root);
    change(&mut options);
    let store = ImageStore::open(options).unwrap();
    let error = pull(&store, &fake.host).await.unwrap_err().to_string();
    assert!(store.list().unwrap().is_empty(), "{error}");
    let emptied = async {
        while files(&root.join("tmp")) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), emptied).await.expect("half-made files");
    assert_eq!(files(&root.join("disks")), 0, "{error}");
    error
}

fn one(tar: &[u8], blob: Vec<u8>) -> TestImage {
    TestImage::new(vec![(tar.to_vec(), blob)])
}

/// SPEC I2
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::await_holding_lock, reason = "tests of this file follow one another")]
async fn broken_compression() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let tar = layer("file", &noise(50_000));
    for (name, whole) in [("gzip", gzip(&tar)), ("zstd", zstd(&tar))] {
        for keep in [0, 1, 5, 17, whole.len() / 2, whole.len() - 1] {
            refused(&one(&tar, whole[..keep].to_vec()), |_| {}).await;
        }
        for at in [3, 12, whole.len() / 3, whole.len() - 2] {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            // A bit that nothing depends on (a time in gzip's header) changes nothing, either.
            let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::start(Auth::None).await);
            fake.serve("a", &one(&tar, flipped));
            let store = store(dir.path());
            if pull(&store, &fake.host).await.is_ok() {
                let disk =
                    std::fs::read(&store.disks(&store.list().unwrap()[0].id).await.unwrap()[0]).unwrap();
                assert!(disk.windows(4096).any(|w| w == &noise(50_000)[4096..8192]), "{name} {at}");
            }
        }
        for garbage in [&b"garbage behind it"[..], &[0; 700], &[0x1f, 0x8b, 8, 0]] {
            let text = refused(&one(&tar, [&whole[..], garbage].concat()), |_| {}).await;
            assert!(text.contains("failed to register layer"), "{name}: {text}");
        }
        // Members are one stream.
        let halves = match name {
            "gzip" => [gzip(&tar[..20_000]), gzip(&[]), gzip(&tar[20_000..])],
            _ => [zstd(&tar[..20_000]), zstd(&[]), zstd(&tar[20_000..])],
        };
        let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::start(Auth::None).await);
        fake.serve("a", &one(&tar, halves.concat()));
        pull(&store(dir.path()), &fake.host).await.unwrap();
    }
    let text = refused(&one(&tar, b"BZh91AY&SY and so on".to_vec()), |_| {}).await;
    assert!(text.contains("bzip2 compression is not supported"), "{text}");
    // Compressed in one layer, another's content; plain bytes that are no archive.
    let text = refused(&one(&tar, gzip(&layer("file", b"other"))), |_| {}).await;
    assert!(text.contains("layers from manifest don't match image configuration"), "{text}");
    refused(&one(b"hello", b"hello".to_vec()), |_| {}).await;
}

fn rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// A layer of one file of `megabytes` equal bytes.
fn bomb(megabytes: usize, byte: u8) -> (String, Vec<u8>) {
    let mut header = tar::Header::new_gnu();
    header.set_size((megabytes as u64) << 20);
    header.set_mode(0o644);
    header.set_path("bomb").unwrap();
    header.set_cksum();
    // Packed once: gzip members follow one another.
    let mut one = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut one, &vec![byte; 1 << 20]).unwrap();
    let packed = [gzip(header.as_bytes()), one.finish().unwrap().repeat(megabytes), gzip(&[0; 1024])];
    (String::from("sha256:") + &"0".repeat(64), packed.concat())
}

/// SPEC I8
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::await_holding_lock, reason = "tests of this file follow one another")]
async fn bombs_name_their_limit_and_its_key() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = rss();
    let (diff_id, packed) = bomb(256, b'b');
    assert!(packed.len() < 2 << 20, "{} bytes", packed.len());
    let image = TestImage::with_diff_ids(vec![(Vec::new(), packed)], std::slice::from_ref(&diff_id));
    let text = refused(&image, |o| o.limits = diskimg::Limits::of(100 << 20, 1000)).await;
    assert!(text.contains("exceeds the limit of 104857600 bytes") && text.contains("maxLayerSize"), "{text}");
    let mut tar = tar::Builder::new(Vec::new());
    for n in 0..3000 {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        tar.append_data(&mut header, format!("{n}"), &b""[..]).unwrap();
    }
    let tar = tar.into_inner().unwrap();
    let text = refused(&one(&tar, gzip(&tar)), |o| o.limits = diskimg::Limits::of(100 << 20, 1000)).await;
    assert!(text.contains("exceeds the limit of 1000 files") && text.contains("maxLayerFiles"), "{text}");
    // A window of 2 GiB, stated in the frame's header, that the decoder would have to keep.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, (21 << 3)];
    frame.extend_from_slice(&[1, 0, 0]);
    let text = refused(&one(b"", frame), |_| {}).await;
    assert!(text.contains("memory"), "{text}");
    assert!(rss() - before < 200, "{} MiB", rss() - before);
    // A manifest that states more than a layer may have costs no download.
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::start(Auth::None).await);
    let tar = layer("f", &noise(5000));
    let image = one(&tar, tar.clone());
    fake.serve("a", &image);
    let text = refused_from(&fake, dir.path(), |o| o.limits = diskimg::Limits::of(4096, 1000)).await;
    assert!(text.contains("maxLayerSize"), "{text}");
    assert_eq!(fake.count(&fake.blob_path("a", &tar)), 0);
}

/// SPEC I8
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::await_holding_lock, reason = "tests of this file follow one another")]
async fn unpacking_ends_with_the_pull() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Some minutes of work, were it done to the end.
    let (diff_id, packed) = bomb(5000, 0);
    let image = TestImage::with_diff_ids(vec![(Vec::new(), packed)], std::slice::from_ref(&diff_id));
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::start(Auth::None).await);
    fake.serve("a", &image);
    let messages = Arc::new(Messages::default());
    let (store, reference) = (store(dir.path()), format!("{}/a", fake.host).parse().unwrap());
    let task = tokio::spawn({
        let (store, messages) = (store.clone(), messages.clone());
        async move { Box::pin(store.pull(&reference, None, None, messages)).await.map(|_| ()) }
    });
    while !messages.states().iter().any(|state| state == "Download complete") {
        assert!(!task.is_finished(), "{:?}", task.await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    task.abort();
    let start = Instant::now();
    while files(&dir.path().join("tmp")) > 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "unpacking goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// SPEC I4, I7
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::await_holding_lock, reason = "tests of this file follow one another")]
async fn nothing_of_a_layer_becomes_a_file_of_the_host() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut tar = tar::Builder::new(Vec::new());
    let mut put = |kind: tar::EntryType, name: &str, link: &str| {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o6777);
        header.set_size(0);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        tar.append(&header, &b""[..]).unwrap();
    };
    put(tar::EntryType::Char, "null", "");
    put(tar::EntryType::Block, "disk", "");
    put(tar::EntryType::Fifo, "fifo", "");
    put(tar::EntryType::Symlink, "out", "/tmp");
    put(tar::EntryType::Regular, "out/arca-escaped", "");
    put(tar::EntryType::Regular, "/tmp/arca-escaped", "");
    put(tar::EntryType::Regular, "setuid", "");
    let tar = tar.into_inner().unwrap();
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::start(Auth::None).await);
    fake.serve("a", &one(&tar, gzip(&tar)));
    pull(&store(dir.path()), &fake.host).await.unwrap();
    let mut folders = vec![dir.path().to_owned()];
    let mut found = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                folders.push(entry.path());
                continue;
            }
            found += 1;
            let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
            assert!(metadata.is_file() && mode & 0o6000 == 0, "{:?}", entry.path());
        }
    }
    assert_eq!(found, 5, "manifest, configuration, blob, disk and database");
    assert!(!Path::new("/tmp/arca-escaped").exists());
    let mut bad = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..12].copy_from_slice(b"../../passwd");
    header.set_size(0);
    header.set_cksum();
    bad.append(&header, &b""[..]).unwrap();
    let bad = bad.into_inner().unwrap();
    let text = refused(&one(&bad, gzip(&bad)), |_| {}).await;
    assert!(text.starts_with("failed to register layer") && text.contains("'..'"), "{text}");
}

async fn manifest_refused(manifest: &[u8], content_type: &'static str) -> String {
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::start(Auth::None).await);
    let tar = layer("f", b"x");
    fake.serve("a", &one(&tar, tar.clone()));
    fake.manifest("a", "latest", manifest, content_type);
    refused_from(&fake, dir.path(), |_| {}).await
}

/// SPEC I3
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::await_holding_lock, reason = "tests of this file follow one another")]
async fn manifests_that_are_none() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let descriptor =
        |digest: &str, size: u64| format!(r#"{{"mediaType":"x","digest":"{digest}","size":{size}}}"#);
    let hex = format!("sha256:{}", "a".repeat(64));
    let layers = |n: usize| vec![descriptor(&hex, 1); n].join(",");
    let config = descriptor(&hex, 1);
    let cases = [
        ("nothing", String::new(), "not valid"),
        ("no JSON", "<html>".into(), "not valid"),
        ("a list", "[]".into(), "not valid"),
        ("deep", "[".repeat(1 << 20), "not valid"),
        ("deep inside", format!(r#"{{"x":{}"#, "[".repeat(1 << 20)), "not valid"),
        ("large", format!(r#"{{"x":"{}"}}"#, "x".repeat(5 << 20)), "exceeds 4194304 bytes"),
        ("both", format!(r#"{{"config":{config},"layers":[],"manifests":[]}}"#), "unsupported manifest"),
        ("wrong types", format!(r#"{{"config":{config},"layers":"x"}}"#), "not valid"),
        ("1001 layers", format!(r#"{{"config":{config},"layers":[{}]}}"#, layers(1001)), "at most 1000"),
        (
            "no digest",
            r#"{"config":{"digest":"x","size":1},"layers":[]}"#.into(),
            "invalid or unsupported digest",
        ),
        (
            "a path as digest",
            r#"{"config":{"digest":"sha256:../../x","size":1},"layers":[]}"#.into(),
            "invalid or unsupported digest",
        ),
        (
            "large configuration",
            format!(r#"{{"config":{},"layers":[]}}"#, descriptor(&hex, 5 << 20)),
            "at most 4194304",
        ),
        ("version 1", r#"{"schemaVersion":1,"fsLayers":[]}"#.into(), "schema 1"),
        ("empty index", r#"{"manifests":[]}"#.into(), "no matching manifest"),
        (
            "another type",
            format!(r#"{{"mediaType":"x/y","config":{config},"layers":[]}}"#),
            "mediaType in manifest",
        ),
    ];
    for (what, manifest, text) in cases {
        let said = manifest_refused(manifest.as_bytes(), OCI_MANIFEST).await;
        assert!(said.contains(text), "{what}: {said}");
        assert!(said.len() < 2000, "{what}: {} bytes", said.len());
    }
    // An index in an index in an index; one that names itself cannot exist, as its name is its digest.
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::start(Auth::None).await);
    let mut inner = format!(r#"{{"config":{config},"layers":[]}}"#);
    for _ in 0..5 {
        let platform = r#""platform":{"os":"linux","architecture":"amd64"}"#;
        inner = format!(
            r#"{{"manifests":[{{"mediaType":"{OCI_INDEX}","digest":"{}","size":{},{platform}}}]}}"#,
            digest(inner.as_bytes()),
            inner.len()
        );
        fake.manifest("a", "latest", inner.as_bytes(), OCI_INDEX);
    }
    let said = refused_from(&fake, dir.path(), |_| {}).await;
    assert!(said.contains("nested too deep"), "{said}");
}

/// SPEC I3
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::await_holding_lock, reason = "tests of this file follow one another")]
async fn configurations_that_lie() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let tar = layer("f", b"x");
    let id = digest(&tar);
    let with = |config: String| {
        let image = one(&tar, tar.clone());
        let manifest = String::from_utf8(image.manifest).unwrap();
        let (old, new) = (digest(&image.config), digest(config.as_bytes()));
        let size = |n: usize| format!("\"size\":{n}}},\"layers\"");
        let manifest = manifest.replace(&old, &new).replace(&size(image.config.len()), &size(config.len()));
        TestImage { config: config.into_bytes(), manifest: manifest.into_bytes(), layers: image.layers }
    };
    let rootfs = format!(r#""rootfs":{{"type":"layers","diff_ids":["{id}"]}}"#);
    for (what, config, text) in [
        ("none", "{}".to_owned(), "invalid rootfs"),
        ("too few", r#"{"rootfs":{"diff_ids":[]}}"#.into(), "invalid rootfs"),
        ("too many", format!(r#"{{"rootfs":{{"diff_ids":["{id}","{id}"]}}}}"#), "1 layers, 2 diff IDs"),
        (
            "thousands",
            format!(r#"{{"rootfs":{{"diff_ids":[{}]}}}}"#, vec![format!("\"{id}\""); 2000].join(",")),
            "at most 1000",
        ),
        (
            "a path",
            r#"{"rootfs":{"diff_ids":["sha256:../../../x"]}}"#.into(),
            "invalid or unsupported digest",
        ),
        ("windows", format!(r#"{{"os":"windows",{rootfs}}}"#), "cannot be used on this platform"),
        ("wrong types", format!(r#"{{"config":{{"Env":5}},{rootfs}}}"#), "invalid image configuration"),
        (
            "deep",
            format!(r#"{{"config":{{"Labels":{}"#, "{\"a\":".repeat(100_000)),
            "invalid image configuration",
        ),
        ("no JSON", "hello".into(), "invalid image configuration"),
    ] {
        let said = refused(&with(config), |_| {}).await;
        assert!(said.contains(text), "{what}: {said}");
    }
    // Absurd, but an image: what it says is only read when a container is made.
    let absurd = format!(
        r#"{{"created":"never","config":{{"Env":["","=","NOEQUALS"],"StopTimeout":-9223372036854775808,"ExposedPorts":{{"../x":{{}}}},"Volumes":{{"../../etc":{{}}}}}},"history":[{}],{rootfs}}}"#,
        vec!["{}"; 5000].join(",")
    );
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::start(Auth::None).await);
    fake.serve("a", &with(absurd));
    let store = store(dir.path());
    pull(&store, &fake.host).await.unwrap();
    let image = store.list().unwrap().remove(0);
    assert_eq!((image.created, store.history(&image.id).unwrap().len()), (None, 5000));
}
