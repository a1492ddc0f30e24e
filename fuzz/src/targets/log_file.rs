//! A json-file log as a crash, a full disk or somebody's editor left it.

use futures::StreamExt;
use runner::logs::{Query, read};
use tokio::sync::watch;

use super::choice;
use crate::{Reach, scratch};

pub(super) fn target(data: &[u8]) -> Reach {
    let (how, text) = choice(data);
    let path = scratch::dir().join("file.log");
    if std::fs::write(&path, text).is_err() {
        return Reach::Refused;
    }
    let mut query = Query { tail: (how & 1 == 1).then_some(usize::from(how >> 3)), ..Query::default() };
    if how & 2 == 2 {
        query.since = Some((1_767_323_045, 6));
    }
    if how & 4 == 4 {
        query.until = Some((1_767_323_046, 0));
    }
    let (_sender, ended) = watch::channel(true);
    let entries = super::runtime().block_on(async { read(path, query, ended).count().await });
    let lines = text.iter().filter(|byte| **byte == b'\n').count();
    assert!(entries <= lines, "more entries than lines");
    Reach::of(lines > 0, entries > 0)
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let log: String = (0..20)
        .map(|n| format!("{{\"log\":\"line {n}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-02T03:04:{n:02}.000000006Z\"}}\n"))
        .collect();
    let damaged = format!(
        "{}\0\0\0{{\"log\":\"cut\n{log}{{\"log\":1}}\n{{\"log\":\"no newline\"",
        log.get(..200).unwrap_or_default()
    );
    [0, 0x29, 2, 4]
        .iter()
        .flat_map(|how| [[&[*how], log.as_bytes()].concat(), [&[*how], damaged.as_bytes()].concat()])
        .collect()
}
