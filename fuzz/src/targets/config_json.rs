//! The daemon's `config.json`.

use std::path::Path;

use host_shim::config::Config;

use crate::Reach;

pub(super) const WORDS: &[&str] = &[
    "\"networkBackend\":",
    "\"ovs\"",
    "\"kernelPath\":",
    "\"logLevel\":\"debug\"",
    "\"registryMirrors\":[\"http://x\"]",
    "\"insecureRegistries\":",
    "\"dns\":[\"1.1.1.1\"]",
    "\"defaultCpus\":",
    "\"defaultMemory\":\"512m\"",
    "\"bootTimeout\":\"60s\"",
    "\"maxLayerSize\":\"1g\"",
    "\"maxLayerFiles\":",
    "null",
];

pub(super) fn target(data: &[u8]) -> Reach {
    let parsed = serde_json::from_slice::<serde_json::Value>(data).is_ok();
    let accepted = match Config::parse(Path::new("config.json"), data) {
        Ok(_) => true,
        // The message is for a user: it must be there, whatever the input.
        Err(error) => error.to_string().is_empty(),
    };
    Reach::of(parsed, accepted)
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    vec![
        br#"{"networkBackend":"ovs","kernelPath":"/k","initramfsPath":"/i","socketPath":"/s","logLevel":"info","registryMirrors":["https://m.example"],"insecureRegistries":["127.0.0.1:5000"],"dns":["1.1.1.1","::1"],"defaultCpus":2,"defaultMemory":"512m"}"#.to_vec(),
        br#"{"bootTimeout":"60s","maxLayerSize":"10g","maxLayerFiles":1000000}"#.to_vec(),
        b"{}".to_vec(),
    ]
}
