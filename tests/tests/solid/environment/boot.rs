//! Kernels that do not boot and guests that never answer.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::json;
use tests::{
    cache,
    daemon::{Daemon, Setup},
    docker::Output,
    wait::eventually,
};

use super::{prepare, refused};

/// A "newc" archive (Documentation/driver-api/early-userspace/buffer-format.rst) with one file.
fn initramfs(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, mode, content) in [(name, 0o100_755, content), ("TRAILER!!!", 0, &[][..])] {
        let fields = [1, mode, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        archive.extend(b"070701");
        archive.extend(fields.iter().map(|field| format!("{field:08x}")).collect::<String>().bytes());
        archive.extend(name.bytes().chain([0]));
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(content);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    archive
}

/// A program that says something on the console and then waits for ever.
fn sleeper() -> Vec<u8> {
    let text = b"saboteur: I will not answer\n";
    let mut code = Vec::new();
    // write(1, text, length); for (;;) pause();
    code.extend([0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0x48, 0x8d, 0x35, 16, 0, 0, 0, 0xba]);
    code.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
    code.extend([0x0f, 0x05, 0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]);
    // The text is addressed from behind the third instruction.
    let behind = 17;
    let at = code.len();
    code[13..17].copy_from_slice(&u32::try_from(at - behind).unwrap().to_le_bytes());
    code.extend(text);
    elf(&code)
}

/// A static program of this code, which may find its data behind itself.
pub(crate) fn elf(code: &[u8]) -> Vec<u8> {
    let base = 0x40_0000_u64;
    let mut elf = Vec::new();
    elf.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [base + 120, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    let size = 120 + code.len() as u64;
    for word in [0, base, base, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    elf
}

/// Our kernel, whose code is an endless loop with interrupts off.
fn deaf_kernel() -> Vec<u8> {
    let mut kernel = fs::read(cache::current().join("bzImage")).unwrap();
    // boot.rst: the protected-mode code begins behind the boot sector and `setup_sects` more.
    let start = (usize::from(kernel[0x1f1]) + 1) * 512;
    // 32-bit entry: cli; hlt; jmp -3. The 64-bit entry is 0x200 behind it.
    for at in [start, start + 0x200] {
        kernel[at..at + 4].copy_from_slice(&[0xfa, 0xf4, 0xeb, 0xfd]);
    }
    kernel
}

/// A daemon whose kernel and initramfs are files of the test, good ones for a start.
fn daemon(dir: &Path) -> Daemon {
    for name in ["bzImage", "initramfs.cpio"] {
        fs::copy(cache::current().join(name), dir.join(name)).unwrap();
    }
    let daemon = prepare(Setup::default());
    restart(&daemon, dir, "90s");
    daemon.load("busybox").unwrap();
    daemon
}

fn restart(daemon: &Daemon, dir: &Path, boot_timeout: &str) {
    let config = json!({
        "kernelPath": dir.join("bzImage"), "initramfsPath": dir.join("initramfs.cpio"), "bootTimeout": boot_timeout,
    });
    daemon.arca(&["daemon", "stop"]).unwrap();
    fs::write(daemon.home().join("config.json"), config.to_string()).unwrap();
    daemon.arca(&["daemon", "start"]).unwrap();
}

/// The container does not start while `file` is `content`: it stays as it was created, the reason is in its state, nothing of
/// its VM is left. With the good file it starts.
fn fails_then_works(daemon: &Daemon, boot_timeout: &str, file: &Path, content: &[u8]) -> (Output, Duration) {
    let docker = daemon.docker();
    docker.sh("create --name victim busybox sleep 600").ok();
    let good = fs::read(file).unwrap();
    restart(daemon, file.parent().unwrap(), boot_timeout);
    fs::write(file, content).unwrap();
    let begin = Instant::now();
    let out = docker.sh("start victim");
    let took = begin.elapsed();
    fs::write(file, good).unwrap();
    assert_eq!(out.code, 1, "{out:?}");
    assert!(out.stderr.contains("boot the VM: "), "{}", out.stderr);
    assert_eq!(docker.sh("inspect -f {{.State.Status}} victim").ok(), "created");
    let told = docker.sh("inspect -f {{.State.Error}} victim");
    assert!(told.ok().contains("boot the VM: "), "{told:?}");
    let id = docker.sh("inspect -f {{.Id}} victim").ok().to_owned();
    eventually("no process of the VM is left", Duration::from_secs(10), || {
        let name = format!("arca-{}", &id[..12]);
        !Command::new("pgrep").args(["-f", "--", &name]).output().unwrap().status.success()
    });
    restart(daemon, file.parent().unwrap(), "90s");
    docker.sh("start victim").ok();
    assert_eq!(docker.sh("exec victim echo alive").ok(), "alive");
    docker.sh("rm -f victim").ok();
    (out, took)
}

/// SPEC E1
#[test]
fn a_kernel_or_initramfs_that_cannot_be_used_is_refused_at_the_start() {
    let dir = super::open_folder();
    fs::write(dir.path().join("garbage"), vec![0x5a; 100_000]).unwrap();
    fs::write(dir.path().join("empty"), "").unwrap();
    let path = |name: &str| dir.path().join(name);
    for (key, path, reason) in [
        ("kernelPath", path("none"), "none;"),
        ("kernelPath", path(""), "is a folder"),
        ("kernelPath", path("garbage"), "is not a kernel"),
        ("initramfsPath", path("none"), "none;"),
        ("initramfsPath", path(""), "is a folder"),
        ("initramfsPath", path("empty"), "is empty"),
    ] {
        let daemon = prepare(Setup { config: json!({ key: path }), ..Setup::default() });
        refused(&daemon, &[key, path.to_str().unwrap(), reason, "correct it in config.json"]);
        let doctor = daemon.try_arca(&["doctor"]).unwrap();
        assert_eq!(doctor.code, 1);
        let line = doctor.stdout.lines().find(|line| line.starts_with("FAIL")).unwrap();
        assert!(line.contains(path.to_str().unwrap()), "{}", doctor.stdout);
        fs::write(daemon.home().join("config.json"), "{}").unwrap();
        daemon.arca(&["daemon", "start"]).unwrap();
    }
}

/// SPEC E2, E3
#[test]
fn guests_that_do_not_come_up_are_told_with_their_console() {
    let dir = super::open_folder();
    let daemon = daemon(dir.path());
    let limit = Duration::from_secs(5 + 10);
    let (kernel, init) = (dir.path().join("bzImage"), dir.path().join("initramfs.cpio"));

    // Without /init the kernel has no root file system.
    let (out, took) = fails_then_works(&daemon, "90s", &init, &initramfs("nothing", b"x"));
    assert!(out.stderr.contains("Kernel panic - not syncing"), "{}", out.stderr);
    // It ends by itself.
    assert!(took < Duration::from_secs(60), "{took:?}");

    let (out, took) = fails_then_works(&daemon, "5s", &init, &initramfs("init", &sleeper()));
    for words in ["no answer of the guest within 5s", "bootTimeout", "saboteur: I will not answer"] {
        assert!(out.stderr.contains(words), "{words:?} lacks: {}", out.stderr);
    }
    assert!((Duration::from_secs(5)..limit).contains(&took), "{took:?}");

    let (out, took) = fails_then_works(&daemon, "5s", &kernel, &deaf_kernel());
    for words in ["no answer of the guest within 5s", "the console is empty"] {
        assert!(out.stderr.contains(words), "{words:?} lacks: {}", out.stderr);
    }
    assert!((Duration::from_secs(5)..limit).contains(&took), "{took:?}");

    // What is no kernel at all.
    let (out, _) = fails_then_works(&daemon, "5s", &kernel, &vec![0x5a; 100_000]);
    assert!(
        out.stderr.contains("QEMU: exit status") || out.stderr.contains("no answer of the guest"),
        "{}",
        out.stderr
    );

    // `docker run` leaves nothing half-made either.
    fs::write(&init, b"not an archive").unwrap();
    let out = daemon.docker().sh("run --rm busybox true");
    out.fails(125, "boot the VM: ");
    assert_eq!(daemon.docker().sh("ps -aq").ok(), "");
}
