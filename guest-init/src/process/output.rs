//! The output buffer of one stream: bounded, numbered by offset, dropped when acknowledged.
//!
//! ```text
//!  base            sent            end
//!   | unacknowledged | not yet sent | room: CAPACITY - (end - base)
//! ```

use std::{collections::VecDeque, io};

use bytes::{Bytes, BytesMut};

/// Unacknowledged bytes kept; the writer blocks when it is full.
pub(crate) const CAPACITY: usize = 256 * 1024;
/// Largest piece handed out, and the least that is reserved for a read.
pub(crate) const CHUNK: usize = 64 * 1024;

/// What a read into the buffer did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// So many bytes came.
    Bytes(usize),
    /// The stream is over.
    End,
    /// No room until something is acknowledged.
    Full,
}

/// See the module.
#[derive(Default)]
pub(crate) struct OutputBuffer {
    base: u64,
    /// Offset of the first byte of `tail`.
    sealed: u64,
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    eof: bool,
    /// Bytes are dropped as they come.
    discard: bool,
}

impl OutputBuffer {
    /// Offset behind the last byte taken.
    pub(crate) fn end(&self) -> u64 {
        self.sealed + self.tail.len() as u64
    }

    /// Whether nothing will come any more.
    pub(crate) fn is_eof(&self) -> bool {
        self.eof
    }

    /// Marks the end of the stream.
    pub(crate) fn finish(&mut self) {
        self.eof = true;
    }

    /// Turns dropping on (and drops what is there) or off.
    pub(crate) fn set_discard(&mut self, discard: bool) {
        self.discard = discard;
        if discard {
            self.acknowledge(self.end());
        }
    }

    /// Reads once by `read`, which gets the room and answers how much of it was filled (0: end).
    pub(crate) fn fill(
        &mut self,
        read: impl FnOnce(&mut BytesMut) -> io::Result<usize>,
    ) -> io::Result<Filled> {
        let used = usize::try_from(self.end() - self.base).unwrap_or(usize::MAX);
        if used >= CAPACITY {
            return Ok(Filled::Full);
        }
        if self.tail.capacity() == self.tail.len() {
            self.seal();
            self.tail.reserve(CHUNK);
        }
        let n = read(&mut self.tail)?;
        if n == 0 {
            return Ok(Filled::End);
        }
        if self.discard {
            self.acknowledge(self.end());
        }
        Ok(Filled::Bytes(n))
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.sealed = self.end();
            let bytes = self.tail.split().freeze();
            self.chunks.push_back(bytes);
        }
    }

    /// The next piece from `offset` on (or from the first byte still there, if that is later), with its offset.
    pub(crate) fn next(&mut self, offset: u64) -> Option<(u64, Bytes)> {
        let offset = offset.max(self.base);
        if offset >= self.sealed {
            self.seal();
        }
        let mut at = self.sealed;
        // From the back: what is asked for is nearly always the newest.
        for chunk in self.chunks.iter().rev() {
            at -= chunk.len() as u64;
            if at <= offset && offset < at + chunk.len() as u64 {
                let skip = usize::try_from(offset - at).unwrap_or(0);
                return Some((offset, chunk.slice(skip..)));
            }
        }
        None
    }

    /// Drops everything before `offset`; answers whether a blocked writer may have room now.
    pub(crate) fn acknowledge(&mut self, offset: u64) -> bool {
        let offset = offset.min(self.end());
        if offset <= self.base {
            return false;
        }
        if offset > self.sealed {
            self.seal();
        }
        let mut start = self.sealed - self.chunks.iter().map(|c| c.len() as u64).sum::<u64>();
        while let Some(first) = self.chunks.front_mut() {
            let len = first.len() as u64;
            if start + len <= offset {
                self.chunks.pop_front();
                start += len;
            } else {
                let cut = usize::try_from(offset.saturating_sub(start)).unwrap_or(0);
                drop(first.split_to(cut));
                break;
            }
        }
        self.base = offset;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(buffer: &mut OutputBuffer, data: &[u8]) -> Filled {
        buffer
            .fill(|room| {
                room.extend_from_slice(data);
                Ok(data.len())
            })
            .unwrap()
    }

    #[test]
    fn unacknowledged_output_is_sent_again() {
        let mut buffer = OutputBuffer::default();
        put(&mut buffer, b"hello ");
        assert_eq!(buffer.next(0).unwrap(), (0, Bytes::from("hello ")));
        put(&mut buffer, b"world");
        assert_eq!(buffer.next(6).unwrap(), (6, Bytes::from("world")));
        assert_eq!(buffer.next(11), None);
        assert!(buffer.acknowledge(3));
        assert_eq!(buffer.next(0).unwrap(), (3, Bytes::from("lo ")));
        assert!(!buffer.acknowledge(2));
        assert!(buffer.acknowledge(99));
        assert_eq!((buffer.next(0), buffer.end()), (None, 11));
    }

    #[test]
    fn small_writes_share_a_chunk() {
        let mut buffer = OutputBuffer::default();
        for _ in 0..1000 {
            put(&mut buffer, b"x");
        }
        assert_eq!(buffer.next(0).unwrap().1.len(), 1000);
        assert_eq!(buffer.chunks.len(), 1);
    }

    #[test]
    fn full_until_acknowledged() {
        let mut buffer = OutputBuffer::default();
        let block = vec![7; CHUNK];
        for _ in 0..CAPACITY / CHUNK {
            assert_eq!(put(&mut buffer, &block), Filled::Bytes(CHUNK));
        }
        assert_eq!(put(&mut buffer, &block), Filled::Full);
        buffer.acknowledge(1);
        assert_eq!(put(&mut buffer, b"z"), Filled::Bytes(1));
    }

    #[test]
    fn discarding_never_fills() {
        let mut buffer = OutputBuffer::default();
        buffer.set_discard(true);
        let block = vec![7; CHUNK];
        for _ in 0..10 {
            assert_eq!(put(&mut buffer, &block), Filled::Bytes(CHUNK));
        }
        buffer.set_discard(false);
        put(&mut buffer, b"kept");
        assert_eq!(buffer.next(0).unwrap(), (10 * CHUNK as u64, Bytes::from("kept")));
    }
}
