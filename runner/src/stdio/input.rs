//! Standard input: bytes of all attached clients, numbered, held until the guest took them.

use std::collections::VecDeque;

use bytes::Bytes;
use proto::sandbox::{StdinAck, StdinChunk};

/// Bytes that may be on their way to the process.
const WINDOW: u64 = 256 << 10;
/// Most bytes of one message.
const MAX_CHUNK: usize = 64 << 10;

/// What an attached client gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// Bytes for the process.
    Data(Bytes),
    /// A client that offered input left, or closed its half.
    Left,
}

/// Input that the guest has not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Unacked {
    chunks: VecDeque<StdinChunk>,
    /// Index in `chunks` of the first not yet sent on the present stream.
    unsent: usize,
    /// Offset behind the last byte taken.
    end: u64,
    /// Offset up to which the guest acknowledged.
    acked: u64,
    /// The last chunk says EOF, or the process no longer reads.
    closed: bool,
}

impl Unacked {
    /// Whether more may be taken from the clients.
    pub(super) fn has_room(&self) -> bool {
        self.closed || self.end - self.acked < WINDOW
    }

    /// Takes bytes; drops them when input is over.
    pub(super) fn push(&mut self, mut data: Bytes) {
        while !self.closed && !data.is_empty() {
            let part = data.split_to(data.len().min(MAX_CHUNK));
            let offset = self.end;
            self.end += part.len() as u64;
            self.chunks.push_back(StdinChunk { offset, data: part, eof: false });
        }
    }

    /// Input is over.
    pub(super) fn close(&mut self) {
        if !self.closed {
            self.closed = true;
            self.chunks.push_back(StdinChunk { offset: self.end, data: Bytes::new(), eof: true });
        }
    }

    /// The next chunk to send, if any.
    pub(super) fn next(&mut self) -> Option<StdinChunk> {
        let chunk = self.chunks.get(self.unsent)?.clone();
        self.unsent += 1;
        Some(chunk)
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.unsent < self.chunks.len()
    }

    /// The guest took input up to an offset. One beyond what was sent is ignored.
    pub(super) fn ack(&mut self, ack: &StdinAck) {
        self.drop_until(ack.offset);
        if ack.closed {
            self.closed = true;
            self.chunks.clear();
            self.unsent = 0;
            self.acked = self.end;
        }
    }

    /// A new stream: everything the guest has not got is sent again.
    pub(super) fn reopened(&mut self, expected: u64) {
        self.drop_until(expected);
        self.unsent = 0;
    }

    fn drop_until(&mut self, offset: u64) {
        if offset > self.end {
            tracing::warn!(offset, end = self.end, "guest acknowledged input that was never sent");
            return;
        }
        self.acked = self.acked.max(offset);
        // An end of input is kept until the process has ended: its receipt is not told.
        while self
            .chunks
            .front()
            .is_some_and(|chunk| !chunk.eof && chunk.offset + chunk.data.len() as u64 <= offset)
        {
            self.chunks.pop_front();
            self.unsent = self.unsent.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(offset: u64) -> StdinAck {
        StdinAck { offset, closed: false }
    }

    #[test]
    fn is_numbered_bounded_and_repeated_after_a_loss() {
        let mut input = Unacked::default();
        input.push(Bytes::from(vec![1; 300 << 10]));
        assert!(!input.has_room());
        let sent: Vec<_> =
            std::iter::from_fn(|| input.next()).map(|chunk| (chunk.offset, chunk.data.len())).collect();
        assert_eq!(sent.len(), 5);
        assert_eq!(sent[1], (64 << 10, 64 << 10));
        input.ack(&ack(64 << 10));
        assert!(input.has_room());
        input.close();
        input.push(Bytes::from_static(b"too late"));
        input.reopened(128 << 10);
        let again: Vec<_> = std::iter::from_fn(|| input.next()).collect();
        assert_eq!(again[0].offset, 128 << 10);
        assert!(again.last().unwrap().eof && again.last().unwrap().offset == 300 << 10);
        assert_eq!(again.len(), 4);
        input.ack(&ack(1 << 40));
        assert!(input.has_room());
    }

    #[test]
    fn a_process_that_closed_its_input_gets_no_more() {
        let mut input = Unacked::default();
        input.push(Bytes::from_static(b"abc"));
        input.ack(&StdinAck { offset: 1, closed: true });
        input.push(Bytes::from_static(b"def"));
        assert!(input.next().is_none() && input.has_room());
    }
}
