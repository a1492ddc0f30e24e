//! The daemon is killed at any moment; nothing is lost.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{daemon::Daemon, docker::Output, strays};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    support::{eventually, fresh},
    torture,
};

/// Power-off of the last VMs.
const SOON: Duration = Duration::from_secs(40);
/// A runner that hangs is ended within this time.
const SILENCE: Duration = Duration::from_secs(70);
/// A daemon answers within this time of its start.
const ANSWER: Duration = Duration::from_secs(10);

fn docker(daemon: &Daemon, words: &str) -> String {
    daemon.docker().sh(words).ok().to_owned()
}

fn sh(daemon: &Daemon, options: &str, name: &str, script: &str) -> Output {
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(options.split_whitespace());
    args.extend(["busybox", "sh", "-c", script]);
    daemon.docker().run(&args)
}

fn inspect(daemon: &Daemon, name: &str) -> Value {
    let text = daemon.docker().run(&["inspect", name]);
    serde_json::from_str::<Value>(text.ok()).unwrap()[0].take()
}

fn when(text: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(text.as_str().unwrap(), &Rfc3339).unwrap()
}

/// The runner's exit record of a container.
fn exit_record(daemon: &Daemon, id: &str) -> std::path::PathBuf {
    daemon.home().join("containers").join(id).join("exit.json")
}

/// SPEC D3, D7, D8
#[test]
fn running_containers_are_adopted_and_everything_works() {
    let daemon = fresh(&json!({}));
    let docker = |words: &str| docker(&daemon, words);
    let id = sh(&daemon, "", "web", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done").ok().to_owned();
    sh(&daemon, "", "ice", "while :; do date +%s%N > /beat; sleep 0.1; done").ok();
    let beat = || daemon.docker().sh("exec ice cat /beat").stdout;
    eventually("it beats", SOON, || !beat().is_empty());
    docker("pause ice");
    let before = inspect(&daemon, "web");
    let mut attached = daemon.docker().background(&["attach", "web"]).unwrap();
    let exec =
        daemon.docker().background(&["exec", "web", "sh", "-c", "sleep 5; echo lived > /exec"]).unwrap();
    eventually("the exec runs", SOON, || docker("top web").contains("sleep 5"));
    assert!(attached.is_running());

    daemon.kill9().unwrap();
    // Its clients are cut at once, and do not hang.
    attached.wait(Duration::from_secs(10)).unwrap();
    assert_ne!(exec.wait(Duration::from_secs(10)).unwrap().code, 0);
    let took = daemon.start_again().unwrap();
    assert!(took < ANSWER, "{took:?}");

    let after = inspect(&daemon, "web");
    for field in ["Status", "StartedAt", "Pid", "ExitCode", "Error"] {
        assert_eq!(after["State"][field], before["State"][field], "{field}");
    }
    assert_eq!(after["ExecIDs"], Value::Null);
    // The exec's process was not the daemon's to end.
    eventually("the exec ends in its own time", SOON, || {
        daemon.docker().run(&["exec", "web", "cat", "/exec"]).stdout == "lived\n"
    });
    assert!(docker("top web").contains("sh -c i=0"));
    assert!(docker("stats --no-stream --format {{.Name}} web").contains("web"));
    fs::write(daemon.home().join("client/file"), "copied").unwrap();
    let file = daemon.home().join("client/file");
    daemon.docker().run(&["cp", file.to_str().unwrap(), "web:/file"]).ok();
    assert_eq!(docker("exec web cat /file"), "copied");
    assert!(docker("diff web").contains("/file"));

    // What it wrote meanwhile is there, once; what it writes now follows.
    let follow = daemon.docker().background(&["logs", "-f", "web"]).unwrap();
    let mut attached = daemon.docker().background(&["attach", "--sig-proxy=false", "web"]).unwrap();
    // The CLI looks first whether it is paused.
    let attaches =
        "events --since 10m --until 0s --filter container=web --filter event=attach --format {{.Action}}";
    eventually("it is attached", SOON, || !docker(attaches).is_empty());
    assert!(attached.is_running());
    docker("pause web");
    assert_eq!(inspect(&daemon, "web")["State"]["Status"], "paused");
    docker("unpause web");
    docker("update --cpu-shares 512 web");
    let lines = |text: &str| text.lines().map(|line| line.parse::<u64>().unwrap()).collect::<Vec<_>>();
    let seen = lines(&docker("logs web")).len();
    eventually("the log goes on", SOON, || lines(&docker("logs web")).len() > seen + 3);
    docker("stop -t 1 web");
    let all = lines(&follow.wait(SOON).unwrap().stdout);
    assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>());
    assert!(all.len() > seen);
    let attached = attached.wait(SOON).unwrap();
    assert!(!lines(&attached.stdout).is_empty(), "{attached:?}");
    assert_eq!(inspect(&daemon, "web")["State"]["ExitCode"], 137);

    // The frozen one is still frozen, and thaws.
    assert_eq!(inspect(&daemon, "ice")["State"]["Status"], "paused");
    daemon.docker().sh("exec ice true").fails(1, "is paused");
    docker("unpause ice");
    let last = beat();
    eventually("it beats again", SOON, || beat() != last);
    docker("rm -f ice");
    docker("start web");
    assert_eq!(docker("ps -q --no-trunc"), id);
    docker("rm -f web");
    strays::assert_none(&daemon, SOON);
}

/// SPEC D4, D5
#[test]
fn exits_that_nobody_heard_of_are_told_truly() {
    let daemon = fresh(&json!({}));
    // They end when the daemon is gone.
    let ids = [
        ("seven", "", "exit 7"),
        ("memory", "-m 24m", "exec tail /dev/zero"),
        ("high", "", "exit 255"),
        ("rm", "--rm", "exit 0"),
    ]
    .map(|(name, options, end)| {
        let script = format!("while [ ! -e /go ]; do sleep 0.1; done; {end}");
        sh(&daemon, options, name, &script).ok().to_owned()
    });
    for id in &ids {
        daemon.docker().run(&["exec", "-d", id, "sh", "-c", "sleep 5; touch /go"]).ok();
    }
    let began = OffsetDateTime::now_utc();
    daemon.kill9().unwrap();
    for id in &ids {
        eventually("it ends without a daemon", SOON, || exit_record(&daemon, id).exists());
    }
    let ended = OffsetDateTime::now_utc();
    daemon.start_again().unwrap();
    for (name, code, oom) in [("seven", 7, false), ("memory", 137, true), ("high", 255, false)] {
        let state = inspect(&daemon, name)["State"].take();
        assert_eq!(state["Status"], "exited", "{name}: {state}");
        assert_eq!((&state["ExitCode"], &state["OOMKilled"]), (&json!(code), &json!(oom)), "{name}: {state}");
        assert_eq!(state["Error"], "", "{name}");
        let finished = when(&state["FinishedAt"]);
        assert!((began..=ended).contains(&finished), "{name}: {began} {finished} {ended}");
        assert_eq!(docker(&daemon, &format!("wait {name}")), code.to_string());
    }
    daemon.docker().sh("inspect rm").fails(1, "o such object: rm");
    for name in ["seven", "memory", "high"] {
        docker(&daemon, &format!("rm {name}"));
    }
    strays::assert_none(&daemon, SOON);
}

/// SPEC D6
#[test]
fn a_hundred_megabytes_of_an_outage_are_in_the_log_once_and_in_order() {
    const LINES: u64 = 100_000;
    const OUTAGE: Duration = Duration::from_secs(60);
    let daemon = fresh(&json!({}));
    // 1,000 bytes each, numbered; made beforehand, since it is the way out that is looked at.
    let make = format!(
        "awk 'BEGIN {{ p = sprintf(\"%0990d\", 0); for (i = {LINES}; i < 2 * {LINES}; i++) print i, p, i % 10 }}'"
    );
    let script = format!(
        "{make} > /flood; touch /made; while [ ! -e /go ]; do sleep 0.1; done; cat /flood; sleep 100000"
    );
    let id = sh(&daemon, "", "flood", &script).ok().to_owned();
    eventually("the lines are made", Duration::from_secs(200), || {
        daemon.docker().sh("exec flood ls /made").code == 0
    });
    let log = daemon.home().join("containers").join(&id).join(format!("{id}-json.log"));
    let length = || fs::metadata(&log).map_or(0, |file| file.len());
    assert_eq!(length(), 0);
    daemon.docker().run(&["exec", "-d", "flood", "sh", "-c", "sleep 1; touch /go"]).ok();
    daemon.kill9().unwrap();
    let begin = Instant::now();
    assert!(length() < 1 << 20, "it began too early");
    // An entry has 70 bytes around a line. Nobody takes the output but the runner.
    eventually("100 MB in the log", Duration::from_secs(300), || length() >= LINES * 1070);
    println!("100 MB into the log in {:?}", begin.elapsed());
    std::thread::sleep(OUTAGE.saturating_sub(begin.elapsed()));
    daemon.start_again().unwrap();
    let mut command = daemon.docker().command(&["logs", "flood"]);
    let mut client = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut seen = 0;
    for line in BufReader::new(client.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let number = line.split(' ').next().unwrap();
        assert_eq!((line.len(), number.parse()), (999, Ok(LINES + seen)), "{line}");
        seen += 1;
    }
    assert_eq!(seen, LINES);
    assert!(client.wait().unwrap().success());
    docker(&daemon, "rm -f flood");
}

/// SPEC D11
#[test]
fn a_hung_runner_does_not_keep_the_api_from_coming_up() {
    let daemon = fresh(&json!({}));
    let hung = sh(&daemon, "", "hung", "sleep 1000").ok().to_owned();
    sh(&daemon, "", "well", "sleep 1000").ok();
    daemon.kill9().unwrap();
    let runner = runner_pid(&daemon, &hung);
    assert!(Command::new("kill").args(["-STOP", &runner.to_string()]).status().unwrap().success());
    let took = daemon.start_again().unwrap();
    assert!(took < ANSWER, "{took:?}");
    assert_eq!(docker(&daemon, "exec well echo well"), "well");
    // Nobody is condemned at once: the host may be starved.
    assert_eq!(inspect(&daemon, "hung")["State"]["Status"], "running");
    eventually("the hung one is told to have ended", SILENCE, || {
        inspect(&daemon, "hung")["State"]["Status"] == "exited"
    });
    let state = inspect(&daemon, "hung")["State"].take();
    assert_eq!(state["ExitCode"], 137);
    assert!(state["Error"].as_str().unwrap().contains("did not answer for 30s"), "{state}");
    docker(&daemon, "start hung");
    docker(&daemon, "rm -f hung well");
    strays::assert_none(&daemon, SOON);
}

/// SPEC D2
#[test]
fn a_runner_that_comes_up_after_its_daemon_was_killed_ends() {
    let daemon = fresh(&json!({}));
    let id = docker(&daemon, "run -d busybox true");
    docker(&daemon, &format!("wait {id}"));
    let exit = fs::read(exit_record(&daemon, &id)).unwrap();
    let spec = daemon.home().join("containers").join(&id).join("vm.json");
    // Its launcher is not its parent: as if that had been killed meanwhile.
    let mut late = Command::new(tests::cache::arca());
    late.args(["runner", "--spec"]).arg(&spec).env("ARCA_LAUNCHER", "1");
    let ended = tests::docker::finish(late, Vec::new(), Duration::from_secs(30)).unwrap();
    assert_ne!(ended.code, 0);
    assert_eq!(fs::read(exit_record(&daemon, &id)).unwrap(), exit);
    strays::assert_none(&daemon, SOON);
    docker(&daemon, &format!("start {id}"));
    docker(&daemon, &format!("rm -f {id}"));
    strays::assert_none(&daemon, SOON);
}

fn runner_pid(daemon: &Daemon, id: &str) -> u32 {
    let lock = fs::read(daemon.home().join("run").join(&id[..12]).join("runner.lock")).unwrap();
    let owner: Value = serde_json::from_slice(&lock).unwrap();
    u32::try_from(owner["pid"].as_u64().unwrap()).unwrap()
}

/// Changes the bytes of a stored record while no daemon runs.
fn change_record(home: &Path, id: &str, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) {
    const CONTAINERS: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("containers");
    let db = redb::Database::open(home.join("store.redb")).unwrap();
    let transaction = db.begin_write().unwrap();
    {
        let mut table = transaction.open_table(CONTAINERS).unwrap();
        let bytes = table.remove(id).unwrap().unwrap().value().to_vec();
        if let Some(bytes) = change(bytes) {
            table.insert(id, bytes.as_slice()).unwrap();
        }
    }
    transaction.commit().unwrap();
}

/// SPEC D12, D13, D14
#[test]
fn a_damaged_record_harms_nobody_else_and_loses_nothing() {
    let daemon = fresh(&json!({}));
    let damaged = docker(&daemon, "create --name damaged busybox true");
    let unknown = sh(&daemon, "", "unknown", "sleep 1000").ok().to_owned();
    sh(&daemon, "", "well", "sleep 1000").ok();
    daemon.kill9().unwrap();
    let mut original = Vec::new();
    change_record(daemon.home(), &damaged, |bytes| {
        original.clone_from(&bytes);
        let half = bytes.len() / 2;
        Some(bytes[..half].to_vec())
    });
    change_record(daemon.home(), &unknown, |_| None);
    daemon.start_again().unwrap();
    assert_eq!(docker(&daemon, "ps -a --format {{.Names}}"), "well");
    assert_eq!(docker(&daemon, "exec well echo well"), "well");
    let status = daemon.arca(&["daemon", "status"]).unwrap().stdout;
    assert!(status.contains(&damaged[..12]) && status.contains("damaged"), "{status}");
    let doctor = daemon.try_arca(&["doctor"]).unwrap().stdout;
    assert!(doctor.contains("1 not served") && doctor.contains(&damaged), "{doctor}");
    let disk = daemon.home().join("containers").join(&damaged).join("disk.img");
    assert!(disk.is_file());
    // The VM that no record names has gone; its files may be all that somebody has.
    assert!(!daemon.home().join("containers").join(&unknown).exists());
    let lost = daemon.home().join("containers.lost-1");
    assert!(lost.join(&unknown).join("disk.img").is_file());
    fs::remove_dir_all(lost).unwrap();
    let found = strays::strays(&daemon);
    assert!(found.len() == 1 && found[0].contains(&damaged), "{found:?}");
    // Its name is free; its record comes back as it was.
    docker(&daemon, "create --name damaged busybox true");
    docker(&daemon, "rm damaged");
    daemon.kill9().unwrap();
    change_record(daemon.home(), &damaged, |_| Some(original));
    daemon.start_again().unwrap();
    assert_eq!(docker(&daemon, "start -a damaged"), "");
    docker(&daemon, "rm -f damaged well");
    strays::assert_none(&daemon, SOON);
}

/// SPEC D13
#[test]
fn a_damaged_database_is_told_and_a_new_one_loses_no_files() {
    let daemon = fresh(&json!({}));
    let id = docker(&daemon, "create busybox true");
    daemon.kill9().unwrap();
    let store = daemon.home().join("store.redb");
    fs::OpenOptions::new().write(true).open(&store).unwrap().write_all(&[0xff; 4096]).unwrap();
    let refused = daemon.try_arca(&["daemon", "start"]).unwrap();
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("store.redb") && refused.stderr.contains("move it away"), "{refused:?}");
    fs::remove_file(&store).unwrap();
    daemon.start_again().unwrap();
    assert_eq!(docker(&daemon, "ps -aq"), "");
    assert!(daemon.home().join("containers.lost-1").join(&id).join("disk.img").is_file());
    docker(&daemon, "run --rm busybox true");
}

/// SPEC D1, D2, D9, D15
#[test]
fn killed_at_any_moment() {
    torture::run();
}
