//! The host is not as it should be: each fault is told with what to do, and the next command works.

pub(crate) mod boot;
mod daemons;
mod disk;
mod homes;
mod inherited;
mod programs;

use std::{os::unix::fs::PermissionsExt, path::Path};

use tests::{
    daemon::{Daemon, Setup},
    docker::Output,
};

/// `arca daemon start` fails with code 1 and says all of `words`; no daemon is left.
#[track_caller]
fn refused(daemon: &Daemon, words: &[&str]) -> Output {
    let out = daemon.try_arca(&["daemon", "start"]).unwrap();
    assert_eq!(out.code, 1, "{out:?}");
    for word in words {
        assert!(out.stderr.contains(word), "{word:?} lacks: {}", out.stderr);
    }
    assert!(out.stderr.starts_with("arca: ") && out.stdout.is_empty(), "{out:?}");
    assert_eq!(daemon.pid(), None);
    out
}

/// The daemon starts, loads busybox and runs a container.
#[track_caller]
fn works(daemon: &Daemon) {
    daemon.arca(&["daemon", "start"]).unwrap();
    daemon.load("busybox").unwrap();
    assert_eq!(daemon.docker().sh("run --rm busybox echo works").ok(), "works");
}

fn prepare(setup: Setup) -> Daemon {
    Daemon::prepare(setup).unwrap()
}

/// An executable script.
fn script(path: &Path, text: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A folder that every user may enter: QEMU is another user than the test.
fn open_folder() -> tempfile::TempDir {
    let permissions = std::fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().prefix("arca-t").permissions(permissions).tempdir().unwrap()
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}
