//! The input queue of one process: numbered by offset, so that a repeat after a lost stream is recognised.

use std::collections::VecDeque;

use bytes::Bytes;

/// Bytes taken but not yet written to the process.
pub(crate) const CAPACITY: u64 = 256 * 1024;

/// Input the host must not send.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InputError {
    /// Bytes are missing in between.
    #[error("stdin chunk at offset {got}, expected {expected}")]
    Gap {
        /// Offset of the chunk.
        got: u64,
        /// Offset of the next byte wanted.
        expected: u64,
    },
    /// More than the contract allows is unacknowledged.
    #[error("more than {CAPACITY} bytes of stdin are unacknowledged")]
    Overflow,
}

/// See the module.
#[derive(Default)]
pub(crate) struct InputQueue {
    received: u64,
    written: u64,
    queue: VecDeque<Bytes>,
    eof: bool,
    closed: bool,
}

impl InputQueue {
    /// The queue of a process without stdin: everything is dropped.
    pub(crate) fn closed() -> Self {
        Self { closed: true, ..Self::default() }
    }

    /// Offset of the next byte wanted.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Offset up to which the process has it (or dropped it), and whether it reads no more.
    pub(crate) fn state(&self) -> (u64, bool) {
        (self.written, self.closed)
    }

    /// Takes a chunk. Bytes known already are skipped.
    pub(crate) fn push(&mut self, offset: u64, mut data: Bytes, eof: bool) -> Result<(), InputError> {
        let gap = InputError::Gap { got: offset, expected: self.received };
        let known = usize::try_from(self.received.checked_sub(offset).ok_or(gap)?).unwrap_or(usize::MAX);
        if known < data.len() {
            let new = data.split_off(known);
            if self.received + new.len() as u64 - self.written > CAPACITY {
                return Err(InputError::Overflow);
            }
            self.received += new.len() as u64;
            if self.closed {
                self.written = self.received;
            } else {
                self.queue.push_back(new);
            }
        }
        self.eof |= eof;
        Ok(())
    }

    /// The bytes to write next.
    pub(crate) fn front(&self) -> Option<Bytes> {
        self.queue.front().cloned()
    }

    /// `n` bytes of [`InputQueue::front`] were written.
    pub(crate) fn advance(&mut self, n: usize) {
        self.written += n as u64;
        if let Some(first) = self.queue.front_mut() {
            drop(first.split_to(n.min(first.len())));
            if first.is_empty() {
                self.queue.pop_front();
            }
        }
    }

    /// Whether everything was written and nothing will come.
    pub(crate) fn is_done(&self) -> bool {
        self.eof && self.queue.is_empty()
    }

    /// The process reads no more.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.queue.clear();
        self.written = self.received;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_skipped_and_gaps_refused() {
        let mut queue = InputQueue::default();
        queue.push(0, Bytes::from("abc"), false).unwrap();
        queue.push(1, Bytes::from("bcde"), true).unwrap();
        assert_eq!(queue.received(), 5);
        assert_eq!(queue.push(7, Bytes::from("x"), false), Err(InputError::Gap { got: 7, expected: 5 }));
        assert_eq!(queue.front().unwrap(), "abc");
        queue.advance(3);
        assert!(!queue.is_done());
        assert_eq!(queue.front().unwrap(), "de");
        queue.advance(2);
        assert!(queue.is_done());
        assert_eq!(queue.state(), (5, false));
    }

    #[test]
    fn bounded_and_dropped_when_closed() {
        let mut queue = InputQueue::default();
        let block = Bytes::from(vec![0; 200 * 1024]);
        queue.push(0, block.clone(), false).unwrap();
        assert_eq!(queue.push(200 * 1024, block.clone(), false), Err(InputError::Overflow));
        queue.close();
        queue.push(200 * 1024, block, false).unwrap();
        assert_eq!(queue.state(), (400 * 1024, true));
    }
}
