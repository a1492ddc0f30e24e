//! Query strings and the JSON of `filters`.

use host_shim::fuzzing::{filters, query};

use super::choice;
use crate::Reach;

pub(super) const WORDS: &[&str] = &[
    "filters=",
    "%7B%22label%22%3A%5B%22a%3Db%22%5D%7D",
    "&since=",
    "&until=",
    "&tail=",
    "&h=",
    "&w=",
    "&t=",
    "&detachKeys=ctrl-",
    "%",
    "%00",
    "%ff",
    "+",
    "&",
    "=",
    "{\"label\":{\"a\":true}}",
    "{\"until\":[\"1h\"]}",
    "24h10m",
    "2026-01-02T03:04:05Z",
    "1.5",
    "\"dangling\":[\"true\"]",
    "\"status\":[\"exited\"]",
    "all",
    "9223372036854775807",
    "170141183460469231731687303715.999999999",
];

pub(super) fn target(data: &[u8]) -> Reach {
    let (which, text) = choice(data);
    let Ok(text) = std::str::from_utf8(text) else { return Reach::Refused };
    let accepted = if which & 1 == 0 { query(text) } else { filters(text) };
    Reach::of(which & 1 == 0 || serde_json::from_str::<serde_json::Value>(text).is_ok(), accepted)
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [
        "all=1&limit=5&size=true&filters=%7B%22label%22%3A%5B%22a%3Db%22%5D%2C%22until%22%3A%5B%2224h%22%5D%7D",
        "stdout=1&stderr=1&follow=0&tail=100&since=1700000000.5&until=2026-01-02T03:04:05Z&timestamps=1",
        "h=24&w=80&t=10&signal=SIGKILL&detachKeys=ctrl-p%2Cctrl-q&stdin=1&stream=true",
        "path=%2Fetc%2Fhosts&name=web&fromImage=busybox&tag=1&repo=a%2Fb",
    ]
    .map(|text| [b"\0", text.as_bytes()].concat())
    .to_vec();
    for text in [
        r#"{"label":["a=b","c"],"until":["2026-01-02T03:04:05Z"]}"#,
        r#"{"name":{"x":true},"status":{"running":true}}"#,
    ] {
        seeds.push([b"\x01", text.as_bytes()].concat());
    }
    seeds
}
