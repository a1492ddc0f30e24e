//! The host's side of a connection: a non-blocking unix stream, and what it has not taken yet.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::Shutdown,
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
};

use vm_memory::{Bytes, ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile};
use vmm_sys_util::epoll::EventSet;

/// What reading from a client gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// This many bytes, at least one.
    Bytes(usize),
    /// Nothing now; an event will tell.
    Nothing,
    /// The client sends no more.
    End,
}

/// A client's stream. Registered once, edge-triggered: the flags remember what the last event or attempt showed.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    readable: bool,
    writable: bool,
    hung_up: bool,
    /// Data of the guest, within the credit it was given; what is before `pending_from` is written.
    pending: Vec<u8>,
    pending_from: usize,
}

impl Client {
    /// Events a client is registered for.
    pub(crate) const EVENTS: EventSet =
        EventSet::IN.union(EventSet::OUT).union(EventSet::READ_HANG_UP).union(EventSet::EDGE_TRIGGERED);

    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            readable: false,
            writable: true,
            hung_up: false,
            pending: Vec::new(),
            pending_from: 0,
        })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Takes note of an event.
    pub(crate) fn note(&mut self, events: EventSet) {
        self.readable |=
            events.intersects(EventSet::IN | EventSet::READ_HANG_UP | EventSet::HANG_UP | EventSet::ERROR);
        self.writable |= events.intersects(EventSet::OUT | EventSet::HANG_UP | EventSet::ERROR);
        self.hung_up |= events.intersects(EventSet::HANG_UP | EventSet::ERROR);
    }

    /// There may be bytes, an end or an error to read.
    pub(crate) fn readable(&self) -> bool {
        self.readable
    }

    /// The client has closed its socket. What it sent before may still be there to read.
    pub(crate) fn hung_up(&self) -> bool {
        self.hung_up
    }

    /// Everything of the guest is written.
    pub(crate) fn flushed(&self) -> bool {
        self.pending.is_empty()
    }

    /// One byte of the first line.
    pub(crate) fn read_byte(&mut self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        let result = (&self.stream).read(&mut byte);
        match self.got(result)? {
            Got::Bytes(_) => Ok(Some(byte[0])),
            Got::Nothing => Ok(None),
            Got::End => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Writes the answer to the first line. Nothing was written before, so there is room.
    pub(crate) fn greet(&mut self, line: &str) -> io::Result<()> {
        (&self.stream).write_all(line.as_bytes())
    }

    /// Reads at most `limit` bytes straight into the guest's memory.
    pub(crate) fn read_into(&mut self, memory: &[VolatileSlice<'_>], limit: usize) -> io::Result<Got> {
        let mut total = 0;
        for slice in memory {
            let want = slice.len().min(limit - total);
            if want == 0 {
                continue;
            }
            let mut part = slice.subslice(0, want).map_err(volatile)?;
            let result = self.stream.read_volatile(&mut part).map_err(volatile);
            match self.got(result) {
                Ok(Got::Bytes(bytes)) => {
                    total += bytes;
                    if bytes < want {
                        break;
                    }
                }
                // An end or an error shows again at the next read.
                _ if total > 0 => {
                    self.readable = true;
                    break;
                }
                other => return other,
            }
        }
        Ok(if total > 0 { Got::Bytes(total) } else { Got::Nothing })
    }

    fn got(&mut self, result: io::Result<usize>) -> io::Result<Got> {
        match result {
            Ok(0) => {
                self.readable = false;
                Ok(Got::End)
            }
            Ok(bytes) => Ok(Got::Bytes(bytes)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(Got::Nothing)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Got::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Passes data of the guest on; what the client does not take now is kept. Answers how many bytes were written.
    pub(crate) fn write_from(&mut self, memory: &[VolatileSlice<'_>], len: usize) -> io::Result<usize> {
        let mut written = self.flush()?;
        let mut left = len;
        for slice in memory {
            let mut part = slice.subslice(0, slice.len().min(left)).map_err(volatile)?;
            left -= part.len();
            while self.writable && self.pending.is_empty() && !part.is_empty() {
                let result = self.stream.write_volatile(&part).map_err(volatile);
                let bytes = self.put(result)?;
                written += bytes;
                part = part.offset(bytes).map_err(volatile)?;
            }
            if !part.is_empty() {
                let start = self.pending.len();
                self.pending.resize(start + part.len(), 0);
                part.read_slice(&mut self.pending[start..], 0).map_err(volatile)?;
            }
        }
        Ok(written)
    }

    /// Writes what was kept. Answers how many bytes were written.
    pub(crate) fn flush(&mut self) -> io::Result<usize> {
        let mut written = 0;
        while self.writable && !self.pending.is_empty() {
            let result = (&self.stream).write(&self.pending[self.pending_from..]);
            let bytes = self.put(result)?;
            self.pending_from += bytes;
            written += bytes;
            if self.pending_from == self.pending.len() {
                // A connection at rest costs no memory.
                (self.pending, self.pending_from) = (Vec::new(), 0);
            }
        }
        if self.pending_from > self.pending.len() / 2 {
            self.pending.drain(..self.pending_from);
            self.pending_from = 0;
        }
        Ok(written)
    }

    fn put(&mut self, result: io::Result<usize>) -> io::Result<usize> {
        match result {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.writable = false;
                Ok(0)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Ends one direction. A client that is gone needs no end.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        let _ = self.stream.shutdown(how);
    }
}

fn volatile(error: VolatileMemoryError) -> io::Error {
    match error {
        VolatileMemoryError::IOError(error) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slices(bytes: &mut [u8]) -> Vec<VolatileSlice<'_>> {
        bytes.chunks_mut(1000).map(VolatileSlice::from).collect()
    }

    fn pair() -> (Client, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut client = Client::new(ours).unwrap();
        client.note(EventSet::IN);
        (client, theirs)
    }

    #[test]
    fn what_a_slow_client_does_not_take_is_kept_in_order() {
        let (mut client, mut other) = pair();
        let mut source: Vec<u8> = (0..3_000_000_u32).map(|i| (i * 31 % 251) as u8).collect();
        let want = source.clone();
        let mut written = 0;
        let mut got = Vec::new();
        for chunk in source.chunks_mut(200_000) {
            let len = chunk.len();
            written += client.write_from(&slices(chunk), len).unwrap();
            let mut part = vec![0; 70_000];
            let bytes = other.read(&mut part).unwrap();
            got.extend_from_slice(&part[..bytes]);
            client.note(EventSet::OUT);
        }
        assert!(written < want.len() && !client.flushed());
        while !client.flushed() {
            client.note(EventSet::OUT);
            written += client.flush().unwrap();
            let mut part = vec![0; 70_000];
            let bytes = other.read(&mut part).unwrap();
            got.extend_from_slice(&part[..bytes]);
        }
        client.shutdown(Shutdown::Write);
        other.read_to_end(&mut got).unwrap();
        assert_eq!(written, want.len());
        assert!(got == want, "order or content differs");
        assert_eq!(client.pending.capacity(), 0);
    }

    #[test]
    fn reading_is_limited_and_spans_buffers() {
        let (mut client, mut other) = pair();
        other.write_all(&[7; 2600]).unwrap();
        let mut memory = vec![0; 3000];
        assert_eq!(client.read_into(&slices(&mut memory), 2500).unwrap(), Got::Bytes(2500));
        assert_eq!((memory[2499], memory[2500]), (7, 0));
        assert_eq!(client.read_into(&slices(&mut memory), 2500).unwrap(), Got::Bytes(100));
        assert_eq!(client.read_into(&slices(&mut memory), 2500).unwrap(), Got::Nothing);
        assert!(!client.readable());
        drop(other);
        assert_eq!(client.read_into(&slices(&mut memory), 2500).unwrap(), Got::End);
    }

    #[test]
    fn a_client_that_is_gone_is_an_error_for_the_writer() {
        let (mut client, other) = pair();
        drop(other);
        assert!(client.write_from(&slices(&mut [1]), 1).is_err());
    }
}
