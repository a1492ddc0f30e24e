//! Images: pulled from a registry, loaded from archives, tagged, removed.

use std::{fs::File, io::Write, path::Path, process::Command};

use serde_json::{Value, json};
use tests::{
    daemon::Daemon,
    docker::Docker,
    image::{Image, append},
    registry::Registry,
};

use crate::support::{Container, arca, docker};

fn archive(name: &str) -> std::path::PathBuf {
    tests::cache::images().join(format!("{name}.docker.tar"))
}

#[test]
fn pulled_from_a_registry() {
    // Another engine may not share this machine's loopback.
    let Some(_) = arca() else { return };
    let registry = Registry::start().unwrap();
    let reference = registry.push(&archive("busybox"), "team/box:1.0").unwrap();
    let out = docker().run(&["pull", &reference]);
    assert!(out.ok().contains("Digest: sha256:"), "{}", out.stdout);
    assert!(
        out.stdout.contains(&format!("Status: Downloaded newer image for {reference}")),
        "{}",
        out.stdout
    );
    assert_eq!(docker().run(&["run", "--rm", &reference, "echo", "pulled"]).ok(), "pulled");
    let again = docker().run(&["pull", &reference]);
    assert!(again.ok().contains(&format!("Status: Image is up to date for {reference}")), "{}", again.stdout);
    let digest = docker().run(&["image", "inspect", "-f", "{{index .RepoDigests 0}}", &reference]);
    assert!(digest.ok().contains("@sha256:"));
    docker().run(&["rmi", &reference]).ok();
    // docker run pulls what lacks.
    let run = docker().run(&["run", "--rm", &reference, "echo", "pulled by run"]);
    assert_eq!(run.ok(), "pulled by run");
    assert!(run.stderr.contains("Unable to find image"), "{}", run.stderr);
    docker().run(&["rmi", &reference]).ok();
}

#[test]
fn real_images_are_pulled_too() {
    let Some(_) = arca() else { return };
    let registry = Registry::start().unwrap();
    for name in ["debian", "nginx", "redis", "postgres"] {
        let reference = registry.push(&archive(name), &format!("real/{name}:1")).unwrap();
        let pulled = docker().run(&["pull", &reference]);
        assert!(pulled.ok().contains("Status: Downloaded newer image"), "{}", pulled.stdout);
        let version =
            docker().run(&["run", "--rm", "--entrypoint", "cat", &reference, "/etc/debian_version"]);
        assert!(version.ok().starts_with("12."), "{name}: {}", version.stdout);
        docker().run(&["rmi", &reference]).ok();
    }
}

#[test]
fn what_a_registry_lacks() {
    let Some(_) = arca() else { return };
    let registry = Registry::start().unwrap();
    registry.push(&archive("busybox"), "team/box:1.0").unwrap();
    let missing = docker().run(&["pull", &format!("{}/team/box:2.0", registry.address)]);
    missing.fails(1, "manifest unknown");
    docker().run(&["pull", &format!("{}/no/such:1", registry.address)]).fails(1, "/no/such:1 not found");
    docker().run(&["pull", "Upper/Case"]).fails(1, "must be lowercase");
    docker().run(&["pull", "127.0.0.1:1/x:1"]).fails(1, "connection refused");
}

#[test]
fn short_names_come_from_the_mirror() {
    let Some(_) = arca() else { return };
    let registry = Registry::start().unwrap();
    registry.push(&archive("busybox"), "library/busybox:latest").unwrap();
    let daemon =
        Daemon::with_config(&json!({ "registryMirrors": [format!("http://{}", registry.address)] })).unwrap();
    assert_eq!(daemon.docker().sh("run --rm busybox echo from the mirror").ok(), "from the mirror");
    let tags = daemon.docker().sh("images --format {{.Repository}}:{{.Tag}}");
    assert_eq!(tags.ok(), "busybox:latest");
}

#[test]
fn loaded_from_both_kinds_of_archive() {
    let dir = tempfile::tempdir().unwrap();
    let layer = layer_with(dir.path(), "f", b"content");
    for kind in ["docker", "oci"] {
        if kind == "oci" && arca().is_none() {
            // Docker reads a bare OCI layout only with its containerd store.
            continue;
        }
        let tag = format!("loaded-{kind}:1");
        let image =
            Image::new(&tag, vec![layer.clone()], &json!({ "Cmd": ["sh"], "Labels": { "kind": kind } }));
        let path = dir.path().join("archive.tar");
        if kind == "docker" { image.write_docker_archive(&path) } else { image.write_oci_archive(&path) }
            .unwrap();
        assert_eq!(
            docker().run(&["load", "-i", path.to_str().unwrap()]).ok(),
            format!("Loaded image: {tag}")
        );
        assert_eq!(docker().run(&["image", "inspect", "-f", "{{.Config.Labels.kind}}", &tag]).ok(), kind);
        docker().run(&["rmi", &tag]).ok();
    }
}

#[test]
fn tags_history_and_removal() {
    docker().sh("tag busybox tour/box:one").ok();
    docker().sh("tag tour/box:one tour/box:two").ok();
    let list = docker().run(&["images", "--filter", "reference=tour/*", "--format", "{{.Tag}}"]);
    let mut tags: Vec<_> = list.ok().lines().collect();
    tags.sort_unstable();
    assert_eq!(tags, ["one", "two"]);
    assert!(docker().sh("history tour/box:one").ok().contains("layer 0"));
    assert_eq!(docker().sh("rmi tour/box:one").ok(), "Untagged: tour/box:one");
    docker().sh("rmi tour/box:one").fails(1, "No such image: tour/box:one");
    docker().sh("rmi tour/box:two").ok();
    assert_eq!(docker().sh("run --rm busybox echo still here").ok(), "still here");
    docker().sh("tag busybox Bad/NAME").fails(1, "must be lowercase");
}

#[test]
fn an_image_in_use_stays() {
    let dir = tempfile::tempdir().unwrap();
    let docker = docker();
    let (tag, _) = derived(docker, dir.path(), "inuse:1", vec![]);
    let container = Container::run_image("inuse", "", &tag, &["sleep", "300"]);
    docker.run(&["rmi", &tag]).fails(1, "is using its referenced image");
    docker.run(&["rm", "-f", &container.name]).ok();
    docker.run(&["rmi", &tag]).ok();
}

/// Layers as overlayfs stacks them: a later layer replaces, removes and makes opaque.
#[test]
fn whiteouts_and_replaced_files() {
    let dir = tempfile::tempdir().unwrap();
    let upper = dir.path().join("upper.tar");
    let mut tar = tar::Builder::new(File::create(&upper).unwrap());
    append(&mut tar, "etc/.wh.group", b"").unwrap();
    append(&mut tar, "var/.wh..wh..opq", b"").unwrap();
    append(&mut tar, "var/only", b"new").unwrap();
    append(&mut tar, "etc/passwd", b"root:x:0:0:root:/elsewhere:/bin/sh\n").unwrap();
    tar.into_inner().unwrap().flush().unwrap();
    let (tag, _) = derived(docker(), dir.path(), "whiteouts:1", vec![upper]);
    let out = docker().run(&["run", "--rm", &tag, "sh", "-c", "ls /etc/group; ls /var; echo ~"]);
    assert_eq!(out.stdout, "only\n/elsewhere\n", "{}", out.stderr);
    docker().run(&["rmi", &tag]).ok();
}

#[test]
fn an_opaque_root_hides_all_below() {
    let dir = tempfile::tempdir().unwrap();
    let docker = docker();
    let _ = derived(docker, dir.path(), "opaque:base", vec![]);
    let upper = dir.path().join("opaque.tar");
    let mut tar = tar::Builder::new(File::create(&upper).unwrap());
    append(&mut tar, ".wh..wh..opq", b"").unwrap();
    let mut busybox = tar::Archive::new(File::open(dir.path().join("busybox/0/layer.tar")).unwrap());
    for entry in busybox.entries().unwrap() {
        let entry = entry.unwrap();
        let (mut header, path) = (entry.header().clone(), entry.path().unwrap().into_owned());
        match entry.link_name().unwrap() {
            Some(link) => tar.append_link(&mut header, path, link).unwrap(),
            None => tar.append_data(&mut header, path, entry).unwrap(),
        }
    }
    tar.into_inner().unwrap().flush().unwrap();
    let layers = vec![layer_with(dir.path(), "below", b"hidden"), upper];
    let path = dir.path().join("opaque.docker.tar");
    Image::new("opaque:1", layers, &json!({ "Cmd": ["sh"] })).write_docker_archive(&path).unwrap();
    docker.run(&["load", "-q", "-i", path.to_str().unwrap()]).ok();
    assert_eq!(docker.run(&["run", "--rm", "opaque:1", "sh", "-c", "ls /below; echo here"]).stdout, "here\n");
    docker.run(&["rmi", "opaque:1", "opaque:base"]).ok();
}

#[test]
fn a_hundred_and_twenty_seven_layers() {
    // Docker's overlay2 ends at 125.
    let Some(_) = arca() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut layers = Vec::new();
    for n in 0..126 {
        let path = dir.path().join(format!("{n}.tar"));
        let mut tar = tar::Builder::new(File::create(&path).unwrap());
        append(&mut tar, &format!("layers/{n}"), n.to_string().as_bytes()).unwrap();
        append(&mut tar, "layers/last", n.to_string().as_bytes()).unwrap();
        if n > 0 {
            append(&mut tar, &format!("layers/.wh.gone{}", n - 1), b"").unwrap();
        }
        append(&mut tar, &format!("layers/gone{n}"), b"").unwrap();
        tar.into_inner().unwrap().flush().unwrap();
        layers.push(path);
    }
    let (tag, image) = derived(docker(), dir.path(), "layers:127", layers);
    assert_eq!(image["RootFS"]["Layers"].as_array().unwrap().len(), 127);
    let out = docker().run(&[
        "run",
        "--rm",
        &tag,
        "sh",
        "-c",
        "ls /layers | wc -l; cat /layers/last; ls /layers | grep gone",
    ]);
    assert_eq!(out.ok(), "128\n125gone125");
    docker().run(&["rmi", &tag]).ok();
}

/// busybox with more layers on top; its tag and what inspect says.
fn derived(docker: &Docker, dir: &Path, tag: &str, more: Vec<std::path::PathBuf>) -> (String, Value) {
    let unpacked = dir.join("busybox");
    std::fs::create_dir_all(&unpacked).unwrap();
    let status =
        Command::new("tar").arg("xf").arg(archive("busybox")).arg("-C").arg(&unpacked).status().unwrap();
    assert!(status.success());
    let mut layers = vec![unpacked.join("0/layer.tar")];
    layers.push(layer_with(dir, "marker", tag.as_bytes()));
    if !more.is_empty() {
        layers.pop();
        layers.extend(more);
    }
    let path = dir.join("derived.tar");
    Image::new(tag, layers, &json!({ "Cmd": ["sh"] })).write_docker_archive(&path).unwrap();
    docker.run(&["load", "-q", "-i", path.to_str().unwrap()]).ok();
    let inspect = docker.run(&["image", "inspect", tag]);
    (tag.to_owned(), serde_json::from_str::<Value>(inspect.ok()).unwrap()[0].clone())
}

fn layer_with(dir: &Path, name: &str, data: &[u8]) -> std::path::PathBuf {
    let path = dir.join(format!("layer-{name}.tar"));
    let mut tar = tar::Builder::new(File::create(&path).unwrap());
    append(&mut tar, name, data).unwrap();
    tar.into_inner().unwrap().flush().unwrap();
    path
}
