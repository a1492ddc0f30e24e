//! From create to remove.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Container, docker, eventually};

#[test]
fn create_start_stop_start_remove() {
    let container = Container::named("life");
    docker()
        .run(&[
            "create",
            "--name",
            &container.name,
            "busybox",
            "sh",
            "-c",
            "echo up; trap 'exit 3' TERM; while :; do sleep 0.1; done",
        ])
        .ok();
    assert_eq!(container.inspect("{{.State.Status}}"), "created");
    for round in 1..=2 {
        docker().run(&["start", &container.name]).ok();
        assert_eq!(container.inspect("{{.State.Status}} {{.State.ExitCode}}"), "running 0");
        eventually("output", Duration::from_secs(20), || container.logs().stdout.lines().count() == round);
        docker().run(&["stop", "-t", "20", &container.name]).ok();
        assert_eq!(container.inspect("{{.State.Status}} {{.State.ExitCode}}"), "exited 3");
    }
    docker().run(&["rm", &container.name]).ok();
    docker().run(&["inspect", &container.name]).fails(1, "No such object");
}

#[test]
fn files_live_through_a_restart() {
    let container = Container::run("keeps", "", "echo x >> /count; wc -l < /count; sleep 300");
    eventually("first", Duration::from_secs(20), || container.logs().stdout == "1\n");
    docker().run(&["restart", "-t", "0", &container.name]).ok();
    eventually("second", Duration::from_secs(20), || container.logs().stdout == "1\n2\n");
}

#[test]
fn stop_kills_after_the_grace() {
    let container = Container::run("stubborn", "", "trap '' TERM; while :; do sleep 0.1; done");
    let started = Instant::now();
    docker().run(&["stop", "-t", "1", &container.name]).ok();
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "137");
}

#[test]
fn kill_with_a_signal_and_wait() {
    let container =
        Container::run("kill", "", "trap 'echo usr1; exit 10' USR1; echo ready; while :; do sleep 0.1; done");
    eventually("ready", Duration::from_secs(20), || container.logs().stdout == "ready\n");
    let waiting = docker().spawn(&["wait", &container.name]).unwrap();
    docker().run(&["kill", "-s", "USR1", &container.name]).ok();
    assert_eq!(String::from_utf8(waiting.wait_with_output().unwrap().stdout).unwrap(), "10\n");
    assert_eq!(container.logs().stdout, "ready\nusr1\n");
    docker().run(&["kill", &container.name]).fails(1, "is not running");
    docker().run(&["kill", "-s", "NOSUCH", &container.name]).fails(1, "nvalid signal");
}

#[test]
fn remove_needs_force_while_running() {
    let container = Container::run("rm", "", "sleep 300");
    docker()
        .run(&["rm", &container.name])
        .fails(1, "container is running: stop the container before removing or force remove");
    docker().run(&["rm", "-f", &container.name]).ok();
    docker().run(&["rm", "nosuch"]).fails(1, "No such container: nosuch");
}

#[test]
fn auto_remove() {
    let container = Container::run("auto", "--rm", "exit 0");
    eventually("gone", Duration::from_secs(30), || docker().run(&["inspect", &container.name]).code != 0);
}

#[test]
fn rename_and_pause() {
    let container = Container::run("pause", "", "while :; do date +%s%N; sleep 0.1; done");
    docker().run(&["pause", &container.name]).ok();
    assert_eq!(
        container.inspect("{{.State.Status}} {{.State.Paused}} {{.State.Running}}"),
        "paused true true"
    );
    assert!(docker().run(&["ps", "--filter", &format!("name={}", container.name)]).ok().contains("(Paused)"));
    let before = container.logs().stdout;
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(container.logs().stdout, before, "nothing is written while paused");
    docker().run(&["exec", &container.name, "true"]).fails(1, "is paused");
    docker().run(&["unpause", &container.name]).ok();
    eventually("more output", Duration::from_secs(20), || container.logs().stdout.len() > before.len());
    let other = Container::named("renamed");
    docker().run(&["rename", &container.name, &other.name]).ok();
    assert_eq!(other.inspect("{{.Name}}"), format!("/{}", other.name));
}

#[test]
fn top_and_stats() {
    let container = Container::run("top", "-m 100m", "sleep 1234");
    let top = docker().run(&["top", &container.name]);
    assert!(top.ok().starts_with("UID") && top.stdout.contains("sleep 1234"), "{}", top.stdout);
    let columns = docker().run(&["top", &container.name, "-o", "pid,comm"]);
    assert_eq!(
        columns.ok().lines().next().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["PID", "COMMAND"]
    );
    let stats = docker().run(&[
        "stats",
        "--no-stream",
        "--format",
        "{{.Name}} {{.MemUsage}} {{.PIDs}}",
        &container.name,
    ]);
    let words: Vec<_> = stats.ok().split_whitespace().collect();
    assert_eq!(words[0], container.name);
    assert!(words.contains(&"100MiB"), "{words:?}");
    assert!(words.last().unwrap().parse::<u32>().unwrap() >= 1, "{words:?}");
}

#[test]
fn events_tell_the_story() {
    let container = Container::named("events");
    let filter = format!("container={}", container.name);
    let mut live = docker().spawn(&["events", "--filter", &filter, "--format", "{{json .}}"]).unwrap();
    // The stream is live once its first event shows; nothing tells before that, so make it show.
    docker().run(&["create", "--name", &container.name, "busybox", "sh", "-c", "exit 4"]).ok();
    docker().run(&["start", &container.name]).ok();
    container.wait();
    docker().run(&["rm", &container.name]).ok();
    // The CLI rounds to seconds: an end in the future takes in the last event.
    let until = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 2;
    let since = docker().run(&[
        "events",
        "--since",
        "10m",
        "--until",
        &until.to_string(),
        "--filter",
        &filter,
        "--format",
        "{{json .}}",
    ]);
    let events: Vec<Value> = since.ok().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let actions: Vec<_> = events.iter().map(|event| event["Action"].as_str().unwrap().to_owned()).collect();
    let known: Vec<_> = actions
        .iter()
        .map(String::as_str)
        .filter(|action| ["create", "start", "die", "destroy"].contains(action))
        .collect();
    assert_eq!(known, ["create", "start", "die", "destroy"]);
    let die = events.iter().find(|event| event["Action"] == "die").unwrap();
    assert_eq!(die["Actor"]["Attributes"]["exitCode"], "4");
    assert_eq!(die["Actor"]["Attributes"]["image"], "busybox");
    live.kill().unwrap();
    let said = String::from_utf8(live.wait_with_output().unwrap().stdout).unwrap();
    assert!(said.contains("\"destroy\""), "live events: {said}");
}

#[test]
fn list_filters() {
    let container = Container::run("filters", "--label f=1", "exit 2");
    container.wait();
    let ps = |filter: &str| {
        let by_name = format!("name={}", container.name);
        docker()
            .run(&["ps", "-a", "-q", "--no-trunc", "--filter", &by_name, "--filter", filter])
            .ok()
            .to_owned()
    };
    let id = container.inspect("{{.Id}}");
    for filter in
        ["status=exited", "exited=2", "label=f", "label=f=1", "ancestor=busybox", &format!("id={}", &id[..8])]
    {
        assert_eq!(ps(filter), id, "{filter}");
    }
    for filter in ["status=running", "exited=0", "label=f=2", "label=g", "id=ffffffffffff"] {
        assert_eq!(ps(filter), "", "{filter}");
    }
    docker().run(&["ps", "--filter", "nosuch=1"]).fails(1, "invalid filter 'nosuch'");
    assert!(
        docker()
            .run(&["ps", "-a", "--filter", &format!("name={}", container.name), "--format", "{{.Status}}"])
            .ok()
            .starts_with("Exited (2) ")
    );
}

#[test]
fn prune_takes_what_has_ended() {
    let ended = Container::run("prune", "--label prune=me", "true");
    ended.wait();
    let lives = Container::run("prune", "--label prune=me", "sleep 300");
    let out = docker().run(&["container", "prune", "-f", "--filter", "label=prune=me"]);
    assert!(out.ok().contains("Deleted Containers:"), "{}", out.stdout);
    assert_ne!(docker().run(&["inspect", &ended.name]).code, 0);
    assert_eq!(lives.inspect("{{.State.Running}}"), "true");
}
