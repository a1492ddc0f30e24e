//! Several daemons, their sockets, and those that hang.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixListener,
    },
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;
use tests::{
    daemon::{Daemon, Setup},
    wait::eventually,
};

use super::{prepare, refused, works};

fn pid(daemon: &Daemon) -> u32 {
    daemon.pid().expect("a daemon")
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

/// Runs all of these at once; exit code and what each said.
fn at_once(commands: impl Iterator<Item = Command>) -> Vec<(i32, String)> {
    let started: Vec<_> = commands
        .map(|mut c| c.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    let all = started.into_iter().map(|child| child.wait_with_output().unwrap());
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    all.map(|out| (out.status.code().unwrap_or(-1), text(out.stdout) + &text(out.stderr))).collect()
}

/// SPEC E8
#[test]
fn of_ten_daemons_started_at_once_one_lives() {
    let daemon = prepare(Setup { config: json!({}), ..Setup::default() });
    let outs = at_once((0..10).map(|_| daemon.command(&["daemon", "start"])));
    let pid = pid(&daemon);
    let named = format!("(pid {pid})");
    for (code, said) in &outs {
        assert!(*code == 0 && said.contains(&named), "{pid}: {outs:?}");
    }
    assert_eq!(outs.iter().filter(|(_, said)| !said.contains("already")).count(), 1, "{outs:?}");
    // In the foreground the others end, and say who lives.
    for (code, said) in at_once((0..10).map(|_| daemon.command(&["daemon", "run"]))) {
        assert!(code == 1 && said.contains("a daemon runs already for") && said.contains(&named), "{said}");
    }
    assert_eq!(daemon.pid(), Some(pid));
    works(&daemon);
}

/// SPEC E8
#[test]
fn a_look_at_a_daemon_keeps_none_from_starting() {
    let daemon = prepare(Setup { config: json!({}), ..Setup::default() });
    for _ in 0..3 {
        let looks = (0..6).map(|_| daemon.command(&["daemon", "status"]));
        let outs = at_once(std::iter::once(daemon.command(&["daemon", "start"])).chain(looks));
        assert_eq!(outs[0].0, 0, "{outs:?}");
        daemon.arca(&["daemon", "stop"]).unwrap();
    }
}

/// SPEC E9
#[test]
fn one_socket_serves_one_daemon() {
    let dir = tempfile::tempdir().unwrap();
    // Its folder is made.
    let socket = dir.path().join("made/here/arca.sock");
    let setup = || Setup {
        config: json!({ "socketPath": socket }),
        socket: Some(socket.clone()),
        ..Setup::default()
    };
    let (one, other) = (prepare(setup()), prepare(setup()));
    let outs = at_once([&one, &other].into_iter().map(|d| d.command(&["daemon", "start"])));
    let (winner, loser) = if outs[0].0 == 0 { (&one, &other) } else { (&other, &one) };
    let lost = outs.iter().find(|(code, _)| *code != 0).expect("both live");
    assert!(outs.iter().any(|(code, _)| *code == 0), "{outs:?}");
    for words in ["another daemon (pid ", socket.to_str().unwrap(), "set socketPath in config.json"] {
        assert!(lost.1.contains(words), "{words:?} lacks: {}", lost.1);
    }
    assert_eq!(loser.pid(), None);
    refused(loser, &[&format!("another daemon (pid {}) answers on", pid(winner))]);
    assert_eq!(winner.docker().sh("version -f {{.Server.Version}}").code, 0);
    assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o777, 0o660);
    // Killed, it leaves its socket; that is nobody's now.
    winner.kill9().unwrap();
    assert!(socket.exists());
    loser.arca(&["daemon", "start"]).unwrap();
    loser.arca(&["daemon", "stop"]).unwrap();
    assert!(!socket.exists());
}

/// SPEC E9
#[test]
fn sockets_that_cannot_be_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "mine").unwrap();
    let long = dir.path().join("s".repeat(100));
    for (socket, words) in [
        (file.clone(), "exists and is not a socket"),
        (file.join("below.sock"), "cannot"),
        (long, "at most 100 bytes"),
    ] {
        let daemon = prepare(Setup { config: json!({ "socketPath": socket }), ..Setup::default() });
        refused(&daemon, &[socket.to_str().unwrap(), words]);
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "mine");
}

/// SPEC E9
#[test]
fn a_daemon_is_found_after_its_configuration_changed() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("old.sock");
    let setup =
        Setup { config: json!({ "socketPath": socket }), socket: Some(socket.clone()), ..Setup::default() };
    let daemon = prepare(setup);
    daemon.arca(&["daemon", "start"]).unwrap();
    fs::write(
        daemon.home().join("config.json"),
        json!({ "socketPath": dir.path().join("new.sock") }).to_string(),
    )
    .unwrap();
    let told = daemon.arca(&["daemon", "status"]).unwrap().stdout;
    assert!(told.contains("old.sock") && !told.contains("new.sock"), "{told}");
    let again = daemon.arca(&["daemon", "start"]).unwrap().stdout;
    assert!(again.contains("already") && again.contains("old.sock"), "{again}");
    fs::write(daemon.home().join("config.json"), "{").unwrap();
    let out = daemon.try_arca(&["daemon", "start"]).unwrap();
    out.fails(1, "config.json is not valid JSON");
    assert!(daemon.arca(&["daemon", "status"]).unwrap().stdout.contains("old.sock"));
    daemon.arca(&["daemon", "stop"]).unwrap();
    refused(&daemon, &["config.json is not valid JSON"]);
}

/// SPEC E15
#[test]
fn a_configuration_that_is_not_understood_is_refused() {
    let daemon = prepare(Setup { config: json!({}), ..Setup::default() });
    let path = daemon.home().join("config.json");
    let deep = "[".repeat(100_000);
    for (text, words) in [
        (&b""[..], "is not valid JSON"),
        (b"\xff\xfe{}", "is not valid JSON"),
        (b"{\"logLevel\": \"info\",}", "is not valid JSON"),
        (b"null", "must be a JSON object"),
        (deep.as_bytes(), "is not valid JSON"),
        (b"{\"bootTimeout\": \"2h\"}", "bootTimeout is \"2h\"; allowed: a number of seconds"),
        (b"{\"maxLayerSize\": -1}", "maxLayerSize is -1; allowed: a size"),
        (b"{\"maxLayerFiles\": 1.5}", "maxLayerFiles is 1.5; allowed: a number"),
        (b"{\"logLevel\": \"info\", \"logLevel\": 1}", "logLevel is 1"),
    ] {
        fs::write(&path, text).unwrap();
        refused(&daemon, &["config.json", words]);
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    refused(&daemon, &["config.json", "Is a directory"]);
    fs::remove_dir(&path).unwrap();
    fs::write(&path, "{}").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    refused(&daemon, &["config.json", "may be written by every user", "chmod o-w"]);
    fs::remove_file(&path).unwrap();
    daemon.arca(&["daemon", "start"]).unwrap();
}

/// SPEC E17
#[test]
fn a_daemon_that_hangs_is_stopped_and_its_containers_go_on() {
    let daemon = prepare(Setup { config: json!({}), ..Setup::default() });
    daemon.arca(&["daemon", "start"]).unwrap();
    daemon.load("busybox").unwrap();
    daemon.docker().sh("run -d --name survivor busybox sleep 600").ok();
    // Stopped, as by ^Z: it ends in an orderly way.
    signal(pid(&daemon), "STOP");
    let begin = Instant::now();
    let out = daemon.arca(&["daemon", "stop"]).unwrap();
    assert!(out.stderr.is_empty() && begin.elapsed() < Duration::from_secs(15), "{out:?}");
    daemon.arca(&["daemon", "start"]).unwrap();
    // Stopped again and again: it is killed.
    let hung = pid(&daemon);
    let keep = format!("while kill -STOP {hung} 2>/dev/null; do :; done");
    let mut keeper = Command::new("sh").args(["-c", &keep]).spawn().unwrap();
    let status = daemon.try_arca(&["daemon", "status"]).unwrap();
    assert!(
        status.code == 1
            && status.stderr.contains("does not answer")
            && status.stderr.contains("daemon stop"),
        "{status:?}"
    );
    let out = daemon.arca(&["daemon", "stop"]).unwrap();
    assert!(
        out.stderr.contains(&format!("the daemon (pid {hung}) did not end within 20 s: killed")),
        "{out:?}"
    );
    keeper.wait().unwrap();
    let status = daemon.try_arca(&["daemon", "status"]).unwrap();
    assert!(status.code == 1 && status.stdout.contains("no daemon runs"), "{status:?}");
    assert_eq!(daemon.arca(&["daemon", "stop"]).unwrap().stdout.lines().count(), 1);
    daemon.arca(&["daemon", "start"]).unwrap();
    assert_eq!(daemon.docker().sh("exec survivor echo here").ok(), "here");
}

/// SPEC E18
#[test]
fn a_daemon_that_ends_at_its_start_is_told_on_the_terminal() {
    let daemon = prepare(Setup { config: json!({}), ..Setup::default() });
    fs::write(daemon.home().join("store.redb"), vec![0x5a; 8192]).unwrap();
    refused(&daemon, &["store.redb"]);
    fs::remove_file(daemon.home().join("store.redb")).unwrap();
    // Killed before it answers, it has said nothing: then its log is shown.
    let stuck = daemon.home().join("arca.sock");
    let listener = UnixListener::bind(&stuck).unwrap();
    refused(&daemon, &["another daemon", "answers on"]);
    drop(listener);
    daemon.arca(&["daemon", "start"]).unwrap();
    eventually("it answers", Duration::from_secs(10), || daemon.docker().sh("version").code == 0);
}
