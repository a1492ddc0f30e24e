//! What a home has that it should not have: processes, sockets, files, and containers that cannot be used.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::daemon::Daemon;

/// Files of a home, beside those of [`FOLDERS`].
const FILES: [&str; 7] =
    ["config.json", "daemon.lock", "daemon.log", "daemon.log.1", "arca.sock", "store.redb", "client"];
const FOLDERS: [&str; 4] = ["containers", "images", "run", "templates"];
/// What a container's folder may have, beside its log.
const CONTAINER: [&str; 7] =
    ["disk.img", "vm.json", "exit.json", "exit.room", "console.log", "runner.log", "files"];
/// Digits of an id in names.
const SHORT: usize = 12;

/// A process that has to do with a home.
#[derive(Debug)]
struct Process {
    pid: u32,
    words: Vec<String>,
}

impl Process {
    /// The container whose runner this is.
    fn runner_of(&self) -> Option<&str> {
        let spec = self.words.iter().position(|word| word == "--spec")?;
        self.words.get(spec + 1)?.split("/containers/").nth(1)?.split('/').next()
    }

    /// The short id of the container whose QEMU this is.
    fn qemu_of(&self) -> Option<&str> {
        let name = self.words.iter().position(|word| word == "-name")?;
        self.words.get(name + 1)?.strip_prefix("arca-")
    }
}

/// Everything in the daemon's home that nobody needs, one line each; a daemon must run.
///
/// # Panics
/// When `docker ps` fails.
#[must_use]
#[track_caller]
pub fn strays(daemon: &Daemon) -> Vec<String> {
    let listed = daemon.docker().run(&["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.State}}"]);
    let states: BTreeMap<&str, &str> = listed.ok().lines().filter_map(|line| line.split_once(' ')).collect();
    let running: Vec<&str> =
        states.iter().filter(|(_, state)| ["running", "paused"].contains(state)).map(|(id, _)| *id).collect();
    let mut found = Vec::new();
    processes(daemon, &running, &mut found);
    files(daemon.home(), &states, &running, &mut found);
    found
}

/// Waits until there are none: a VM takes a moment to power off.
///
/// # Panics
/// With the list, when there are some after `limit`: this is a test's assertion.
#[track_caller]
pub fn assert_none(daemon: &Daemon, limit: Duration) {
    let deadline = Instant::now() + limit;
    loop {
        let found = strays(daemon);
        if found.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "after {limit:?} there are still:\n{}", found.join("\n"));
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Every container in `docker ps -a` can be inspected and its log read, and what they say fits.
///
/// # Panics
/// When not: this is a test's assertion.
#[track_caller]
pub fn assert_consistent(daemon: &Daemon) {
    let docker = daemon.docker();
    let listed = docker.run(&["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}}"]);
    let mut names: Vec<&str> = Vec::new();
    for (id, name) in listed.ok().lines().filter_map(|line| line.split_once(' ')) {
        let seen =
            docker.run(&["inspect", "-f", "{{.ID}} {{.Name}} {{.State.Status}} {{.State.Running}}", id]);
        let seen: Vec<&str> = seen.ok().split(' ').collect();
        assert_eq!(seen[..2], [id, &format!("/{name}")]);
        assert_eq!(seen[3] == "true", ["running", "paused"].contains(&seen[2]), "{seen:?}");
        assert_ne!(seen[2], "removing", "{name} hangs in its removal");
        let by_name = docker.run(&["inspect", "-f", "{{.ID}}", name]);
        assert_eq!(by_name.ok(), id, "{name} is another container");
        let log = docker.run(&["logs", "--tail", "3", id]);
        assert_eq!(log.code, 0, "logs of {name}: {}", log.stderr);
        assert!(!names.contains(&name), "{name} is there twice");
        names.push(name);
    }
}

/// Each running container has one runner and one QEMU, and there is nobody else.
fn processes(daemon: &Daemon, running: &[&str], found: &mut Vec<String>) {
    let all = processes_of(daemon.home());
    for id in running {
        let runners = all.iter().filter(|process| process.runner_of() == Some(id)).count();
        let qemus = all.iter().filter(|process| process.qemu_of() == id.get(..SHORT)).count();
        if (runners, qemus) != (1, 1) {
            found.push(format!("running container {id} has {runners} runners and {qemus} QEMUs"));
        }
    }
    let expected = |process: &Process| {
        Some(process.pid) == daemon.pid()
            || process.runner_of().is_some_and(|id| running.contains(&id))
            || process.qemu_of().is_some_and(|short| running.iter().any(|id| id.starts_with(short)))
    };
    for process in all.iter().filter(|process| !expected(process)) {
        found.push(format!("process {} {}", process.pid, process.words.join(" ")));
    }
}

/// Processes that name the home in their command line, are in it, or have a file of it open; clients excepted.
fn processes_of(home: &Path) -> Vec<Process> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let text = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<String> =
            text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let is_client = words[0].ends_with("docker") || words.iter().any(|word| word == "start");
        if pid == std::process::id() || is_client {
            continue;
        }
        let inside = |path: PathBuf| path.starts_with(home) && !path.starts_with(home.join("client"));
        let links = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten().map(|fd| fd.path());
        let mut links = links.chain([entry.path().join("cwd")]);
        let home = home.to_string_lossy();
        let named = words.iter().any(|word| word.contains(&*home));
        if named || links.any(|link| fs::read_link(link).is_ok_and(inside)) {
            all.push(Process { pid, words });
        }
    }
    all
}

fn files(home: &Path, states: &BTreeMap<&str, &str>, running: &[&str], found: &mut Vec<String>) {
    let mut stray = |path: PathBuf| found.push(format!("file {}", path.display()));
    for (name, path) in entries(home) {
        if !FILES.contains(&&*name) && !FOLDERS.contains(&&*name) {
            stray(path);
        }
    }
    for (id, path) in entries(&home.join("containers")) {
        if !states.contains_key(&*id) {
            stray(path);
            continue;
        }
        for (name, path) in entries(&path) {
            if !CONTAINER.contains(&&*name) && !name.starts_with(&format!("{id}-json.log")) {
                stray(path);
            }
        }
    }
    for (name, path) in entries(&home.join("run")) {
        if !states.keys().any(|id| id.get(..SHORT) == Some(&name)) {
            stray(path);
        } else if !running.iter().any(|id| id.starts_with(&name)) {
            for (_, path) in entries(&path) {
                if fs::metadata(&path).is_ok_and(|file| file.file_type().is_socket()) {
                    stray(path);
                }
            }
        }
    }
    for (name, path) in entries(&home.join("templates")) {
        if !name.ends_with(".img") {
            stray(path);
        }
    }
    for (_, path) in entries(&home.join("images/tmp")) {
        stray(path);
    }
}

fn entries(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect()
}
