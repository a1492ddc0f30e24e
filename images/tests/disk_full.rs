//! A store on a file system that is full, at every step there is, and on one that is read-only. A real one: a small
//! tmpfs in a mount namespace of the test's own.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use common::*;
use images::{Error, ImageStore};

const SIZE: u64 = 6 << 20;

/// SPEC I14
#[test]
fn full_and_read_only_disks() {
    let dir = tempfile::tempdir().unwrap();
    let mount = format!(
        "mount -t tmpfs -o size={SIZE} none \"$DISK\" && exec \"$0\" --exact child --ignored --nocapture"
    );
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c", &mount])
        .arg(std::env::current_exe().unwrap())
        .env("DISK", dir.path())
        .stdin(Stdio::null())
        .output();
    let said = |output: &std::process::Output| {
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    match output {
        Ok(output) if output.status.success() => println!("{}", said(&output)),
        // No user namespaces, or no unshare at all.
        Ok(output) if said(&output).contains("unshare") => skipped(&said(&output)),
        Err(error) => skipped(&error.to_string()),
        Ok(output) => panic!("{}", said(&output)),
    }
}

fn skipped(why: &str) {
    assert!(
        std::env::var_os("ARCA_TEST_TOOLS").is_none_or(|value| value != "1"),
        "ARCA_TEST_TOOLS=1, but {why}"
    );
    eprintln!("SKIPPED: {why}");
}

fn image() -> TestImage {
    let tar = layer("f", &noise(300_000));
    TestImage::new(vec![(tar.clone(), gzip(&tar))])
}

fn archive(image: &TestImage) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let manifest = br#"[{"Config":"c","RepoTags":["x:1"],"Layers":["l"]}]"#;
    for (name, content) in [("c", &image.config[..]), ("l", &image.layers[0].0), ("manifest.json", manifest)]
    {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content).unwrap();
    }
    gzip(&tar.into_inner().unwrap())
}

async fn bring(store: &ImageStore, host: &str, load: Option<&[u8]>) -> Result<(), Error> {
    match load {
        Some(archive) => Box::pin(store.load(archive, Arc::new(()))).await.map(drop),
        None => {
            let name = format!("{host}/a").parse().unwrap();
            Box::pin(store.pull(&name, None, None, Arc::new(()))).await.map(drop)
        }
    }
}

fn clear(error: &Error, root: &Path) {
    let text = error.to_string();
    assert!(
        text.contains("No space left on device")
            && text.contains("make room")
            && text.contains(root.to_str().unwrap())
            || text.contains("image database: I/O error: No space left on device"),
        "{text}"
    );
}

#[tokio::test]
#[ignore = "runs in the mount namespace that the other test makes"]
async fn child() {
    let Some(disk) = std::env::var_os("DISK") else { return };
    let disk = Path::new(&disk);
    let (fake, image) = (Fake::start(Auth::None).await, image());
    fake.serve("a", &image);
    let archive = archive(&image);
    let (mut opening, mut bringing) = (0, 0);
    for load in [None, Some(&archive[..])] {
        for free in (0..2_000_000).step_by(80_000) {
            let root = disk.join("store");
            let ballast = disk.join("ballast");
            let _ = fs::remove_dir_all(&root);
            let _ = fs::remove_file(&ballast);
            // tmpfs counts pages and folders: what is left is about `free`.
            fs::write(&ballast, vec![1; usize::try_from(SIZE - free).unwrap()])
                .or_else(|_| fs::metadata(&ballast).map(drop))
                .unwrap();
            let store = match ImageStore::open(options(&root)) {
                Ok(store) => store,
                Err(error) => {
                    clear(&error, disk);
                    opening += 1;
                    fs::remove_file(&ballast).unwrap();
                    // What was half-made does not stand in the way.
                    ImageStore::open(options(&root)).unwrap()
                }
            };
            if ballast.exists()
                && let Err(error) = bring(&store, &fake.host, load).await
            {
                bringing += 1;
                clear(&error, disk);
                assert_eq!(files(&root.join("tmp")), 0, "{error}");
                assert!(store.list().unwrap().is_empty(), "{error}");
                fs::remove_file(&ballast).unwrap();
            }
            let _ = fs::remove_file(&ballast);
            // The same store, once there is room.
            bring(&store, &fake.host, load).await.unwrap();
            assert_eq!(store.disks(&image.id()).await.unwrap().len(), 1);
        }
    }
    println!("full while opening: {opening}, while pulling or loading: {bringing}");
    assert!(opening > 0 && bringing > 10, "{opening}, {bringing}");
    // Decisions on a full disk: each fails with a sentence or is made; the store stays usable.
    let root = disk.join("store");
    let store = ImageStore::open(options(&root)).unwrap();
    let ballast = disk.join("ballast");
    let mut full = fs::File::create(&ballast).unwrap();
    while std::io::Write::write_all(&mut full, &[1; 512]).is_ok() {}
    let mut failed = 0;
    for n in 0..200 {
        if let Err(error) = store.tag("x:1", &format!("{}{n}:1", "n".repeat(200)), "") {
            clear(&error, disk);
            failed += 1;
        }
    }
    println!("{failed} of 200 tags failed on a full disk");
    drop(full);
    fs::remove_file(&ballast).unwrap();
    store.tag("x:1", "after", "1").unwrap();
    drop(store);
    let store = ImageStore::open(options(&root)).unwrap();
    assert!(store.get("after:1").is_ok());
    drop(store);
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(disk).status().unwrap();
    assert!(remounted.success());
    let error = ImageStore::open(options(&root)).err().unwrap().to_string();
    assert!(error.contains("Read-only file system") && error.contains("ARCA_HOME"), "{error}");
    let error = ImageStore::open(options(&disk.join("other"))).err().unwrap().to_string();
    assert!(error.contains("Read-only file system") && error.contains("ARCA_HOME"), "{error}");
}
