//! Blocking readers and writers over bounded channels of chunks: between a blocking thread and a gRPC stream.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::mpsc;

/// Bytes in one chunk of an archive stream.
pub(crate) const CHUNK: usize = 64 << 10;

/// A writer whose chunks come out of the receiver, at most `depth` waiting.
pub(crate) fn writer(depth: usize) -> (ChunkWriter, mpsc::Receiver<Bytes>) {
    let (sender, receiver) = mpsc::channel(depth);
    (ChunkWriter { sender, buffer: BytesMut::with_capacity(CHUNK) }, receiver)
}

/// A reader of the chunks that are sent, at most `depth` waiting. Its end is the drop of the sender; an error that is sent
/// is the reader's.
pub(crate) fn reader(depth: usize) -> (mpsc::Sender<io::Result<Bytes>>, ChunkReader) {
    let (sender, receiver) = mpsc::channel(depth);
    (sender, ChunkReader { receiver, current: Bytes::new() })
}

/// See [`writer`]. What was not flushed is lost when it is dropped.
#[derive(Debug)]
pub(crate) struct ChunkWriter {
    sender: mpsc::Sender<Bytes>,
    buffer: BytesMut,
}

impl Write for ChunkWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        let length = data.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&data[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(CHUNK)).freeze();
        self.sender
            .blocking_send(chunk)
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the receiver of the archive went away"))
    }
}

/// See [`reader`].
#[derive(Debug)]
pub(crate) struct ChunkReader {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let length = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_bounded_and_complete() {
        let (mut writer, mut receiver) = writer(1);
        let sent: Vec<u8> = (0..200_000u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let expected = sent.clone();
        let thread = std::thread::spawn(move || {
            writer.write_all(&sent).unwrap();
            writer.flush().unwrap();
        });
        let mut received = Vec::new();
        while let Some(chunk) = receiver.blocking_recv() {
            assert!(chunk.len() <= CHUNK);
            received.extend_from_slice(&chunk);
        }
        thread.join().unwrap();
        assert_eq!(received, expected);
    }

    #[test]
    fn a_lost_receiver_and_a_failed_sender_are_errors() {
        let (mut writer, receiver) = writer(1);
        drop(receiver);
        writer.write_all(b"x").unwrap();
        assert_eq!(writer.flush().unwrap_err().kind(), io::ErrorKind::BrokenPipe);

        let (sender, mut reader) = reader(4);
        for chunk in [Ok(Bytes::from_static(b"ab")), Ok(Bytes::new()), Ok(Bytes::from_static(b"c"))] {
            sender.blocking_send(chunk).unwrap();
        }
        sender.blocking_send(Err(io::ErrorKind::ConnectionAborted.into())).unwrap();
        let mut data = Vec::new();
        assert_eq!(reader.read_to_end(&mut data).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(data, b"abc");
    }
}
