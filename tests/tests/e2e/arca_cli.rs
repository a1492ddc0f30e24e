//! The `arca` command: daemon start, stop, status; doctor; the configuration file.

use std::{fs, process::Command, time::Duration};

use serde_json::json;
use tests::{cache, daemon::Daemon, docker::finish};

use crate::support::arca;

#[test]
fn start_status_stop() {
    let Some(_) = arca() else { return };
    let daemon = Daemon::start().unwrap();
    daemon.load("busybox").unwrap();
    let status = daemon.arca(&["daemon", "status"]).unwrap();
    assert!(
        status.stdout.contains("arca.sock") && status.stdout.contains("tcg") || status.stdout.contains("kvm"),
        "{}",
        status.stdout
    );
    let again = daemon.arca(&["daemon", "start"]).unwrap();
    assert!(again.stdout.contains("already"), "{again:?}");
    daemon
        .docker()
        .run(&[
            "run",
            "-d",
            "--name",
            "survivor",
            "busybox",
            "sh",
            "-c",
            "echo a; sleep 5; echo b; sleep 600",
        ])
        .ok();
    assert!(daemon.arca(&["daemon", "status"]).unwrap().stdout.contains("survivor"));
    daemon.arca(&["daemon", "stop"]).unwrap();
    assert_ne!(daemon.try_arca(&["daemon", "status"]).unwrap().code, 0);
    daemon.docker().run(&["ps"]).fails(1, "Is the docker daemon running?");
    // The container went on, and the next daemon adopts it with all it wrote meanwhile.
    daemon.arca(&["daemon", "start"]).unwrap();
    assert_eq!(daemon.docker().run(&["inspect", "-f", "{{.State.Running}}", "survivor"]).ok(), "true");
    assert_eq!(daemon.docker().run(&["exec", "survivor", "echo", "still here"]).ok(), "still here");
    crate::support::eventually("both lines", Duration::from_secs(20), || {
        daemon.docker().run(&["logs", "survivor"]).stdout == "a\nb\n"
    });
    daemon.docker().run(&["rm", "-f", "survivor"]).ok();
}

#[test]
fn doctor_names_each_prerequisite() {
    let Some(daemon) = arca() else { return };
    let out = daemon.arca(&["doctor"]).unwrap();
    for word in ["qemu", "kvm", "kernel", "initramfs", "mke2fs"] {
        assert!(out.stdout.contains(word), "{word} lacks:\n{}", out.stdout);
    }
}

#[test]
fn a_bad_configuration_is_refused_by_name() {
    let Some(_) = arca() else { return };
    for (config, words) in [
        (json!({ "networkBackend": "wifi" }), vec!["config.json", "networkBackend", "ovs", "vmnet"]),
        (json!({ "logLevel": "loud" }), vec!["config.json", "logLevel", "debug", "info"]),
        (json!({ "kernelpath": "/x" }), vec!["config.json", "kernelpath", "kernelPath"]),
        (json!({ "defaultCpus": "two" }), vec!["config.json", "defaultCpus"]),
        (json!({ "defaultMemory": "lots" }), vec!["config.json", "defaultMemory"]),
    ] {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("config.json"), config.to_string()).unwrap();
        let mut command = Command::new(cache::arca());
        command.args(["daemon", "start"]).env("ARCA_HOME", home.path());
        let out = finish(command, Vec::new(), Duration::from_secs(60)).unwrap();
        assert_eq!(out.code, 1, "{config} was taken");
        for word in words {
            assert!(out.stderr.contains(word), "{word} lacks for {config}: {}", out.stderr);
        }
    }
}

#[test]
fn a_second_daemon_on_one_home_is_refused() {
    let Some(daemon) = arca() else { return };
    let out = daemon.try_arca(&["daemon", "run"]).unwrap();
    assert_eq!(out.code, 1);
    assert!(out.stderr.contains("already"), "{}", out.stderr);
}

#[test]
fn a_vm_is_recognisable_by_its_name() {
    let Some(_) = arca() else { return };
    let container = crate::support::Container::run("vmname", "", "sleep 300");
    let id = container.inspect("{{.Id}}");
    let name = format!("arca-{}", &id[..12]);
    let found = Command::new("pgrep").args(["-f", "--", &format!("-name {name}")]).output().unwrap();
    assert!(found.status.success(), "no process with -name {name}");
}
