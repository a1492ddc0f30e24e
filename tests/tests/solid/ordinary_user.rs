//! The daemon as an ordinary user.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
};

use serde_json::json;
use tests::{
    cache,
    daemon::{Daemon, Setup},
};

use crate::environment::boot::elf;

/// A user that no distribution has.
const UID: u32 = 12345;

/// Somebody without rights, with copies of what is needed where they can be reached.
pub(crate) struct User {
    uid: u32,
    folder: tempfile::TempDir,
    wrapper: Vec<String>,
}

impl User {
    /// As root another user, else the one whom the test runs as. `None`, with the reason printed, where there is none.
    pub(crate) fn new() -> Option<Self> {
        let root = fs::metadata("/proc/self").unwrap().uid() == 0;
        let wrapper =
            ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", "--"].map(str::to_owned);
        let wrapper = if root { wrapper.to_vec() } else { Vec::new() };
        if let Some((program, options)) = wrapper.split_first()
            && !std::process::Command::new(program)
                .args(options)
                .arg("true")
                .status()
                .is_ok_and(|s| s.success())
        {
            println!("skipped: root may not become another user here");
            return None;
        }
        let open = fs::Permissions::from_mode(0o755);
        let folder = tempfile::Builder::new().prefix("arca-t").permissions(open.clone()).tempdir().unwrap();
        for (from, name) in [
            (cache::arca(), "arca"),
            (cache::current().join("bzImage"), "bzImage"),
            (cache::current().join("initramfs.cpio"), "initramfs.cpio"),
        ] {
            cache::copy_program(&from, &folder.path().join(name)).unwrap();
            fs::set_permissions(folder.path().join(name), open.clone()).unwrap();
        }
        let uid = if root { UID } else { fs::metadata(folder.path()).unwrap().uid() };
        Some(Self { uid, folder, wrapper })
    }

    /// A daemon of this user, each command of which `inner` runs.
    pub(crate) fn daemon(&self, inner: &[&str]) -> Daemon {
        let path = |name: &str| self.folder.path().join(name);
        let home = path("user/.arca");
        fs::create_dir_all(&home).unwrap();
        for folder in [path("user"), home.clone()] {
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
            chown(&folder, Some(self.uid), Some(self.uid))
                .or_else(|e| if self.wrapper.is_empty() { Ok(()) } else { Err(e) })
                .unwrap();
        }
        let mut wrapper = self.wrapper.clone();
        wrapper.extend(inner.iter().map(|word| (*word).to_owned()));
        let env = vec![("HOME".to_owned(), path("user").to_string_lossy().into_owned())];
        let config = json!({ "kernelPath": path("bzImage"), "initramfsPath": path("initramfs.cpio") });
        Daemon::prepare(Setup {
            config,
            home: Some(home),
            arca: Some(path("arca")),
            wrapper,
            env,
            ..Setup::default()
        })
        .unwrap()
    }
}

/// A line of a process' status, without its name.
fn status(pid: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').split_whitespace().collect::<Vec<_>>().join(" ")
}

/// This process and all below it.
fn family(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let below = children.split_whitespace().filter_map(|child| child.parse().ok()).flat_map(family);
    std::iter::once(pid).chain(below).collect()
}

fn private(folder: &Path, uid: u32) -> usize {
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, found) = (entry.path(), entry.metadata().unwrap());
        // Made by the test.
        if path.ends_with("client") || path.ends_with("config.json") {
            continue;
        }
        seen += 1;
        let allowed = if path.ends_with("arca.sock") { 0o660 } else { 0o700 };
        assert_eq!(found.mode() & 0o777 & !allowed, 0, "{} {:o}", path.display(), found.mode());
        assert_eq!(found.uid(), uid, "{}", path.display());
        if found.is_dir() {
            seen += private(&path, uid);
        }
    }
    seen
}

/// SPEC P20, P21
#[test]
fn everything_works_without_any_right() {
    let Some(user) = User::new() else { return };
    let daemon = user.daemon(&[]);
    let started = daemon.arca(&["daemon", "start"]).unwrap();
    assert!(started.stdout.contains("user/.arca/arca.sock"), "{}", started.stdout);
    daemon.load("busybox").unwrap();
    let docker = daemon.docker();
    assert_eq!(docker.sh("run --rm busybox id -u").ok(), "0");
    docker
        .run(&["run", "-d", "--name", "c1", "busybox", "sh", "-c", "echo out; echo err >&2; exec sleep 600"])
        .ok();
    assert_eq!(docker.sh("exec c1 whoami").ok(), "root");

    // Owners and modes inside are the container's, whoever owns its disk.
    docker
        .run(&["exec", "c1", "sh", "-c", "echo data >/file && chown 1001:1002 /file && chmod 640 /file"])
        .ok();
    assert_eq!(docker.sh("exec c1 stat -c %u:%g:%a /file").ok(), "1001:1002:640");
    docker.sh("exec -u 1001 c1 cat /file").ok();
    assert_eq!(docker.sh("exec -u 1003 c1 cat /file").code, 1);
    // exit(geteuid() != 0)
    let program = [0xb8, 107, 0, 0, 0, 0x0f, 0x05, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
    let file = user.folder.path().join("euid");
    fs::write(&file, elf(&program)).unwrap();
    docker.run(&["cp", &file.to_string_lossy(), "c1:/euid"]).ok();
    docker.sh("exec c1 chown 0:0 /euid").ok();
    docker.sh("exec c1 chmod 755 /euid").ok();
    assert_eq!(docker.sh("exec -u 7 c1 /euid").code, 7);
    docker.sh("exec c1 chmod 4755 /euid").ok();
    assert_eq!(docker.sh("exec -u 7 c1 /euid").code, 0);
    let back = user.folder.path().join("back");
    docker.run(&["cp", "c1:/file", &back.to_string_lossy()]).ok();
    assert_eq!(fs::read_to_string(back).unwrap(), "data\n");
    assert_eq!(docker.sh("logs c1").stdout, "out\n");

    // Nothing of it has a right more than the user has.
    let runner: serde_json::Value = {
        let run = fs::read_dir(daemon.home().join("run")).unwrap().next().unwrap().unwrap().path();
        serde_json::from_slice(&fs::read(run.join("runner.lock")).unwrap()).unwrap()
    };
    let runner = u32::try_from(runner["pid"].as_u64().unwrap()).unwrap();
    let processes: Vec<u32> = family(daemon.pid().unwrap()).into_iter().chain(family(runner)).collect();
    let qemu = processes.iter().find(|pid| status(**pid, "Name").starts_with("qemu"));
    assert!(qemu.is_some(), "no QEMU among {processes:?}");
    let ids = [user.uid; 4].map(|id| id.to_string()).join(" ");
    for pid in processes {
        assert_eq!(status(pid, "Uid"), ids, "{}", status(pid, "Name"));
        assert_eq!(status(pid, "CapEff"), "0000000000000000", "{}", status(pid, "Name"));
        if !user.wrapper.is_empty() {
            assert_eq!(status(pid, "Groups"), "", "{}", status(pid, "Name"));
        }
    }
    let seen = private(daemon.home(), user.uid);
    assert!(seen > 20, "{seen}");

    // A daemon of root keeps its hands off it.
    if !user.wrapper.is_empty() {
        let mut root = std::process::Command::new(cache::arca());
        root.args(["daemon", "start"]).env("ARCA_HOME", daemon.home());
        let out = tests::docker::finish(root, Vec::new(), std::time::Duration::from_secs(60)).unwrap();
        assert!(out.code != 0 || out.stdout.contains("already"), "{out:?}");
    }
    daemon.arca(&["daemon", "stop"]).unwrap();
    daemon.arca(&["daemon", "start"]).unwrap();
    assert_eq!(docker.sh("exec c1 echo adopted").ok(), "adopted");
    docker.sh("stop -t 1 c1").ok();
    docker.sh("start c1").ok();
    assert_eq!(docker.sh("exec c1 stat -c %u:%g:%a /file /euid").ok(), "1001:1002:640\n0:0:4755");
    docker.sh("rm -f c1").ok();
}

/// SPEC E14
#[test]
fn a_kvm_device_that_may_not_be_used_is_told() {
    let Some(user) = User::new() else { return };
    let daemon = user.daemon(&[]);
    let doctor = daemon.try_arca(&["doctor"]).unwrap();
    assert_eq!(doctor.code, 0, "{}", doctor.stdout);
    let kvm = fs::metadata("/dev/kvm").is_ok_and(|m| m.mode() & 0o006 != 0o006);
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = flags.split_whitespace().any(|word| word == "vmx" || word == "svm");
    let line = doctor.stdout.lines().find(|line| line.contains("/dev/kvm")).unwrap();
    match (flags, kvm) {
        (false, _) => assert!(line.starts_with("warn") && line.contains("no vmx or svm flag"), "{line}"),
        (true, true) => assert!(line.starts_with("warn") && line.contains("may not be used"), "{line}"),
        (true, false) => {}
    }
    if !flags || kvm {
        assert!(doctor.stdout.contains("VMs are emulated: "), "{}", doctor.stdout);
    }
}

/// SPEC E1
#[test]
fn a_kernel_that_may_not_be_read_is_refused() {
    let Some(user) = User::new() else { return };
    let daemon = user.daemon(&[]);
    let kernel = user.folder.path().join("bzImage");
    fs::set_permissions(&kernel, fs::Permissions::from_mode(0o000)).unwrap();
    let out = daemon.try_arca(&["daemon", "start"]).unwrap();
    out.fails(1, "cannot be read: Permission denied");
    assert!(
        out.stderr.contains(kernel.to_str().unwrap()) && out.stderr.contains("correct it"),
        "{}",
        out.stderr
    );
}
