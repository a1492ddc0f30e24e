//! A process's output into the log, in any pieces, through rotations: every line that is left reads back, in order.

use futures::StreamExt;
use runner::logs::{LogStream, Query, read};
use tokio::sync::watch;

use crate::{Reach, scratch};

pub(super) fn target(data: &[u8]) -> Reach {
    let folder = scratch::dir().join("output");
    if std::fs::create_dir_all(&folder).is_err() {
        return Reach::Refused;
    }
    let log = folder.join("c.log");
    // The first byte of each piece says how long it is, and of which stream.
    let mut pieces = Vec::new();
    let mut rest = data;
    while let Some((head, behind)) = rest.split_first() {
        let (piece, behind) = behind.split_at(usize::from(head >> 1).pow(2).min(behind.len()));
        pieces.push((head & 1 == 1, piece));
        rest = behind;
    }
    let written = runner::fuzzing::log_output(&pieces, &log);
    let query = Query { tail: data.len().is_multiple_of(3).then_some(data.len() % 7), ..Query::default() };
    let (_sender, ended) = watch::channel(true);
    let entries: Vec<_> =
        super::runtime().block_on(async { read(log, query.clone(), ended).collect().await });
    let mut got = [Vec::new(), Vec::new()];
    for entry in entries.iter().flatten() {
        got[usize::from(entry.stream == LogStream::Stderr)].extend_from_slice(&entry.line);
    }
    for (error, got) in [false, true].into_iter().zip(&got) {
        let sent: Vec<u8> =
            pieces.iter().filter(|(e, _)| *e == error).flat_map(|(_, piece)| piece.iter().copied()).collect();
        // What is no UTF-8 is replaced, line by line; ASCII must be the end of what was written, whole.
        if sent.is_ascii() {
            assert!(sent.ends_with(got), "the log has something else than the output");
            let small = pieces.iter().map(|(_, piece)| piece.len()).sum::<usize>() < 600;
            assert!(!small || query.tail.is_some() || *got == sent, "output is missing from the log");
        }
    }
    let _ = std::fs::remove_dir_all(&folder);
    Reach::of(written, !entries.is_empty())
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut lines = vec![0xfe];
    lines.extend(b"a line of output\n".repeat(100));
    let mut long = vec![0xff];
    long.extend([b'x'; 16_000]);
    long.extend([0xfe]);
    long.extend(b"y\nz".repeat(100));
    vec![b"\x06one\ntwo\n\x05err\n".to_vec(), lines, long, b"\x08\xff\xfe\xf0\x9f\x98\x80\n".to_vec()]
}
