//! The same images and templates as other programs see them: erofs-utils and e2fsprogs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers")]

mod common;

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use common::archive::Archive;
use diskimg::{LayerDisk, Options, clone_sparse, ext4_template};
use tar::EntryType;

/// Runs a checker; `None` if it is not installed, which is an error where the tests must be complete.
fn run(program: &str, args: &[&str], path: &Path) -> Option<String> {
    let output = match Command::new(program).args(args).arg(path).output() {
        Ok(output) => output,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let required = std::env::var_os("ARCA_TEST_TOOLS").is_some_and(|value| value == "1");
            assert!(!required, "ARCA_TEST_TOOLS=1, but {program} is not installed");
            eprintln!("SKIPPED: {program} is not installed");
            return None;
        }
        Err(e) => panic!("{program}: {e}"),
    };
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {}: {text}", output.status);
    Some(text)
}

fn varied_layer() -> Vec<u8> {
    let mut archive = Archive::new()
        .dir("bin", 0o755)
        .pax("SCHILY.xattr.security.capability", &[1; 20])
        .file("bin/ping", &[3; 5000])
        .pax("SCHILY.xattr.user.big", &[1; 9000])
        .file("bin/large-attributes", &[3; 100])
        .hardlink("bin/pong", "bin/ping")
        .symlink("sh", "bin/sh")
        .file(".wh.gone", b"")
        .file("o/.wh..wh..opq", b"")
        .raw(EntryType::Fifo, b"pipe", b"", |_| {});
    for i in 0..3000 {
        archive = archive.file(&format!("many/file-{i}"), &vec![b'x'; i]);
    }
    archive.done()
}

#[test]
fn fsck_erofs_accepts_and_extracts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let mut disk = LayerDisk::create(std::fs::File::create(&path).unwrap(), Options::upper()).unwrap();
    disk.apply(&varied_layer()[..]).unwrap();
    let summary = disk.finish().unwrap();
    let out = dir.path().join("out");
    let extract = format!("--extract={}", out.display());
    if run("fsck.erofs", &[], &path).is_none() {
        return;
    }
    let dump = run("dump.erofs", &["-s"], &path).expect("dump.erofs comes with fsck.erofs");
    let words: Vec<_> = dump.split_whitespace().collect();
    assert!(words.windows(2).any(|w| w[0] == "count:" && w[1] == summary.inodes.to_string()), "{dump}");
    if !is_root() {
        // Extracting makes the whiteout's device.
        return;
    }
    run("fsck.erofs", &[&extract], &path);
    assert_eq!(std::fs::read(out.join("bin/pong")).unwrap(), vec![3; 5000]);
    for i in [0, 1, 2999] {
        assert_eq!(std::fs::read(out.join(format!("many/file-{i}"))).unwrap(), vec![b'x'; i]);
    }
    assert_eq!(std::fs::read_link(out.join("sh")).unwrap(), Path::new("bin/sh"));
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

#[test]
fn ext4_template_is_made_once_and_clones_are_small_and_clean() {
    let dir = tempfile::tempdir().unwrap();
    let template = match ext4_template(dir.path(), 64 << 30) {
        Ok(path) => path,
        Err(diskimg::Error::MkfsMissing) => {
            run("mke2fs", &["-V"], dir.path());
            return;
        }
        Err(e) => panic!("{e}"),
    };
    let blocks = |path: &Path| std::os::unix::fs::MetadataExt::blocks(&path.metadata().unwrap()) * 512;
    assert_eq!(template.metadata().unwrap().len(), 64 << 30);
    assert!(blocks(&template) < 2 << 20, "{} bytes allocated", blocks(&template));
    let made = template.metadata().unwrap().modified().unwrap();
    assert_eq!(ext4_template(dir.path(), 64 << 30).unwrap(), template);
    assert_eq!(template.metadata().unwrap().modified().unwrap(), made, "not made again");
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 1, "no temporary file is left: {names:?}");

    let clone = dir.path().join("clone");
    let start = Instant::now();
    clone_sparse(&template, &clone).unwrap();
    eprintln!("template {} bytes allocated, cloned in {:?}", blocks(&template), start.elapsed());
    assert!(blocks(&clone) <= blocks(&template) + (64 << 10), "{} bytes allocated", blocks(&clone));
    let _ = run("e2fsck", &["-fn"], &clone);
}

#[test]
fn mke2fs_tells_what_it_dislikes() {
    let dir = tempfile::tempdir().unwrap();
    match ext4_template(dir.path(), 4096) {
        Err(diskimg::Error::MkfsFailed { stderr, .. }) => assert!(!stderr.is_empty()),
        Err(diskimg::Error::MkfsMissing) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
