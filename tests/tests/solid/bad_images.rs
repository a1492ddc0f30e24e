//! Images, layers and registries that lie, as a user of the docker CLI meets them. Every kind of lie is tested in `images/tests` and
//! `diskimg/tests`; here only that the daemon's answer and its folders are right.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use sha2::{Digest, Sha256};
use tests::daemon::Daemon;

use crate::support::{eventually, fresh, shared};

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn config(layer: &[u8]) -> Vec<u8> {
    json!({"os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest(layer)]}}).to_string().into_bytes()
}

/// What `docker save` would write, gzipped.
fn archive(tag: &str, layer: &[u8]) -> Vec<u8> {
    let manifest = json!([{"Config": "c.json", "RepoTags": [tag], "Layers": ["l.tar"]}]).to_string();
    let files = [("c.json", &config(layer)[..]), ("l.tar", layer), ("manifest.json", manifest.as_bytes())];
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&tar(&files)).unwrap();
    packed.finish().unwrap()
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

/// The image is not there, and nothing half-made is.
#[track_caller]
fn nothing_left(daemon: &Daemon, tag: &str, disks: usize) {
    daemon.docker().run(&["image", "inspect", tag]).fails(1, "No such image");
    let images = daemon.home().join("images");
    eventually("no half-made file is left", Duration::from_secs(10), || files(&images.join("tmp")) == 0);
    assert_eq!(files(&images.join("disks")), disks, "a disk of {tag} is left");
}

#[track_caller]
fn load(daemon: &Daemon, archive: Vec<u8>) -> tests::docker::Output {
    daemon.docker().run_with(&["load"], archive, Duration::from_secs(120))
}

/// SPEC I4, I6
#[test]
fn hostile_archives_are_refused_by_docker_load() {
    let daemon = fresh(&json!({}));
    let disks = files(&daemon.home().join("images/disks"));
    load(&daemon, archive("evil:1", &tar(&[("../../../tmp/arca-evil", b"x")])))
        .fails(1, "failed to register layer");
    nothing_left(&daemon, "evil:1", disks);
    let passwd = json!([{"Config": "../../etc/passwd", "RepoTags": ["evil:2"], "Layers": []}]).to_string();
    load(&daemon, tar(&[("manifest.json", passwd.as_bytes())])).fails(1, "leads out of it");
    load(&daemon, tar(&[("/etc/passwd", b"x"), ("manifest.json", b"[]")])).fails(1, "leads out of it");
    load(&daemon, b"this is no archive at all".to_vec()).fails(1, "invalid archive");
    let mut cut = archive("evil:3", &tar(&[("f", b"x")]));
    cut.truncate(cut.len() - 20);
    load(&daemon, cut).fails(1, "cannot read the archive");
    nothing_left(&daemon, "evil:3", disks);
    assert!(!Path::new("/tmp/arca-evil").exists());
    // The daemon goes on.
    assert!(load(&daemon, archive("good:1", &tar(&[("f", b"x")]))).ok().contains("Loaded image: good:1"));
}

/// SPEC I8
#[test]
fn a_layer_bomb_ends_at_the_configured_limit() {
    let daemon = fresh(&json!({"maxLayerSize": "16m", "maxLayerFiles": 2000}));
    let disks = files(&daemon.home().join("images/disks"));
    let out = load(&daemon, archive("bomb:1", &tar(&[("bomb", &vec![b'x'; 20 << 20])])));
    out.fails(1, "exceeds the limit of 16777216 bytes");
    out.fails(1, "raise maxLayerSize in config.json");
    nothing_left(&daemon, "bomb:1", disks);
    let names: Vec<String> = (0..3000).map(|n| n.to_string()).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let out = load(&daemon, archive("bomb:2", &tar(&many)));
    out.fails(1, "exceeds the limit of 2000 files");
    out.fails(1, "raise maxLayerFiles in config.json");
    nothing_left(&daemon, "bomb:2", disks);
}

/// A registry with one image `a`, whose layer's answer is `send` (then silence, if it is shorter than stated).
struct Registry {
    host: String,
    /// Connections that wait in the middle of a layer.
    waiting: Arc<AtomicUsize>,
}

fn registry(layer: Vec<u8>, send: Vec<u8>) -> Registry {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let waiting = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&waiting);
    std::thread::spawn(move || {
        let config = config(&layer);
        let descriptor =
            |bytes: &[u8]| json!({"mediaType": "x", "digest": digest(bytes), "size": bytes.len()});
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": descriptor(&config), "layers": [descriptor(&layer)]});
        let (manifest, blob) = (manifest.to_string().into_bytes(), digest(&layer));
        for stream in listener.incoming() {
            let (mut stream, config, manifest, blob, send) =
                (stream.unwrap(), config.clone(), manifest.clone(), blob.clone(), send.clone());
            let (length, count) = (layer.len(), Arc::clone(&count));
            std::thread::spawn(move || {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read_exact(&mut byte).is_err() {
                        return;
                    }
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head);
                let path = head.split(' ').nth(1).unwrap_or_default();
                let (body, length) = if path.contains("/manifests/") {
                    (&manifest, manifest.len())
                } else if path.ends_with(&digest(&config)) {
                    (&config, config.len())
                } else if path.ends_with(&blob) {
                    (&send, length)
                } else {
                    (&Vec::new(), 0)
                };
                let head = format!(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
                );
                if stream.write_all(&[head.as_bytes(), body].concat()).is_ok() && body.len() < length {
                    count.fetch_add(1, Ordering::SeqCst);
                    // Until the other side hangs up.
                    let _ = stream.read(&mut [0]);
                    count.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    Registry { host, waiting }
}

/// SPEC I1
#[test]
fn a_changed_layer_is_refused_by_docker_pull() {
    let daemon = shared();
    let layer = tar(&[("f", b"good content")]);
    let changed = tar(&[("f", b"evil content")]);
    let name = format!("{}/a", registry(layer.clone(), changed).host);
    daemon.docker().run(&["pull", &name]).fails(1, "filesystem layer verification failed for digest sha256:");
    daemon.docker().run(&["image", "inspect", &name]).fails(1, "No such image");
    let name = format!("{}/a", registry(layer.clone(), layer).host);
    daemon.docker().run(&["pull", &name]).ok();
}

/// SPEC I11
#[test]
fn a_pull_ends_with_its_client() {
    let daemon = fresh(&json!({}));
    let disks = files(&daemon.home().join("images/disks"));
    let layer = tar(&[("f", &vec![b'x'; 100_000])]);
    let half = layer[..50_000].to_vec();
    let registry = registry(layer, half);
    let name = format!("{}/a", registry.host);
    let mut client = daemon.docker().spawn(&["pull", &name]).unwrap();
    let waiting = || registry.waiting.load(Ordering::SeqCst);
    eventually("the layer is being downloaded", Duration::from_secs(30), || waiting() == 1);
    client.kill().unwrap();
    client.wait().unwrap();
    // Long before the download would be given up as stalled.
    eventually("the download ends", Duration::from_secs(10), || waiting() == 0);
    nothing_left(&daemon, &name, disks);
}
