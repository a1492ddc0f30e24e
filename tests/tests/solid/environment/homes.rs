//! Homes: deep, odd, impossible, somebody else's; and who may read what is in them.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
    time::Duration,
};

use serde_json::json;
use tests::daemon::Setup;

use super::prepare;

/// SPEC E19
#[test]
fn deep_and_odd_homes_work() {
    let dir = tempfile::tempdir().unwrap();
    let odd = "a b'c\"d,e=f;g$i\\j";
    for name in [odd.to_owned(), format!("{odd}/{}", "deep".repeat(40))] {
        let home = dir.path().join(name);
        fs::create_dir_all(&home).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
        let daemon = prepare(Setup { config: json!({}), home: Some(home.clone()), ..Setup::default() });
        let out = daemon.arca(&["daemon", "start"]).unwrap();
        // What it prints is for a shell.
        let export = out.stdout.lines().find(|line| line.starts_with("export ")).unwrap();
        let host = Command::new("sh")
            .args(["-c", &format!("{export}; printf %s \"$DOCKER_HOST\"")])
            .output()
            .unwrap();
        let host = String::from_utf8(host.stdout).unwrap();
        let docker = tests::docker::Docker::new(&host, dir.path());
        let busybox = tests::cache::images().join("busybox.docker.tar");
        docker.run(&["load", "-q", "-i", &busybox.to_string_lossy()]).ok();
        docker.sh("run -d --name survivor busybox sleep 600").ok();
        daemon.arca(&["daemon", "stop"]).unwrap();
        daemon.arca(&["daemon", "start"]).unwrap();
        assert_eq!(docker.sh("exec survivor echo here").ok(), "here", "{}", home.display());
        docker.sh("rm -f survivor").ok();
        assert_eq!(fs::metadata(fs::canonicalize(home.join("run")).unwrap()).unwrap().mode() & 0o777, 0o700);
    }
}

/// SPEC E11
#[test]
fn homes_that_are_none_or_somebody_elses_are_refused() {
    let dir = super::open_folder();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("file"), "").unwrap();
    symlink("/nowhere/at/all", path("dangling")).unwrap();
    fs::create_dir(path("open")).unwrap();
    fs::set_permissions(path("open"), fs::Permissions::from_mode(0o777)).unwrap();
    let mut cases = vec![
        (path("file"), vec!["is not a folder"]),
        (path("dangling"), vec!["is a symbolic link to /nowhere/at/all, which is not there"]),
        (path("open"), vec!["may be written by every user (mode 777)", "chmod o-w"]),
        (Path::new("/tmp/arca\nhome").to_owned(), vec!["control character"]),
        (Path::new("/proc/arca").to_owned(), vec!["cannot make the folder /proc/arca"]),
    ];
    if super::is_root() {
        fs::create_dir(path("hers")).unwrap();
        std::os::unix::fs::chown(path("hers"), Some(12345), Some(12345)).unwrap();
        cases.push((path("hers"), vec!["belongs to user 12345, this is user 0"]));
    } else {
        cases.push((Path::new("/usr").to_owned(), vec!["belongs to user 0, this is user"]));
    }
    for (home, words) in cases {
        for command in ["run", "start"] {
            let mut arca = Command::new(tests::cache::arca());
            arca.args(["daemon", command]).env("ARCA_HOME", &home);
            let out = tests::docker::finish(arca, Vec::new(), Duration::from_secs(60)).unwrap();
            assert_eq!(out.code, 1, "{out:?}");
            for word in &words {
                assert!(out.stderr.contains(word), "{word:?} lacks: {}", out.stderr);
            }
        }
    }
    let mut arca = Command::new(tests::cache::arca());
    arca.args(["daemon", "start"]).env_remove("ARCA_HOME").env_remove("HOME");
    tests::docker::finish(arca, Vec::new(), Duration::from_secs(60))
        .unwrap()
        .fails(1, "neither ARCA_HOME nor HOME is set");
}

/// SPEC E13
#[test]
fn files_are_private_whatever_the_umask() {
    let wrapper = ["sh", "-c", "umask 0; exec \"$@\"", "sh"].map(str::to_owned).to_vec();
    let daemon = prepare(Setup { config: json!({}), wrapper, ..Setup::default() });
    fs::set_permissions(daemon.home(), fs::Permissions::from_mode(0o755)).unwrap();
    daemon.arca(&["daemon", "start"]).unwrap();
    daemon.load("busybox").unwrap();
    let docker = daemon.docker();
    docker.sh("run -d --name c1 busybox sleep 600").ok();
    docker.sh("exec c1 true").ok();
    docker.sh("cp c1:/etc/hostname -").ok();
    let mut folders = vec![daemon.home().to_owned()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, found) = (entry.path(), entry.metadata().unwrap());
            if path.ends_with("client") || path.ends_with("config.json") {
                continue;
            }
            let allowed = if path.ends_with("arca.sock") { 0o660 } else { 0o700 };
            assert_eq!(found.mode() & 0o777 & !allowed, 0, "{} {:o}", path.display(), found.mode());
            seen += 1;
            if found.is_dir() {
                folders.push(path);
            }
        }
    }
    assert!(seen > 20, "{seen}");
    docker.sh("rm -f c1").ok();
}
