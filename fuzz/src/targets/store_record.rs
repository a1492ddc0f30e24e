//! A container's record in the daemon's database: refused, or a record that can be stored, shown and started.

use crate::Reach;

pub(super) const WORDS: &[&str] = &[
    "\"version\":1",
    "\"id\":\"a\"",
    "\"name\":",
    "\"state\":{",
    "\"status\":\"running\"",
    "\"exit_code\":",
    "null",
    "{}",
    "[]",
    "\"host_config\":{",
    "\"args\":[\"x\"]",
    "\"Memory\":",
    "\"NanoCpus\":",
    "\"finished_at\":\"9999-12-31T23:59:59Z\"",
];

pub(super) fn target(data: &[u8]) -> Reach {
    let parsed = serde_json::from_slice::<serde_json::Value>(data).is_ok();
    Reach::of(parsed, host_shim::fuzzing::store_record(data))
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let record = |id: &str, config: &str, host: &str, state: &str| {
        format!(
            r#"{{"version":1,"id":"{id}","name":"web","created":"2026-01-02T03:04:05Z","image_id":"sha256:abc","platform":"linux","args":["sh"],"config":{config},"host":{host},"networking":null,"state":{state},"restart_count":0,"manually_stopped":false}}"#
        )
        .into_bytes()
    };
    vec![
        record("a", "{}", "{}", "{}"),
        record(
            "0123456789abcdef",
            r#"{"Image":"busybox","Env":["A=b"],"Cmd":["sh"],"Tty":true,"StopTimeout":5,"Labels":{"a":"b"}}"#,
            r#"{"Memory":67108864,"NanoCpus":500000000,"Binds":["/a:/b"],"LogConfig":{"Type":"json-file","Config":{"max-size":"10m"}},"Tmpfs":{"/t":"size=1m"}}"#,
            r#"{"status":"exited","exit_code":137,"started_at":"2026-01-02T03:04:05.5Z","finished_at":"2026-01-02T03:04:06Z","oom_killed":true}"#,
        ),
    ]
}
