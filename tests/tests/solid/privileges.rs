//! What a VM's processes may do on the host.

use std::{
    collections::BTreeSet,
    fs,
    ops::RangeInclusive,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tests::{daemon::Daemon, vm::Vm};

use crate::support::{eventually, name, shared};

/// Users of a VM's own, and the one for all where those are not mapped.
const OWN: RangeInclusive<u32> = 0x7000_0000..=0x7fff_ffff;
const NOBODY: RangeInclusive<u32> = 65_534..=65_534;

fn is_root() -> bool {
    let root = field(std::process::id(), "Uid").starts_with("0\t") && users().is_some();
    if !root {
        eprintln!("SKIPPED: only root can give a VM another user");
    }
    root
}

/// Users that QEMU may have here, the first that this user namespace has: one of its own, or nobody.
fn users() -> Option<RangeInclusive<u32>> {
    let [uids, gids] =
        ["uid_map", "gid_map"].map(|map| fs::read_to_string(format!("/proc/self/{map}")).unwrap());
    let has = |map: &str, id: u32| {
        map.lines().any(|line| {
            let fields: Vec<u64> = line.split_whitespace().map(|field| field.parse().unwrap()).collect();
            (fields[0]..fields[0] + fields[2]).contains(&u64::from(id))
        })
    };
    [OWN, NOBODY]
        .into_iter()
        .find(|users| [users.start(), users.end()].iter().all(|id| has(&uids, **id) && has(&gids, **id)))
}

/// A line of `/proc/PID/status`.
fn field(pid: u32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{key}:")));
    line.unwrap_or_else(|| panic!("no {key}")).trim().to_owned()
}

/// A container that runs until it is dropped.
struct Container<'a>(&'a Daemon, Vm);

impl<'a> Container<'a> {
    fn run(daemon: &'a Daemon) -> Self {
        let name = name("user");
        daemon.docker().run(&["run", "-d", "--name", &name, "busybox", "sleep", "1000000"]).ok();
        Self(daemon, Vm::of(daemon, &name))
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = self.0.docker().run(&["rm", "-f", &self.1.id]);
    }
}

/// The number that is user and group of a process, real, effective, saved and of files.
fn user(pid: u32) -> u32 {
    let all: BTreeSet<String> = [field(pid, "Uid"), field(pid, "Gid")]
        .iter()
        .flat_map(|ids| ids.split('\t'))
        .map(str::to_owned)
        .collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all.first().unwrap().parse().unwrap()
}

/// SPEC P1, P2
#[test]
fn each_qemu_is_a_user_of_its_own_without_any_right() {
    let [a, b] = [Container::run(shared()), Container::run(shared())];
    for vm in [&a.1, &b.1] {
        assert_eq!(field(vm.qemu, "NoNewPrivs"), "1");
        assert_eq!(field(vm.qemu, "Seccomp"), "2", "a filter");
        let limits = fs::read_to_string(format!("/proc/{}/limits", vm.qemu)).unwrap();
        let hard = |what: &str| {
            let line = limits.lines().find_map(|line| line.strip_prefix(what)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        assert_eq!((&*hard("Max core file size"), &*hard("Max open files")), ("0", "1024"));
        let largest =
            fs::metadata(shared().home().join("containers").join(&vm.id).join("disk.img")).unwrap().len();
        assert_eq!(hard("Max file size"), largest.to_string());
        let score = |pid: u32| {
            fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().parse::<i32>()
        };
        assert!(score(vm.qemu).unwrap() > score(vm.runner).unwrap());
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            let none = u64::from_str_radix(&field(vm.qemu, set), 16).unwrap() == 0;
            assert!(none, "{set}");
        }
    }
    if !is_root() {
        return;
    }
    for vm in [&a.1, &b.1] {
        assert_eq!(field(vm.qemu, "Groups"), "");
        assert_eq!(field(vm.qemu, "CapBnd").trim_start_matches('0'), "");
        assert!(users().unwrap().contains(&user(vm.qemu)), "{}", user(vm.qemu));
    }
    assert!(user(a.1.qemu) != user(b.1.qemu) || users() == Some(NOBODY));
}

/// Everything below a folder that is a file or a socket.
fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files(&entry.path(), found);
        } else if kind.is_file() || kind.is_socket() {
            found.push(entry.path());
        }
    }
}

/// SPEC P3
#[test]
fn that_user_opens_nothing_of_the_daemon_by_its_path() {
    let container = Container::run(shared());
    let qemu = container.1.qemu;
    // Whoever QEMU is, it is told no path of the daemon, and is not inside.
    let home = shared().home().canonicalize().unwrap();
    let words = fs::read(format!("/proc/{qemu}/cmdline")).unwrap();
    assert!(!String::from_utf8_lossy(&words).contains(&*home.to_string_lossy()));
    assert_eq!(fs::read_link(format!("/proc/{qemu}/cwd")).unwrap(), Path::new("/"));
    if !is_root() {
        return;
    }
    let user = user(qemu);
    let may = |right: &str, path: &Path| {
        let as_user = Command::new("setpriv")
            .args([format!("--reuid={user}"), format!("--regid={user}")])
            .args(["--clear-groups", "test", right])
            .arg(path)
            .status()
            .unwrap();
        as_user.success()
    };
    assert!(may("-r", Path::new("/proc/self/status")), "the test's own way works");
    let mut all = Vec::new();
    files(&home, &mut all);
    // These two are the test's own.
    all.retain(|path| *path != home.join("config.json") && !path.starts_with(home.join("client")));
    for wanted in ["disk.img", "runner.sock", "vsock.sock", "arca.sock", "store.redb", "vm.json"] {
        assert!(all.iter().any(|path| path.ends_with(wanted)), "no {wanted} in {all:?}");
    }
    let open: Vec<_> = all.iter().filter(|path| may("-r", path) || may("-w", path)).collect();
    assert!(open.is_empty(), "{open:?}");
}

/// SPEC P4
#[test]
fn it_holds_no_file_but_its_own() {
    let container = Container::run(shared());
    let home = shared().home().canonicalize().unwrap();
    let links = fs::read_dir(format!("/proc/{}/fd", container.1.qemu)).unwrap().flatten();
    let open: BTreeSet<PathBuf> = links.filter_map(|link| fs::read_link(link.path()).ok()).collect();
    let inside: Vec<_> = open.iter().filter(|path| path.starts_with(&home)).collect();
    let own = home.join("containers").join(&container.1.id).join("disk.img");
    let layers = home.join("images/disks");
    assert!(inside.contains(&&own), "{inside:?}");
    assert!(inside.iter().all(|path| **path == own || path.starts_with(&layers)), "{inside:?}");
}

/// SPEC P5
#[test]
fn its_writable_disk_is_locked_while_it_runs() {
    let container = Container::run(shared());
    let disk = shared().home().join("containers").join(&container.1.id).join("disk.img");
    let inode = format!(":{}", fs::metadata(disk).unwrap().ino());
    let is_locked = || {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        locks
            .lines()
            .any(|line| line.contains("OFDLCK") && line.split_whitespace().any(|word| word.ends_with(&inode)))
    };
    assert!(is_locked());
    shared().docker().run(&["kill", &container.1.id]).ok();
    eventually("the lock is gone", Duration::from_secs(10), || !is_locked());
}
