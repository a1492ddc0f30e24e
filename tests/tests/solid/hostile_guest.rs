//! A VM whose PID 1 does what it should not: only its own container ends.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use tests::{
    daemon::{Daemon, Setup},
    docker::{Docker, Output},
    saboteur, strays,
};

use super::support::{eventually, name};

/// For guests that never answer, and for those that do.
const SHORT_BOOT: &str = "8s";
const LONG_BOOT: &str = "90s";
/// For an answer of a container that has nothing to do with it.
const BYSTANDER: Duration = Duration::from_secs(20);
/// For any command on a hostile guest's container: a boot that is waited for, and the deadlines of a few calls.
const LIMIT: Duration = Duration::from_secs(120);
/// Memory of the daemon or of a runner, at its highest.
const MOST_MEMORY: u64 = 256 << 20;

/// A daemon of the test's own with one good container.
struct World {
    daemon: Daemon,
    /// What the daemon's VMs boot; only one lies there at a time.
    initramfs: Mutex<PathBuf>,
    good: String,
}

impl World {
    fn new(boot: &str) -> Self {
        saboteur::program().unwrap();
        let daemon = Daemon::prepare(Setup::default()).unwrap();
        let initramfs = daemon.home().join("client/initramfs.cpio");
        saboteur::real_initramfs(&initramfs).unwrap();
        let config = json!({ "initramfsPath": initramfs, "bootTimeout": boot });
        std::fs::write(daemon.home().join("config.json"), config.to_string()).unwrap();
        daemon.arca(&["daemon", "start"]).unwrap();
        daemon.load("busybox").unwrap();
        let good = name("good");
        // A busy machine may need more than one try within that boot timeout.
        for _ in 0..5 {
            let run = daemon.docker().run(&["run", "-d", "--name", &good, "busybox", "sleep", "3600"]);
            if run.code == 0 {
                break;
            }
            let _ = daemon.docker().run(&["rm", "-f", &good]);
        }
        Self { daemon, initramfs: Mutex::new(initramfs), good }
    }

    /// Does the work for each case, so many at a time, and fails when one does.
    fn side_by_side<T: Send>(cases: impl IntoIterator<Item = T>, many: usize, work: impl Fn(T) + Sync) {
        let cases: Vec<T> = cases.into_iter().collect();
        let cases = Mutex::new(cases.into_iter());
        let next = || cases.lock().unwrap_or_else(PoisonError::into_inner).next();
        thread::scope(|scope| {
            for _ in 0..many {
                scope.spawn(|| {
                    while let Some(case) = next() {
                        work(case);
                    }
                });
            }
        });
    }

    fn docker(&self) -> &Docker {
        self.daemon.docker()
    }

    #[track_caller]
    fn others_are_unharmed(&self) {
        let out = self.docker().run_with(&["exec", &self.good, "echo", "unharmed"], Vec::new(), BYSTANDER);
        assert_eq!(out.ok(), "unharmed");
        for pid in pids(self.daemon.home()) {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let Some(line) = status.lines().find(|line| line.starts_with("VmHWM:")) else { continue };
            let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
            assert!(kib << 10 < MOST_MEMORY, "process {pid} took {kib} KiB");
        }
        let log = std::fs::read(self.daemon.home().join("daemon.log")).unwrap_or_default();
        assert!(
            !log.windows(2).any(|two| two == b"\x1b]"),
            "a guest's words are in the daemon's log unescaped"
        );
    }
}

/// A container in a hostile VM; removed whatever happens.
struct Hostile<'a> {
    world: &'a World,
    name: String,
    run: Option<thread::JoinHandle<Output>>,
}

impl<'a> Hostile<'a> {
    /// Runs a container in a VM with this initramfs; returns once its PID 1 has said so.
    fn boot(world: &'a World, mode: &str, options: &[&str], command: &str) -> Self {
        let initramfs = world.initramfs.lock().unwrap_or_else(PoisonError::into_inner);
        saboteur::initramfs(mode, &initramfs).unwrap();
        let name = name("hostile");
        let args: Vec<String> = ["run", "-d", "--name", &name]
            .iter()
            .chain(options)
            .chain(&["busybox", command, "1000"])
            .map(ToString::to_string)
            .collect();
        let docker = world.docker().clone();
        let run = thread::spawn(move || docker.run_with(&args, Vec::new(), LIMIT));
        let greeting = format!("saboteur {mode}");
        eventually(&greeting, LIMIT, || run.is_finished() || consoles_say(world, &name, &greeting));
        drop(initramfs);
        Self { world, name, run: Some(run) }
    }

    /// What `docker run` said in the end.
    #[track_caller]
    fn outcome(&mut self) -> Output {
        let out = self.run.take().unwrap().join().unwrap();
        assert_harmless(&out);
        out
    }

    #[track_caller]
    fn inspect(&self, what: &str) -> String {
        self.world.docker().run(&["inspect", "-f", what, &self.name]).ok().to_owned()
    }

    #[track_caller]
    fn command(&self, args: &[&str]) -> Output {
        let out = self.world.docker().run_with(args, Vec::new(), LIMIT);
        assert_harmless(&out);
        out
    }
}

impl Drop for Hostile<'_> {
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            let _ = run.join();
        }
        let _ = self.world.docker().run(&["rm", "-f", "-v", &self.name]);
    }
}

fn consoles_say(world: &World, name: &str, words: &str) -> bool {
    let id = world.docker().run(&["inspect", "-f", "{{.Id}}", name]);
    let path = world.daemon.home().join("containers").join(id.stdout.trim()).join("console.log");
    id.code == 0 && std::fs::read(path).is_ok_and(|log| String::from_utf8_lossy(&log).contains(words))
}

/// A message for people: short, and nothing that a terminal obeys.
#[track_caller]
fn assert_harmless(out: &Output) {
    assert!(out.stderr.len() < 16 << 10, "{} bytes of message", out.stderr.len());
    let evil = out.stderr.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t' | '\r'));
    assert_eq!(evil, None, "{:?}", out.stderr);
}

/// The daemon and its runners.
fn pids(home: &Path) -> Vec<String> {
    let home = home.to_str().unwrap();
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let ours = line.contains(home) || String::from_utf8_lossy(&environment).contains(home);
        if ours && (line.contains(" runner ") || line.contains(" daemon ")) && !line.starts_with("qemu") {
            pids.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    pids
}

/// Sets its flag when it goes: also when an assertion fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[track_caller]
fn run_fails_with_each(modes: &[&str]) {
    let world = World::new(SHORT_BOOT);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _done = Done(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                world.others_are_unharmed();
                thread::sleep(Duration::from_millis(500));
            }
        });
        World::side_by_side(modes, 2, |mode| {
            let mut hostile = Hostile::boot(&world, mode, &[], "sleep");
            let started = Instant::now();
            let out = hostile.outcome();
            eprintln!("{mode}: {:?} {}", started.elapsed(), out.stderr.trim());
            assert_eq!(out.code, 125, "{mode}: {}", out.stderr);
            assert_eq!(hostile.inspect("{{.State.Running}}"), "false", "{mode}");
            assert_ne!(hostile.inspect("{{.State.Error}}"), "", "{mode}");
        });
    });
    strays::assert_none(&world.daemon, LIMIT);
}

/// SPEC G1, G5, G6
#[test]
fn guests_that_say_nothing_or_anything() {
    run_fails_with_each(&["deaf", "silent", "garbage", "closes", "console", "ends", "dials"]);
}

/// SPEC G1, G5, G6
#[test]
fn guests_that_do_not_keep_to_http() {
    run_fails_with_each(&["settings", "ping", "continuation", "headers", "giant", "reset"]);
}

/// SPEC G2, G5, G6
#[test]
fn guests_that_lie_about_processes() {
    let world = World::new(LONG_BOOT);
    // Whether the container must end by itself, and whether `docker run -d` succeeds. Those that take longest come first.
    let modes = [
        ("mute", true, false),
        ("streams", true, true),
        ("acks", true, true),
        ("error", true, false),
        ("lie", true, false),
        ("off", true, false),
        ("exit", true, true),
        ("negative", true, true),
        ("lost", true, true),
        ("overlap", false, true),
        ("gap", false, true),
        ("edge", false, true),
        ("large", false, true),
    ];
    World::side_by_side(modes, 3, |(mode, ends, starts)| {
        let mut hostile = Hostile::boot(&world, "grpc", &["-i"], mode);
        let begin = Instant::now();
        let out = hostile.outcome();
        eprintln!("{mode}: {} after {:?} {}", out.code, begin.elapsed(), out.stderr.trim());
        assert_eq!(out.code == 0, starts, "{mode}: {}", out.stderr);
        if ends {
            eventually(mode, LIMIT, || hostile.inspect("{{.State.Running}}") == "false");
            let code: i64 = hostile.inspect("{{.State.ExitCode}}").parse().unwrap();
            assert!((0..=255).contains(&code), "{mode}: exit code {code}");
            let years = hostile.inspect("{{.State.StartedAt}} {{.State.FinishedAt}}");
            assert!(
                years.split(' ').all(|at| at.starts_with("20") || at.starts_with("0001")),
                "{mode}: {years}"
            );
        }
        assert!(hostile.inspect("{{.State.Error}}").len() < 16 << 10);
        hostile.command(&["logs", &hostile.name]);
        hostile.command(&["ps", "-a"]);
        let started = Instant::now();
        hostile.command(&["rm", "-f", &hostile.name]).ok();
        assert!(started.elapsed() < LIMIT, "{mode}");
        eprintln!("{mode}: gone after {:?}", begin.elapsed());
        world.others_are_unharmed();
    });
    strays::assert_none(&world.daemon, LIMIT);
}

/// SPEC G3, G5, G6
#[test]
fn endless_output_of_a_guest_is_bounded() {
    let world = World::new(LONG_BOOT);
    let options = ["--log-opt", "max-size=1m", "--log-opt", "max-file=2"];
    let mut hostile = Hostile::boot(&world, "grpc", &options, "flood");
    hostile.outcome().ok();
    let limit = Instant::now() + Duration::from_secs(6);
    while Instant::now() < limit {
        world.others_are_unharmed();
    }
    let id = hostile.inspect("{{.Id}}");
    let mut size = 0;
    for file in std::fs::read_dir(world.daemon.home().join("containers").join(id)).unwrap().flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        size += if name == "disk.img" { 0 } else { file.metadata().unwrap().len() };
    }
    assert!(size < 8 << 20, "{size} bytes of logs");
    hostile.command(&["rm", "-f", &hostile.name]).ok();
}

/// SPEC G4, G5, G6
#[test]
fn guests_that_lie_about_their_containers() {
    let world = World::new(LONG_BOOT);
    let mut hostile = Hostile::boot(&world, "grpc", &["-i"], "absurd");
    hostile.outcome().ok();
    let name = hostile.name.clone();
    let local = tempfile::tempdir().unwrap();
    let inner = local.path().join("a/b/c");
    std::fs::create_dir_all(&inner).unwrap();
    std::fs::write(inner.join("file"), "x").unwrap();
    let out = inner.join("out");
    let (out, file) = (out.to_str().unwrap(), inner.join("file"));
    for args in [
        &["exec", &name, "true"][..],
        &["exec", "-t", &name, "true"],
        &["stats", "--no-stream", &name],
        &["top", &name],
        &["cp", &format!("{name}:/x"), out],
        &["cp", &format!("{name}:/nostat"), out],
        &["cp", file.to_str().unwrap(), &format!("{name}:/")],
        &["diff", &name],
        &["pause", &name],
        &["unpause", &name],
        &["update", "-m", "64m", "--memory-swap", "64m", &name],
        &["logs", &name],
        &["inspect", &name],
        &["stop", "-t", "1", &name],
    ] {
        let started = Instant::now();
        let said = world.docker().run_with(args, Vec::new(), LIMIT);
        // Output of processes is passed on as it is, as dockerd does.
        if !["exec", "logs"].contains(&args[0]) {
            assert_harmless(&said);
            let evil = said.stdout.chars().find(|c| *c == '\x1b' || *c == '\x07');
            assert!(evil.is_none(), "{args:?}: {:?}", said.stdout);
        }
        assert!(said.stdout.len() < 4 << 20, "{args:?}: {} bytes", said.stdout.len());
        eprintln!("{args:?}: {} {:?} {}", said.code, started.elapsed(), said.stderr.trim());
        world.others_are_unharmed();
    }
    assert!(!local.path().join("a/escape").exists() && !local.path().join("escape").exists());
    drop(hostile);
    strays::assert_none(&world.daemon, LIMIT);
}

/// SPEC G7
#[test]
fn a_guest_that_dies_or_hangs_ends_its_container_with_a_reason() {
    let world = World::new(LONG_BOOT);
    World::side_by_side(["stop", "kill"], 2, |mode| {
        let mut hostile = Hostile::boot(&world, mode, &[], "sleep");
        hostile.outcome().ok();
        assert_eq!(world.docker().run(&["exec", &hostile.name, "echo", "inside"]).ok(), "inside");
        order(&world, &hostile.inspect("{{.Id}}"));
        let started = Instant::now();
        let limit = Duration::from_secs(90);
        eventually("the container ends", limit, || hostile.inspect("{{.State.Status}}") == "exited");
        let reason = hostile.inspect("{{.State.Error}}");
        eprintln!("{mode}: after {:?}: {reason}", started.elapsed());
        assert_ne!(reason, "", "{mode}");
        assert_eq!(hostile.inspect("{{.State.ExitCode}}"), "137");
        world.others_are_unharmed();
        let initramfs = world.initramfs.lock().unwrap_or_else(PoisonError::into_inner);
        saboteur::real_initramfs(&initramfs).unwrap();
        world.docker().run(&["start", &hostile.name]).ok();
        drop(initramfs);
        assert_eq!(world.docker().run(&["exec", &hostile.name, "echo", "again"]).ok(), "again");
    });
    strays::assert_none(&world.daemon, LIMIT);
}

/// Tells the PID 1 beside arca-init to do its deed.
#[track_caller]
fn order(world: &World, id: &str) {
    let socket = std::fs::read_dir(world.daemon.home().join("run")).unwrap().flatten().map(|run| run.path());
    let socket = socket
        .into_iter()
        .find(|run| run.file_name().is_some_and(|name| id.starts_with(&*name.to_string_lossy())));
    let mut stream = UnixStream::connect(socket.unwrap().join("vsock.sock")).unwrap();
    stream.write_all(b"CONNECT 5556\n").unwrap();
    let mut said = String::new();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut byte = [0];
    while !said.ends_with("done\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        said.push(char::from(byte[0]));
    }
    assert!(said.ends_with("done\n"), "{said}");
}
