//! Manifests and indexes of registries and archives.

use crate::Reach;

pub(super) const WORDS: &[&str] = &[
    "\"schemaVersion\":",
    "\"mediaType\":",
    "\"config\":",
    "\"layers\":",
    "\"manifests\":",
    "\"platform\":",
    "null",
    "{}",
    "[]",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "\"variant\":\"v8\"",
    "\"size\":-1",
];

pub(super) fn target(data: &[u8]) -> Reach {
    let parsed = serde_json::from_slice::<serde_json::Value>(data).is_ok();
    Reach::of(parsed, images::fuzzing::manifest(data))
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let digest = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
    [
        format!(r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":100}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{digest}","size":32}}]}}"#),
        format!(r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[{{"digest":"{digest}","size":1,"platform":{{"architecture":"arm64","os":"linux","variant":"v8"}}}},{{"digest":"{digest}","size":2,"platform":{{"architecture":"amd64","os":"linux"}}}}]}}"#),
        r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec()
}
