//! Image configurations.

use crate::Reach;

pub(super) const WORDS: &[&str] = &[
    "\"config\":",
    "\"rootfs\":",
    "\"diff_ids\":",
    "\"history\":",
    "\"Env\":",
    "\"Cmd\":",
    "\"Healthcheck\":",
    "null",
    "{}",
    "[]",
    "\"created\":\"2026-01-02T03:04:05Z\"",
    "\"sha256:",
];

pub(super) fn target(data: &[u8]) -> Reach {
    let accepted = images::fuzzing::config(data);
    let parsed = serde_json::from_slice::<images::ImageConfig>(data);
    if let Ok(config) = &parsed {
        let text = serde_json::to_vec(config).unwrap_or_default();
        let again = serde_json::from_slice::<images::ImageConfig>(&text);
        assert_eq!(again.ok().as_ref(), Some(config), "a configuration does not survive being written");
    }
    Reach::of(parsed.is_ok(), accepted)
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    vec![
        br#"{"architecture":"amd64","os":"linux","created":"2026-01-02T03:04:05Z","history":[{"created_by":"x","empty_layer":true}],"config":{"Env":["A=b"],"Cmd":"sh","Entrypoint":["e"],"Labels":{"a":"b"},"Volumes":{"/data":{}},"Healthcheck":{"Test":["CMD","true"],"Interval":5},"User":"u:g","WorkingDir":"/w","StopSignal":"SIGTERM"},"rootfs":{"type":"layers","diff_ids":["sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"]}}"#.to_vec(),
        br#"{"config":null,"rootfs":null}"#.to_vec(),
    ]
}
