//! A runner or a QEMU is killed, or stops without dying: the container ends with a reason, and nothing of it is left.

use std::{
    io::{BufRead, BufReader, Write},
    process::Child,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{
    daemon::Daemon,
    strays,
    vm::{Vm, qemu, run_dir, signal},
};

use crate::support::{eventually, fresh, name};

/// A killed process is told within this time.
const KILLED: Duration = Duration::from_secs(10);
/// One that stopped is: silence of 30 s, a pause between two questions before, and the end.
const STOPPED: Duration = Duration::from_secs(50);
/// `docker stop`, `kill` and `rm -f` of one that stopped, beside the grace.
const ENDED: Duration = Duration::from_secs(25);

/// Runs a container that writes a line and stays.
fn run(daemon: &Daemon, what: &str) -> Vm {
    let name = name(what);
    let script = "echo here; exec sleep 1000000";
    daemon.docker().run(&["run", "-d", "--name", &name, "busybox", "sh", "-c", script]).ok();
    Vm::of(daemon, &name)
}

fn state(daemon: &Daemon, vm: &Vm) -> Value {
    let out = daemon.docker().run(&["inspect", "-f", "{{json .State}}", &vm.id]);
    serde_json::from_str(out.ok()).unwrap()
}

/// Clients of a container that have all been served, so that they are in the middle of it.
struct Clients(Vec<(&'static str, Child)>);

impl Clients {
    fn of(daemon: &Daemon, vm: &Vm) -> Self {
        let commands: [(&str, &[&str]); 4] = [
            ("logs -f", &["logs", "-f", &vm.id]),
            ("exec", &["exec", "-i", &vm.id, "sh", "-c", "echo here; cat"]),
            ("attach", &["attach", &vm.id]),
            ("wait", &["wait", &vm.id]),
        ];
        let start = |(what, args): &(&'static str, &[&str])| {
            let mut child = daemon.docker().spawn(args).unwrap();
            // Those that say something have begun when they do; the others are told to the daemon soon.
            if ["logs -f", "exec"].contains(what) {
                let mut line = String::new();
                BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
                assert_eq!(line, "here\n", "{what}");
            }
            (*what, child)
        };
        Self(commands.iter().map(start).collect())
    }

    /// They end soon after the container has.
    fn end(mut self) {
        for (what, child) in &mut self.0 {
            eventually(&format!("docker {what} ends"), KILLED, || child.try_wait().unwrap().is_some());
            if *what == "wait" {
                let mut code = String::new();
                BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut code).unwrap();
                assert_eq!(code, "137\n");
            }
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        for (_, child) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The container has ended as killed, for a reason that names `why`; nothing of its VM is left, and it can be started again.
#[track_caller]
fn ended(daemon: &Daemon, vm: &Vm, why: &str, within: Duration) {
    eventually(&format!("exited: {why}"), within, || state(daemon, vm)["Status"] == "exited");
    let state = state(daemon, vm);
    assert_eq!(state["ExitCode"], 137, "{state}");
    assert!(state["Error"].as_str().unwrap().contains(why), "{state}");
    eventually("its processes are gone", KILLED, || !vm.lives());
}

/// It runs again, and answers.
#[track_caller]
fn starts_again(daemon: &Daemon, vm: &Vm) {
    daemon.docker().run(&["start", &vm.id]).ok();
    assert_eq!(daemon.docker().run(&["exec", &vm.id, "echo", "again"]).ok(), "again");
    assert_eq!(state(daemon, vm)["Error"], "");
    let out = daemon.docker().run(&["rm", "-f", &vm.id]);
    assert_eq!(out.code, 0, "{}", out.stderr);
}

/// SPEC V1, V5
#[test]
fn a_killed_qemu_or_runner_ends_the_container_with_a_reason() {
    let daemon = fresh(&json!({}));
    let by_qemu = run(&daemon, "qemu");
    let by_runner = run(&daemon, "runner");
    let clients = [Clients::of(&daemon, &by_qemu), Clients::of(&daemon, &by_runner)];
    signal(by_qemu.qemu, "KILL");
    signal(by_runner.runner, "KILL");
    ended(&daemon, &by_qemu, "QEMU: signal: 9 (SIGKILL)", KILLED);
    ended(&daemon, &by_runner, "its runner ended without an exit record", KILLED);
    for clients in clients {
        clients.end();
    }
    strays::assert_none(&daemon, KILLED);
    starts_again(&daemon, &by_qemu);
    starts_again(&daemon, &by_runner);
    strays::assert_none(&daemon, KILLED);
}

/// SPEC V2, V3, V4, V5, V6
#[test]
fn a_stopped_qemu_or_runner_is_ended_and_nobody_waits_for_it_for_ever() {
    let daemon = fresh(&json!({}));
    let docker = daemon.docker();
    let [by_qemu, by_runner, paused, resumed, to_stop, to_kill, to_remove] =
        ["qemu", "runner", "paused", "resumed", "stop", "kill", "rm"].map(|what| run(&daemon, what));
    docker.run(&["pause", &paused.id]).ok();
    let clients = [Clients::of(&daemon, &by_qemu), Clients::of(&daemon, &by_runner)];
    let begin = Instant::now();
    for pid in [by_qemu.qemu, by_runner.runner, resumed.qemu, resumed.runner] {
        signal(pid, "STOP");
    }
    // 20 s are no reason to end anything, whatever else takes its time.
    let (pids, awake) = ([resumed.qemu, resumed.runner], begin + Duration::from_secs(20));
    let resuming = std::thread::spawn(move || {
        std::thread::sleep(awake.saturating_duration_since(Instant::now()));
        pids.map(|pid| signal(pid, "CONT"))
    });
    // Meanwhile: who asks for the end of a VM that hangs gets it.
    for (vm, pid, command) in [
        (&to_stop, to_stop.qemu, &["stop", "-t", "1"][..]),
        (&to_kill, to_kill.runner, &["kill"]),
        (&to_remove, to_remove.qemu, &["rm", "-f"]),
    ] {
        signal(pid, "STOP");
        let asked = Instant::now();
        let out = docker.run(&[command, &[&vm.id]].concat());
        assert!(
            out.code == 0 && asked.elapsed() < ENDED,
            "{command:?} after {:?}: {}",
            asked.elapsed(),
            out.stderr
        );
        eventually("its processes are gone", KILLED, || !vm.lives());
    }
    ended(&daemon, &by_qemu, "the guest did not answer for 30s: QEMU is stopped", STOPPED);
    ended(&daemon, &by_runner, "its runner did not answer for 30s", STOPPED);
    for clients in clients {
        clients.end();
    }
    // No answer, or the vsock device gave the connection up first.
    ended(&daemon, &to_stop, "the container's VM was killed: signal: ", KILLED);
    ended(&daemon, &to_kill, "the container's VM was killed: signal: ", KILLED);
    resuming.join().unwrap();
    assert_eq!(docker.run(&["exec", &resumed.id, "echo", "on"]).ok(), "on");
    assert_eq!(state(&daemon, &paused)["Status"], "paused", "its guest answers all the same");
    docker.run(&["unpause", &paused.id]).ok();
    assert_eq!(docker.run(&["exec", &paused.id, "echo", "on"]).ok(), "on");
    strays::assert_none(&daemon, KILLED);
    starts_again(&daemon, &by_qemu);
    starts_again(&daemon, &by_runner);
    starts_again(&daemon, &to_stop);
}

/// The runner of a container, as its lock names it.
fn runner(daemon: &Daemon, short: &str) -> Option<u32> {
    let lock = std::fs::read(run_dir(daemon.home(), short).join("runner.lock")).ok()?;
    let lock: Value = serde_json::from_slice(&lock).ok()?;
    lock["pid"].as_u64()?.try_into().ok()
}

/// Starts a container and, while it boots, sends a signal to its QEMU or its runner. Answers how the start ended.
fn disturb(daemon: &Daemon, what: &str, process: &str, kind: &str) -> (Vm, String, Duration) {
    let name = name(what);
    let id = daemon.docker().run(&["create", "--name", &name, "busybox", "sleep", "1000000"]).ok().to_owned();
    let mut start = daemon.docker().spawn(&["start", &name]).unwrap();
    drop(start.stdin.take().map(|mut input| input.flush()));
    let deadline = Instant::now() + Duration::from_secs(60);
    // Nothing else until the signal: a boot takes 0.3 s on a fast machine.
    let (pid, runner) = loop {
        if let Some(runner) = runner(daemon, &id[..12])
            && let Some(pid) = qemu(&id[..12])
        {
            break (pid, runner);
        }
        assert!(Instant::now() < deadline, "no QEMU");
        std::thread::sleep(Duration::from_millis(2));
    };
    signal(if process == "QEMU" { pid } else { runner }, kind);
    let vm = Vm { id, runner, qemu: pid };
    let begin = Instant::now();
    let out = start.wait_with_output().unwrap();
    assert!(!out.status.success(), "{what}: it started");
    (vm, String::from_utf8_lossy(&out.stderr).into_owned(), begin.elapsed())
}

/// SPEC V1, V2, V8
#[test]
fn what_happens_while_booting_is_an_error_of_the_start_with_a_reason() {
    let daemon = fresh(&json!({ "bootTimeout": "40s" }));
    let cases = [
        ("QEMU", "KILL", "QEMU: signal: 9 (SIGKILL) while booting", KILLED),
        ("runner", "KILL", "its runner ended", KILLED),
        ("QEMU", "STOP", "no answer of the guest within 40s", STOPPED),
        ("runner", "STOP", "its runner did not answer for 30s", STOPPED),
    ];
    std::thread::scope(|scope| {
        for (process, kind, why, limit) in cases {
            let daemon = &daemon;
            scope.spawn(move || {
                let (vm, error, after) = disturb(daemon, "boot", process, kind);
                assert!(error.contains(why), "SIG{kind} to the {process}: {error}");
                assert!(after < limit, "SIG{kind} to the {process}: {after:?}");
                let state = state(daemon, &vm);
                assert!(state["Error"].as_str().unwrap().contains(why), "{state}");
                assert_eq!(state["Status"], "created");
                eventually("its processes are gone", KILLED, || !vm.lives());
            });
        }
    });
    strays::assert_none(&daemon, KILLED);
    for id in daemon.docker().run(&["ps", "-aq", "--no-trunc"]).ok().lines() {
        starts_again(&daemon, &Vm::of(&daemon, id));
    }
}

/// SPEC V1
#[test]
fn a_sigterm_to_a_runner_is_an_orderly_end() {
    let daemon = fresh(&json!({}));
    let vm = run(&daemon, "term");
    signal(vm.runner, "TERM");
    eventually("exited", KILLED, || state(&daemon, &vm)["Status"] == "exited");
    assert_eq!(state(&daemon, &vm)["ExitCode"], 137);
    eventually("its processes are gone", KILLED, || !vm.lives());
    assert!(!run_dir(daemon.home(), &vm.id[..12]).join("runner.sock").exists());
    starts_again(&daemon, &vm);
}
