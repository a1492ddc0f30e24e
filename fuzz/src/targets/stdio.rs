//! What a guest says on a Stdio stream: offsets, acknowledgements and ends, in any order, into pump and log.

use prost::Message;
use proto::sandbox::{OutputChunk, StdinAck, StdioOpened, StdioResponse, stdio_response::Kind};

use crate::{Reach, scratch};

/// Messages, each behind its length in two bytes.
fn messages(mut data: &[u8]) -> Vec<StdioResponse> {
    let mut messages = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk() {
        let (message, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        messages.extend(StdioResponse::decode(message));
        data = rest;
    }
    messages
}

pub(super) fn target(data: &[u8]) -> Reach {
    let messages = messages(data);
    let all = messages.len();
    let log = scratch::dir().join("stdio.log");
    let taken = super::runtime().block_on(runner::fuzzing::stdio(messages, log.clone()));
    // The next input starts with an empty log.
    let _ = std::fs::remove_file(log);
    Reach::of(all > 0, all > 0 && taken == all)
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let output = |stream, offset, data: &'static [u8], eof| {
        Kind::Output(OutputChunk { stream, offset, data: data.into(), eof })
    };
    let talk = [
        Kind::Opened(StdioOpened { stdin_offset: 0 }),
        output(1, 0, b"one\ntw", false),
        output(2, 0, b"error\n", false),
        Kind::StdinAck(StdinAck { offset: 5, closed: false }),
        output(1, 6, b"o\n", false),
        // Again what was there, then a gap.
        output(1, 0, b"one\ntwo\nthree", false),
        output(2, 100, b"late", false),
        output(2, 100, b"late", false),
        // Offsets that end at the last number, and beyond it.
        output(2, u64::MAX - 2, b"", false),
        output(2, u64::MAX - 2, b"ab", false),
        output(2, u64::MAX, b"abc", false),
        output(1, u64::MAX, b"x", false),
        Kind::StdinAck(StdinAck { offset: u64::MAX, closed: true }),
        output(1, 13, b"", true),
        output(2, 104, b"", true),
    ];
    let encode = |kinds: &[Kind]| {
        let mut bytes = Vec::new();
        for kind in kinds {
            let message = StdioResponse { kind: Some(kind.clone()) }.encode_to_vec();
            bytes.extend_from_slice(&u16::try_from(message.len()).unwrap_or(0).to_be_bytes());
            bytes.extend_from_slice(&message);
        }
        bytes
    };
    vec![encode(&talk), encode(&talk[..5]), encode(&talk[5..12])]
}
