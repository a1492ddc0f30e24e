//! A disk that is full, or read-only.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tests::{
    daemon::{Daemon, Setup},
    vm::{Vm, signal},
    wait::eventually,
};

use super::{is_root, prepare, refused};

/// `unshare` for a mount namespace; where that is not to be had the test says so.
pub(crate) fn unshare() -> Option<Vec<String>> {
    let words: &[&str] = if is_root() { &["unshare", "-m"] } else { &["unshare", "-r", "-m"] };
    let works = Command::new(words[0]).args(&words[1..]).arg("true").status().is_ok_and(|s| s.success());
    if !works {
        println!("skipped: this user may not make a mount namespace");
    }
    works.then(|| words.iter().map(|word| (*word).to_owned()).collect())
}

/// A file system of its own for a home, in a mount namespace.
struct Disk {
    /// Keeps the namespace until its standard input is closed.
    holder: Child,
    /// Where the mount is, seen from here and in the namespace.
    mounted: PathBuf,
    folder: tempfile::TempDir,
}

impl Disk {
    fn mount(mib: u32) -> Option<Self> {
        let unshare = unshare()?;
        let folder = super::open_folder();
        let home = folder.path().join("h");
        fs::create_dir(&home).unwrap();
        let script = format!(
            "mount -t tmpfs -o size={mib}m,mode=700 none {} && echo there; read -r _",
            home.display()
        );
        let mut holder = Command::new(&unshare[0])
            .args(&unshare[1..])
            .args(["sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 6];
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut said).unwrap();
        let mounted = PathBuf::from(format!("/proc/{}/root{}", holder.id(), home.display()));
        Some(Self { holder, mounted, folder })
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("h")
    }

    /// Words in front of a command that is to see it.
    fn enter(&self) -> Vec<String> {
        let pid = self.holder.id().to_string();
        let words: &[&str] = if is_root() {
            &["nsenter", "-m", "-t"]
        } else {
            &["nsenter", "-U", "--preserve-credentials", "-m", "-t"]
        };
        words.iter().map(|word| (*word).to_owned()).chain([pid, "--".into()]).collect()
    }

    /// A daemon on it, reached by a socket beside it.
    fn daemon(&self, mut config: Value) -> Daemon {
        let socket = self.folder.path().join("arca.sock");
        config["socketPath"] = json!(socket);
        fs::write(self.mounted.join("config.json"), config.to_string()).unwrap();
        prepare(Setup {
            config: Value::Null,
            home: Some(self.home()),
            socket: Some(socket),
            wrapper: self.enter(),
            ..Setup::default()
        })
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let mut file =
            fs::OpenOptions::new().create(true).append(true).open(self.mounted.join("filler")).unwrap();
        for size in [1 << 20, 4096, 1] {
            let block = vec![0x55; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.mounted.join("filler")).unwrap();
    }

    fn remount(&self, how: &str) {
        let mut words = self.enter();
        words.extend(["mount", "-o", &format!("remount,{how}")].map(str::to_owned));
        let done = Command::new(&words[0]).args(&words[1..]).arg(self.home()).status().unwrap();
        assert!(done.success());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.mounted.join(name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

/// SPEC E5
#[test]
fn on_a_full_disk_nothing_is_lost_and_what_makes_room_works() {
    let Some(disk) = Disk::mount(96) else { return };
    let daemon = disk.daemon(json!({}));
    let docker = daemon.docker();
    daemon.arca(&["daemon", "start"]).unwrap();
    daemon.load("busybox").unwrap();
    docker
        .run(&[
            "run",
            "-d",
            "--name",
            "talker",
            "busybox",
            "sh",
            "-c",
            "echo before; trap 'echo bye; exit 7' TERM; while :; do sleep 1; done",
        ])
        .ok();
    docker.sh("create --name made busybox echo made").ok();
    docker.sh("create --name goner busybox true").ok();
    eventually("the first line", Duration::from_secs(20), || docker.sh("logs talker").stdout == "before\n");
    disk.fill();

    // What needs room says so, and leaves nothing half-made.
    let containers = count(&disk.path("containers"));
    for (words, code) in
        [("create --name new busybox true", 1), ("run --rm busybox true", 125), ("start made", 1)]
    {
        let out = docker.sh(words);
        assert!(out.code == code && out.stderr.contains("No space left on device"), "{words}: {out:?}");
    }
    let again = tests::cache::images().join("redis.docker.tar");
    let out = docker.run(&["load", "-q", "-i", &again.to_string_lossy()]);
    assert!(out.code == 1 && out.stderr.contains("No space left on device"), "{out:?}");
    assert_eq!(count(&disk.path("containers")), containers);
    assert!(!docker.sh("ps -a --format {{.Names}}").ok().contains("new"));
    assert_eq!(docker.sh("images -q").ok().lines().count(), 1);

    // What does not need any works.
    assert_eq!(docker.sh("logs talker").ok(), "before");
    assert_eq!(docker.sh("exec talker echo still").ok(), "still");
    assert_eq!(docker.sh("inspect -f {{.State.Running}} talker").ok(), "true");
    docker.sh("stop -t 20 talker").ok();
    assert_eq!(docker.sh("inspect -f {{.State.Status}}:{{.State.ExitCode}} talker").ok(), "exited:7");
    docker.sh("rm goner").ok();
    daemon.arca(&["daemon", "stop"]).unwrap();
    disk.fill();
    daemon.arca(&["daemon", "start"]).unwrap();
    assert_eq!(docker.sh("inspect -f {{.State.Status}}:{{.State.ExitCode}} talker").ok(), "exited:7");

    // With room again everything works, without a restart.
    disk.free();
    assert_eq!(docker.sh("start -a made").ok(), "made");
    assert_eq!(docker.sh("run --rm busybox echo new").ok(), "new");
    docker.sh("start talker").ok();
    eventually("both runs' lines", Duration::from_secs(20), || {
        docker.sh("logs talker").stdout.matches("before\n").count() == 2
    });
    docker.sh("rm -f talker made").ok();
    assert_eq!(docker.sh("ps -aq").ok().lines().count(), count(&disk.path("containers")));
}

/// SPEC E5, E18
#[test]
fn a_daemon_that_cannot_start_on_a_full_disk_says_so_on_the_terminal() {
    let Some(disk) = Disk::mount(8) else { return };
    let daemon = disk.daemon(json!({}));
    disk.fill();
    refused(&daemon, &["No space left on device", "free some space"]);
    disk.free();
    daemon.arca(&["daemon", "start"]).unwrap();
}

/// SPEC E6, V2
#[test]
fn a_container_that_fills_the_hosts_disk_waits_until_there_is_room() {
    let Some(disk) = Disk::mount(128) else { return };
    let daemon = disk.daemon(json!({}));
    let docker = daemon.docker();
    daemon.arca(&["daemon", "start"]).unwrap();
    daemon.load("busybox").unwrap();
    let write = "i=0; while [ $i -lt 24 ]; do head -c 1048576 /dev/urandom >>/data; sync; i=$((i+1)); done; sha256sum </data; \
                 sync; wc -c </data; sleep 600";
    docker.run(&["run", "-d", "--name", "writer", "busybox", "sh", "-c", write]).ok();
    let state = disk.path("containers").join(docker.sh("inspect -f {{.Id}} writer").ok());
    let told = || fs::read_to_string(state.join("runner.log")).unwrap_or_default();
    disk.fill();
    eventually("the VM waits", Duration::from_secs(90), || {
        told().contains("the host's disk is full: the VM waits")
    });
    // Longer than a silent guest is waited for.
    std::thread::sleep(Duration::from_secs(35));
    let now = docker.sh("inspect -f {{.State.Status}}:{{.State.ExitCode}}:{{.State.Error}} writer");
    assert_eq!(now.ok(), "running:0:", "{}\n{}", docker.sh("logs writer").stderr, told());
    assert_eq!(docker.sh("logs writer").ok(), "");

    disk.remount("size=256m");
    eventually("the VM goes on", Duration::from_secs(120), || {
        docker.sh("logs writer").stdout.contains("25165824")
    });
    assert_eq!(docker.sh("exec writer wc -c /data").ok(), "25165824 /data");
    let sum = docker.sh("exec writer sha256sum /data").ok().split(' ').next().unwrap().to_owned();
    assert!(docker.sh("logs writer").stdout.contains(&sum));
    // What it wrote is on the disk, whole, after a fresh boot too.
    docker.sh("restart -t 1 writer").ok();
    let again = docker.sh("exec writer head -c 25165824 /data");
    assert_eq!(again.code, 0);

    // A QEMU that hangs while there is no room is ended like any other: it does not wait for room.
    let waits = "the host's disk is full: the VM waits";
    let before = told().matches(waits).count();
    let more = "while :; do head -c 1048576 /dev/urandom >>/data; sync; done";
    docker.run(&["exec", "-d", "writer", "sh", "-c", more]).ok();
    disk.fill();
    eventually("the VM waits again", Duration::from_secs(90), || told().matches(waits).count() > before);
    signal(Vm::of(&daemon, "writer").qemu, "STOP");
    let state =
        || docker.sh("inspect -f {{.State.Status}}:{{.State.ExitCode}}:{{.State.Error}} writer").stdout;
    eventually("the VM is ended", Duration::from_secs(90), || state().starts_with("exited:137:"));
    assert!(state().contains("the guest did not answer for 30s: QEMU is stopped"), "{}", state());
}

/// SPEC E7
#[test]
fn a_read_only_home_is_refused_and_served_again_when_it_is_writable() {
    let Some(disk) = Disk::mount(64) else { return };
    let daemon = disk.daemon(json!({}));
    daemon.arca(&["daemon", "start"]).unwrap();
    daemon.load("busybox").unwrap();
    let docker = daemon.docker();
    daemon.arca(&["daemon", "stop"]).unwrap();
    disk.remount("ro");
    refused(&daemon, &["Read-only file system", "make that file system writable"]);
    let doctor = daemon.try_arca(&["doctor"]).unwrap();
    assert!(
        doctor.code == 1 && doctor.stdout.contains("-> make that file system writable"),
        "{}",
        doctor.stdout
    );
    disk.remount("rw");
    daemon.arca(&["daemon", "start"]).unwrap();
    assert_eq!(docker.sh("run --rm busybox echo back").ok(), "back");
}
