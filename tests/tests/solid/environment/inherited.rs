//! What a process gets from whoever starts it: limits, signals, files, folder, words.

use std::{os::unix::net::UnixStream, time::Duration};

use serde_json::json;
use tests::{
    daemon::{Daemon, Setup},
    vm::Vm,
    wait::eventually,
};

use super::{prepare, refused, works};

/// A daemon, each command of which a shell starts after these words.
fn after(words: &str) -> Daemon {
    let wrapper = ["sh", "-c", &format!("{words}\nexec \"$@\""), "sh"].map(str::to_owned).to_vec();
    prepare(Setup { config: json!({}), wrapper, ..Setup::default() })
}

/// SPEC E16
#[test]
fn few_open_files_are_told_or_enough() {
    let daemon = after("ulimit -Sn 64; ulimit -Hn 64");
    refused(&daemon, &["only 64 open files are allowed", "raise the limit"]);
    let doctor = daemon.try_arca(&["doctor"]).unwrap();
    assert!(doctor.code == 1 && doctor.stdout.contains("only 64 are allowed"), "{}", doctor.stdout);
    // Clients that take all there are do not matter once they have left: what runs goes on.
    let daemon = after("ulimit -Sn 300; ulimit -Hn 300");
    works(&daemon);
    daemon.docker().sh("run -d --name runs busybox sleep 1000000").ok();
    let socket = daemon.docker().socket().to_owned();
    let idle: Vec<_> = (0..400).map(|_| UnixStream::connect(&socket)).collect();
    // The daemon looks at its runners several times meanwhile.
    std::thread::sleep(Duration::from_secs(8));
    drop(idle);
    eventually("it serves again", Duration::from_secs(30), || {
        daemon.docker().sh("run --rm busybox echo again").stdout == "again\n"
    });
    assert_eq!(daemon.docker().sh("inspect -f {{.State.Status}}:{{.RestartCount}} runs").ok(), "running:0");
    assert_eq!(daemon.docker().sh("exec runs echo still").ok(), "still");
    // A soft limit is raised.
    let daemon = after("ulimit -Sn 64");
    daemon.arca(&["daemon", "start"]).unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid().unwrap())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert!(!line.contains(" 64 "), "{line}");
}

/// SPEC E16
#[test]
fn a_limit_of_file_sizes_is_an_error_and_not_the_end() {
    // In blocks of 512 bytes: 4 MiB. The image fits, a container's disk of 64 GiB does not.
    let daemon = after("ulimit -f 8192");
    daemon.arca(&["daemon", "start"]).unwrap();
    let pid = daemon.pid();
    daemon.load("busybox").unwrap();
    let out = daemon.docker().sh("run --rm busybox true");
    assert!(out.code == 125 && out.stderr.contains("File too large"), "{out:?}");
    assert_eq!(daemon.docker().sh("ps -aq").ok(), "");
    assert_eq!(daemon.pid(), pid);
}

/// SPEC E16
#[test]
fn too_few_processes_are_told() {
    let Some(user) = crate::ordinary_user::User::new() else { return };
    let daemon = user.daemon(&["prlimit", "--nproc=1:1"]);
    let out = daemon.try_arca(&["daemon", "run"]).unwrap();
    assert!(out.code == 1 && out.stderr.contains("raise the limit of processes"), "{out:?}");
    assert!(!out.stderr.contains("panicked"), "{out:?}");
}

/// SPEC E16
#[test]
fn closed_files_odd_signals_and_no_folder_do_not_matter() {
    for words in [
        "exec <&- >&-",
        "trap '' HUP INT TERM PIPE CHLD USR1",
        "set -- env --block-signal=TERM,INT,HUP,CHLD \"$@\"",
        "d=$(mktemp -d); cd \"$d\"; rmdir \"$d\"",
        "LC_ALL=xx_YY.garbage; LANG=$(printf '\\377'); TZ=:/nowhere; export LC_ALL LANG TZ",
    ] {
        let daemon = after(words);
        let out = daemon.try_arca(&["daemon", "start"]).unwrap();
        assert!(out.code == 0, "{words}: {out:?}");
        daemon.load("busybox").unwrap();
        assert_eq!(daemon.docker().sh("run --rm busybox echo works").ok(), "works", "{words}");
        let out = daemon.try_arca(&["daemon", "stop"]).unwrap();
        assert!(out.code == 0 && !out.stderr.contains("killed"), "{words}: {out:?}");
        assert_eq!(daemon.pid(), None, "{words}");
        assert!(!daemon.log().contains("panicked"), "{words}: {}", daemon.log());
    }
}

/// SPEC E16, P3
#[test]
fn open_files_and_words_of_the_caller_reach_no_runner_and_no_qemu() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let daemon = after(&format!("SECRET_WORD=secret; export SECRET_WORD; exec 9<{}", secret.display()));
    daemon.arca(&["daemon", "start"]).unwrap();
    daemon.load("busybox").unwrap();
    daemon.docker().sh("run -d --name runs busybox sleep 1000000").ok();
    let vm = Vm::of(&daemon, "runs");
    for pid in [vm.runner, vm.qemu] {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let open: Vec<_> = files.filter_map(|file| std::fs::read_link(file.path()).ok()).collect();
        assert!(!open.is_empty() && !open.contains(&secret), "{pid}: {open:?}");
    }
    let words = std::fs::read(format!("/proc/{}/environ", vm.qemu)).unwrap();
    assert!(!String::from_utf8_lossy(&words).contains("SECRET_WORD"));
}

/// SPEC E16
#[test]
fn a_start_that_fails_is_told_even_where_children_are_not_waited_for() {
    let daemon = after("trap '' CHLD");
    std::fs::write(daemon.home().join("store.redb"), vec![0x5a; 8192]).unwrap();
    refused(&daemon, &["store.redb"]);
}

/// SPEC E16
#[test]
fn output_that_nobody_takes_is_no_panic() {
    let daemon = prepare(Setup { config: json!({}), ..Setup::default() });
    for (command, redirect) in
        [("doctor", ">/dev/full"), ("daemon status", ">/dev/full 2>/dev/full"), ("doctor", "| :")]
    {
        let words = format!("exec \"$0\" {command} {redirect}");
        let mut shell = std::process::Command::new("sh");
        let arca = tests::cache::arca();
        let words = if redirect.starts_with('|') { words.replace("exec ", "") } else { words };
        shell.args(["-c", &words]).arg(arca).env("ARCA_HOME", daemon.home());
        let out = tests::docker::finish(shell, Vec::new(), Duration::from_secs(60)).unwrap();
        assert!(out.code < 2 && !out.stderr.contains("panicked"), "{words}: {out:?}");
    }
    assert_eq!(daemon.pid(), None);
}
