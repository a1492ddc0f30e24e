//! `docker exec`.

use std::time::Duration;

use crate::support::{Container, docker, eventually};

#[test]
fn runs_beside_the_main_process() {
    let container = Container::run("exec", "-e MAIN=1", "echo here > /tmp/f; sleep 300");
    eventually("the file", Duration::from_secs(20), || container.exec("cat /tmp/f").code == 0);
    assert_eq!(container.exec("cat /tmp/f; echo $MAIN").ok(), "here\n1");
    assert!(container.exec("ps -o pid,args").ok().contains("sleep 300"), "same PID namespace");
    assert_eq!(container.exec("exit 3").code, 3);
    let out = docker().run(&[
        "exec",
        "-e",
        "A=b",
        "-w",
        "/tmp",
        "-u",
        "guest",
        &container.name,
        "sh",
        "-c",
        "echo $A; pwd; id -un",
    ]);
    assert_eq!(out.ok(), "b\n/tmp\nguest");
}

#[test]
fn stdin_is_passed() {
    let container = Container::run("execin", "", "sleep 300");
    let out = docker().run_with(
        &["exec", "-i", &container.name, "md5sum"],
        b"hello".to_vec(),
        Duration::from_secs(30),
    );
    assert_eq!(out.ok(), "5d41402abc4b2a76b9719d911017c592  -");
}

#[test]
fn detached() {
    let container = Container::run("execd", "", "sleep 300");
    docker().run(&["exec", "-d", &container.name, "sh", "-c", "echo done > /tmp/detached"]).ok();
    eventually("the detached command", Duration::from_secs(20), || {
        container.exec("cat /tmp/detached").stdout == "done\n"
    });
}

#[test]
fn what_cannot_run() {
    let container = Container::run("execbad", "", "sleep 300");
    let run = |args: &[&str]| docker().run(&[&["exec", &container.name], args].concat());
    assert_eq!(run(&["nosuchcommand"]).code, 127);
    assert!(
        run(&["nosuchcommand"]).stdout.contains("executable file not found")
            || run(&["nosuchcommand"]).stderr.contains("executable file not found")
    );
    assert_eq!(run(&["/etc/passwd"]).code, 126);
    docker().run(&["stop", "-t", "0", &container.name]).ok();
    run(&["true"]).fails(1, "is not running");
    docker().sh("exec nosuchcontainer true").fails(1, "No such container: nosuchcontainer");
}

#[test]
fn fifty_in_a_row_lose_nothing() {
    let container = Container::run("execmany", "", "sleep 300");
    for n in 0..50 {
        let out = container.exec(&format!("echo line {n}; exit {n}"));
        assert_eq!((out.stdout.as_str(), out.code), (format!("line {n}\n").as_str(), n));
    }
    assert_eq!(container.inspect("{{json .ExecIDs}}"), "null", "no exec is left");
}
