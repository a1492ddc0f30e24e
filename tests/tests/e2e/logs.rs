//! `docker logs`.

use std::time::{Duration, Instant};

use crate::support::{Container, docker};

#[test]
fn kept_after_the_exit() {
    let container =
        Container::run("logs", "", "echo err >&2; sleep 0.3; for i in 1 2 3 4 5; do echo line $i; done");
    container.wait();
    let out = container.logs();
    assert_eq!(out.ok(), "line 1\nline 2\nline 3\nline 4\nline 5");
    assert_eq!(out.stderr, "err\n");
    assert_eq!(docker().run(&["logs", "--tail", "2", &container.name]).stdout, "line 4\nline 5\n");
    let stamped = docker().run(&["logs", "-t", &container.name]);
    let first = stamped.ok().lines().next().unwrap();
    assert!(first.len() > 30 && first.contains("T") && first.ends_with("Z line 1"), "{first}");
    assert_eq!(docker().run(&["logs", "--until", "2020-01-01T00:00:00Z", &container.name]).ok(), "");
    assert_eq!(
        docker()
            .run(&["logs", "--since", "2020-01-01T00:00:00Z", "--tail", "all", &container.name])
            .ok()
            .lines()
            .count(),
        5
    );
}

#[test]
fn follow_ends_with_the_container() {
    let container = Container::run(
        "follow",
        "",
        "i=0; while [ $i -lt 10 ]; do echo tick $i; i=$((i+1)); sleep 0.2; done",
    );
    let out = docker().run(&["logs", "-f", &container.name]);
    assert_eq!(out.ok().lines().count(), 10, "{}", out.stdout);
    assert_eq!(out.stdout.lines().last().unwrap(), "tick 9");
}

#[test]
fn follow_tells_at_once() {
    let container = Container::named("live");
    docker()
        .run(&[
            "create",
            "-i",
            "--name",
            &container.name,
            "busybox",
            "sh",
            "-c",
            "while read x; do echo echo $x; done",
        ])
        .ok();
    docker().run(&["start", &container.name]).ok();
    let mut follow = docker().spawn(&["logs", "-f", &container.name]).unwrap();
    let started = Instant::now();
    let out = docker().run_with(&["attach", &container.name], b"a\nb\n".to_vec(), Duration::from_secs(60));
    assert_eq!(out.ok(), "echo a\necho b");
    assert!(follow.wait().unwrap().success());
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_line_without_an_end_and_a_very_long_one() {
    let container = Container::run("lines", "", "head -c 100000 /dev/zero | tr '\\0' x; echo; printf tail");
    container.wait();
    let out = container.logs();
    let mut lines = out.stdout.split('\n');
    assert_eq!(lines.next().unwrap().len(), 100_000);
    assert_eq!(lines.next().unwrap(), "tail");
}
