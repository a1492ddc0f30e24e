//! What `docker load` is given: docker archives and OCI layouts.

use tar::EntryType;

use super::{choice, layer::entry};
use crate::{Reach, scratch};

pub(super) const WORDS: &[&str] = &[
    "manifest.json",
    "index.json",
    "blobs/sha256/",
    "repositories",
    "../",
    "/",
    "\"Config\":",
    "\"RepoTags\":",
    "\"Layers\":",
    "\"manifests\":",
    "\"annotations\":",
    "io.containerd.image.name",
    "\"digest\":\"sha256:",
];

pub(super) fn target(data: &[u8]) -> Reach {
    // The byte in front keeps `repair` the same for all archives.
    let (_, tar) = choice(data);
    let accepted = images::fuzzing::archive(tar, scratch::dir());
    Reach::of(
        tar::Archive::new(tar).entries().is_ok_and(|mut all| all.next().is_some_and(|one| one.is_ok())),
        accepted,
    )
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"]}}"#;
    let mut docker = vec![0];
    let manifest = br#"[{"Config":"c.json","RepoTags":["busybox:latest","a/b:1"],"Layers":["l/layer.tar"]}]"#;
    entry(&mut docker, EntryType::Regular, "manifest.json", "", manifest);
    entry(&mut docker, EntryType::Regular, "c.json", "", config);
    entry(&mut docker, EntryType::Symlink, "l/layer.tar", "../x.tar", b"");
    entry(&mut docker, EntryType::Regular, "x.tar", "", &[0; 1024]);
    docker.resize(docker.len() + 1024, 0);

    let mut layout = vec![0];
    entry(&mut layout, EntryType::Regular, "oci-layout", "", br#"{"imageLayoutVersion":"1.0.0"}"#);
    let mut blob = |bytes: &[u8]| {
        let digest = super::digest(bytes);
        entry(&mut layout, EntryType::Regular, &format!("blobs/sha256/{digest}"), "", bytes);
        format!(r#""digest":"sha256:{digest}","size":{}"#, bytes.len())
    };
    let layer = blob(&[0; 1024]);
    let config = blob(config);
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json",{config}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar",{layer}}}]}}"#
    );
    let manifest = blob(manifest.as_bytes());
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json",{manifest},"annotations":{{"io.containerd.image.name":"docker.io/library/busybox:1"}},"platform":{{"architecture":"amd64","os":"linux"}}}}]}}"#
    );
    entry(&mut layout, EntryType::Regular, "index.json", "", index.as_bytes());
    layout.resize(layout.len() + 1024, 0);
    vec![docker, layout]
}
