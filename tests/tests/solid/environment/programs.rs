//! QEMU, mke2fs and the arca program itself are missing, broken or replaced; KVM cannot be used.

use std::fs;

use serde_json::json;
use tests::{
    cache,
    daemon::{Daemon, Setup},
};

use super::{open_folder, prepare, refused, script, works};

/// QEMU of this machine.
fn qemu() -> String {
    let out =
        std::process::Command::new("sh").args(["-c", "command -v qemu-system-x86_64"]).output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// A daemon that has `dir` before its PATH, with a `qemu-system-x86_64` of these words in it.
fn with_qemu(dir: &std::path::Path, words: &str) -> Daemon {
    script(&dir.join("qemu-system-x86_64"), words);
    with_path(&format!("{}:{}", dir.display(), std::env::var("PATH").unwrap()))
}

fn with_path(path: &str) -> Daemon {
    prepare(Setup { config: json!({}), env: vec![("PATH".into(), path.into())], ..Setup::default() })
}

/// SPEC E4
#[test]
fn a_qemu_that_will_not_do_is_refused_at_the_start() {
    let dir = open_folder();
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let daemon = with_path(bin.to_str().unwrap());
    // Debian has it in /usr/bin only, which this PATH lacks.
    refused(
        &daemon,
        &["qemu-system-x86_64 not found", bin.to_str().unwrap(), "install the package qemu-system-x86"],
    );
    let doctor = daemon.try_arca(&["doctor"]).unwrap();
    assert_eq!(doctor.code, 1);
    assert!(doctor.stdout.contains("-> install the package qemu-system-x86"), "{}", doctor.stdout);

    let program = bin.join("qemu-system-x86_64");
    let path = program.to_str().unwrap();
    fs::write(&program, "no program").unwrap();
    refused(&daemon, &[path, "may not be executed", "install the package"]);

    for (words, reason) in [
        ("echo 'qemu: the library libx is missing' >&2; exit 127", "qemu: the library libx is missing"),
        (
            "echo 'QEMU emulator version 6.2.0 (Debian)'",
            "is QEMU 6.2, which is too old: install 7.2 or later",
        ),
        ("echo whatever", "does not tell its version"),
    ] {
        script(&program, words);
        refused(&daemon, &[path, reason]);
        let doctor = daemon.try_arca(&["doctor"]).unwrap();
        assert!(doctor.code == 1 && doctor.stdout.contains(reason), "{}", doctor.stdout);
    }
}

/// SPEC E4
#[test]
fn a_qemu_that_ends_at_once_is_told_with_its_words() {
    let dir = open_folder();
    let good = format!("exec {} \"$@\"", qemu());
    let bad =
        format!("[ \"$1\" = --version ] && {good}\necho 'qemu: could not allocate the moon' >&2; exit 1");
    let daemon = with_qemu(dir.path(), &bad);
    daemon.arca(&["daemon", "start"]).unwrap();
    daemon.load("busybox").unwrap();
    let docker = daemon.docker();
    docker.sh("create --name victim busybox true").ok();
    docker.sh("start victim").fails(1, "qemu: could not allocate the moon");
    assert_eq!(docker.sh("inspect -f {{.State.Status}} victim").ok(), "created");
    fs::remove_file(dir.path().join("qemu-system-x86_64")).unwrap();
    docker.sh("start victim").fails(1, "qemu-system-x86_64");
    script(&dir.path().join("qemu-system-x86_64"), &good);
    docker.sh("start -a victim").ok();
}

/// SPEC E4
#[test]
fn without_mke2fs_create_says_which_package_has_it() {
    // In every place it is looked for, so only in a mount namespace; else it cannot be hidden.
    let hide =
        "for f in /usr/sbin/mke2fs /sbin/mke2fs; do mount --bind /dev/null $f 2>/dev/null; done; exec \"$@\"";
    let Some(unshare) = super::disk::unshare() else { return };
    let mut wrapper = unshare;
    wrapper.extend(["sh", "-c", hide, "sh"].map(str::to_owned));
    let daemon = prepare(Setup { config: json!({}), wrapper, ..Setup::default() });
    let doctor = daemon.try_arca(&["doctor"]).unwrap();
    assert!(
        doctor.code == 1 && doctor.stdout.contains("-> install the package e2fsprogs"),
        "{}",
        doctor.stdout
    );
    daemon.arca(&["daemon", "start"]).unwrap();
    daemon.load("busybox").unwrap();
    let out = daemon.docker().sh("run --rm busybox true");
    assert!(out.code == 125 && out.stderr.contains("mke2fs"), "{out:?}");
    assert_eq!(daemon.docker().sh("ps -aq").ok(), "");
}

/// SPEC E10
#[test]
fn a_daemon_goes_on_when_its_program_is_replaced_or_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let arca = dir.path().join("arca");
    cache::copy_program(&cache::arca(), &arca).unwrap();
    let daemon = prepare(Setup { config: json!({}), arca: Some(arca.clone()), ..Setup::default() });
    works(&daemon);
    let docker = daemon.docker();
    // As a package manager does: another file takes the name.
    let newer = dir.path().join("newer");
    script(&newer, "echo not this one >&2; exit 1");
    fs::rename(&newer, &arca).unwrap();
    assert_eq!(docker.sh("run --rm busybox echo replaced").ok(), "replaced");
    fs::remove_file(&arca).unwrap();
    assert_eq!(docker.sh("run -d --name victim busybox sleep 600").code, 0);
    assert_eq!(docker.sh("exec victim echo deleted").ok(), "deleted");
    // The next version takes over what the last one started.
    cache::copy_program(&cache::arca(), &arca).unwrap();
    daemon.arca(&["daemon", "stop"]).unwrap();
    daemon.arca(&["daemon", "start"]).unwrap();
    assert_eq!(docker.sh("exec victim echo adopted").ok(), "adopted");
}

/// SPEC E14
#[test]
fn a_kernel_that_hangs_under_kvm_is_found_and_vms_are_emulated() {
    // A processor that offers KVM, a /dev/kvm that opens, and a QEMU that says nothing under it.
    let Some(unshare) = super::disk::unshare() else { return };
    let dir = open_folder();
    let cpuinfo = dir.path().join("cpuinfo");
    fs::write(&cpuinfo, "processor\t: 0\nflags\t\t: fpu vmx sse\n").unwrap();
    fs::write(dir.path().join("kvm"), "").unwrap();
    script(
        &dir.path().join("qemu-system-x86_64"),
        &format!("case \"$*\" in *'-accel kvm'*) exec sleep 600;; esac\nexec {} \"$@\"", qemu()),
    );
    let mount = format!(
        "mount --bind {0}/cpuinfo /proc/cpuinfo && {{ [ -e /dev/kvm ] || exit 77; }} && mount --bind {0}/kvm /dev/kvm && exec \"$@\"",
        dir.path().display()
    );
    let mut wrapper = unshare;
    wrapper.extend(["sh", "-c", &mount, "sh"].map(str::to_owned));
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let daemon =
        prepare(Setup { config: json!({}), wrapper, env: vec![("PATH".into(), path)], ..Setup::default() });
    let begin = std::time::Instant::now();
    let doctor = daemon.try_arca(&["doctor"]).unwrap();
    if doctor.code == 77 {
        println!("skipped: this host has no /dev/kvm to put another in the place of");
        return;
    }
    let why = "a kernel under KVM says nothing within 10s";
    assert!(doctor.code == 0 && doctor.stdout.contains(why), "{}", doctor.stdout);
    assert!(begin.elapsed() < std::time::Duration::from_secs(20), "{:?}", begin.elapsed());
    works(&daemon);
    let info = daemon.docker().run(&["info", "-f", "{{json .Warnings}}"]);
    assert!(info.ok().contains(why), "{info:?}");
}
