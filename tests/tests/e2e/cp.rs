//! `docker cp`, `docker diff`: on running, stopped and created containers.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use crate::support::{Container, docker, eventually};

#[test]
fn there_and_back_while_running() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("file"), vec![7; 100_000]).unwrap();
    fs::write(tree.join("sub/script"), "#!/bin/sh\necho ran\n").unwrap();
    fs::set_permissions(tree.join("sub/script"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("sub/script", tree.join("link")).unwrap();
    let container = Container::run("cp", "", "sleep 300");
    docker().run(&["cp", tree.to_str().unwrap(), &format!("{}:/tmp", container.name)]).ok();
    assert_eq!(
        container.exec("/tmp/tree/link; wc -c < /tmp/tree/file; readlink /tmp/tree/link").ok(),
        "ran\n100000\nsub/script"
    );
    let back = dir.path().join("back");
    docker().run(&["cp", &format!("{}:/tmp/tree", container.name), back.to_str().unwrap()]).ok();
    assert_eq!(fs::read(back.join("file")).unwrap(), vec![7; 100_000]);
    assert_eq!(fs::metadata(back.join("sub/script")).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::read_link(back.join("link")).unwrap().to_str().unwrap(), "sub/script");
}

#[test]
fn into_a_created_container_and_out_of_a_stopped_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("greeting");
    fs::write(&file, "from the host\n").unwrap();
    let container = Container::named("cpcreated");
    docker()
        .run(&[
            "create",
            "--name",
            &container.name,
            "busybox",
            "sh",
            "-c",
            "cat /greeting; echo inside > /result",
        ])
        .ok();
    docker().run(&["cp", file.to_str().unwrap(), &format!("{}:/greeting", container.name)]).ok();
    assert_eq!(docker().run(&["start", "-a", &container.name]).ok(), "from the host");
    let result = dir.path().join("result");
    docker().run(&["cp", &format!("{}:/result", container.name), result.to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(result).unwrap(), "inside\n");
    assert_eq!(container.inspect("{{.State.Status}}"), "exited", "the VM that served the copy is not seen");
}

#[test]
fn missing_paths_are_told() {
    let container = Container::run("cpmissing", "", "sleep 300");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let (file, dir) = (file.to_str().unwrap(), dir.path().to_str().unwrap());
    // The CLI of Debian 12 has words of its own before the path; the engine's are checked over HTTP.
    docker().run(&["cp", &format!("{}:/no/such", container.name), dir]).fails(1, "/no/such");
    docker().run(&["cp", file, &format!("{}:/no/such/dir/", container.name)]).fails(1, "no such directory");
    let answer = crate::api::get(&format!("/v1.51/containers/{}/archive?path=/no/such", container.name));
    let expected = format!("Could not find the file /no/such in container {}", container.name);
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains(&expected), "{answer}");
}

#[test]
fn diff_tells_what_changed() {
    let container = Container::run(
        "diff",
        "",
        "echo x > /new; mkdir /d; echo y > /d/f; rm /etc/group; echo z >> /etc/passwd; sleep 300",
    );
    eventually("the changes", Duration::from_secs(20), || container.exec("grep -q z /etc/passwd").code == 0);
    // Docker gives no order.
    let diff = || {
        let mut lines: Vec<_> =
            docker().run(&["diff", &container.name]).ok().lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines.join("\n")
    };
    let running = diff();
    for change in ["A /new", "A /d", "A /d/f", "C /etc", "D /etc/group", "C /etc/passwd"] {
        assert!(running.lines().any(|line| line == change), "{change} lacks:\n{running}");
    }
    for hidden in ["resolv.conf", "/etc/hosts", "/proc", "/sys", "/dev"] {
        assert!(!running.contains(hidden), "{hidden} shows:\n{running}");
    }
    docker().run(&["stop", "-t", "0", &container.name]).ok();
    assert_eq!(diff(), running, "the same once stopped");
}
