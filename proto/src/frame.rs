//! Ethernet frames on a byte stream (vsock or unix socket): the one codec of guest, helper and runner.
//!
//! ```text
//! +----------------+----------------------------+----------------+
//! | length, 4 bytes| virtio_net_hdr, 10 bytes   | Ethernet frame |
//! | big-endian     | only if offload was agreed |                |
//! +----------------+----------------------------+----------------+
//! ```
//!
//! The length counts what stands behind it. A stream has no second chance to find a frame's start, so a length that cannot
//! be ends the stream: every later call answers the same error. Other streams and the process go on.
//!
//! [`Decoder`] and [`Format::encode`] do no I/O; [`FrameReader`] and [`FrameWriter`] are the same for tokio. Frames are
//! slices of the read buffer: a relay passes [`Frame::wire`] on without a copy. A frame that is kept keeps the whole buffer
//! it came in (64 KiB): copy what is to be stored.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of the length.
pub const LENGTH: usize = 4;
/// Bytes of a `virtio_net_hdr`: TUN's default (`TUNSETVNETHDRSZ`), without `num_buffers`.
pub const OFFLOAD_HEADER: usize = 10;
/// Longest Ethernet frame: virtio 1.2, 5.1.6.3.1, has receive buffers of this size for segmentation offload.
pub const MAX_ETHERNET: usize = 65_550;
/// Shortest Ethernet frame: two addresses and a type. Virtual links do not pad to 60 bytes.
pub const MIN_ETHERNET: usize = 14;
/// Room made for each read: some full-size packets, or one of segmentation offload.
const READ: usize = 64 << 10;

/// Why a stream of frames is over, or a packet is no frame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The stream's length, or the packet to be sent.
    #[error("a frame of {length} bytes; {least} to {most} are possible: the stream has lost its place")]
    Length {
        /// As stated on the wire.
        length: u32,
        /// Shortest of this format.
        least: usize,
        /// Longest of this format.
        most: usize,
    },
    /// The stream ended within a frame.
    #[error("the stream ended within a frame, after {got} of its bytes")]
    Cut {
        /// Bytes of the last frame, its length included.
        got: usize,
    },
    /// A frame to be passed on has another format than the stream.
    #[error("a frame {0:?} cannot go to a stream of another format")]
    Format(Format),
    /// The stream itself failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What stands before each Ethernet frame; agreed for a stream's whole life (`AttachNetwork`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Nothing: no offload.
    Plain,
    /// A `virtio_net_hdr`: checksums and segmentation may be left to the receiver.
    Offload,
}

impl Format {
    /// Bytes between the length and the Ethernet frame.
    #[must_use]
    pub const fn header(self) -> usize {
        match self {
            Self::Plain => 0,
            Self::Offload => OFFLOAD_HEADER,
        }
    }

    /// Smallest value of the length field.
    #[must_use]
    pub const fn least(self) -> usize {
        self.header() + MIN_ETHERNET
    }

    /// Largest value of the length field; a TAP device is read with a buffer of this size.
    #[must_use]
    pub const fn most(self) -> usize {
        self.header() + MAX_ETHERNET
    }

    /// The length field's value for `payload` bytes, if that can be.
    fn length(self, payload: usize) -> Result<u32, Error> {
        let (least, most) = (self.least(), self.most());
        let length = u32::try_from(payload).unwrap_or(u32::MAX);
        if (least..=most).contains(&payload) {
            Ok(length)
        } else {
            Err(Error::Length { length, least, most })
        }
    }

    /// Appends a frame to `out`. `payload` is what a TAP device gives: the header, where there is one, and the frame.
    ///
    /// # Errors
    /// [`Error::Length`]; `out` is as before.
    pub fn encode(self, payload: &[u8], out: &mut BytesMut) -> Result<(), Error> {
        let length = self.length(payload.len())?;
        out.reserve(LENGTH.saturating_add(payload.len()));
        out.put_u32(length);
        out.put_slice(payload);
        Ok(())
    }
}

/// One frame, as it came from the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    wire: Bytes,
    format: Format,
}

impl Frame {
    /// All of it, the length included: for a relay between two streams of one format.
    #[must_use]
    pub fn wire(&self) -> &Bytes {
        &self.wire
    }

    /// Without the length: what is written to a TAP device, in one write.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.wire.get(LENGTH..).unwrap_or_default()
    }

    /// The `virtio_net_hdr`; the kernel behind a TAP device checks it.
    #[must_use]
    pub fn offload(&self) -> Option<&[u8; OFFLOAD_HEADER]> {
        match self.format {
            Format::Plain => None,
            Format::Offload => self.payload().first_chunk(),
        }
    }

    /// The Ethernet frame; never shorter than [`MIN_ETHERNET`].
    #[must_use]
    pub fn ethernet(&self) -> &[u8] {
        self.payload().get(self.format.header()..).unwrap_or_default()
    }
}

/// Cuts a byte stream into frames, wherever its reads end.
#[derive(Debug)]
pub struct Decoder {
    format: Format,
    buffer: BytesMut,
    /// The length that ended the stream.
    broken: Option<u32>,
}

impl Decoder {
    /// For a stream of `format`.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format, buffer: BytesMut::new(), broken: None }
    }

    /// Where the next bytes of the stream are appended (`read_buf`). It holds less than one frame after
    /// [`Self::next`] answered `None`.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole frame; `None` when bytes lack.
    ///
    /// # Errors
    /// [`Error::Length`], from then on always.
    #[allow(clippy::should_implement_trait, reason = "an iterator would be over after None; this goes on")]
    pub fn next(&mut self) -> Result<Option<Frame>, Error> {
        let (least, most) = (self.format.least(), self.format.most());
        if let Some(length) = self.broken {
            return Err(Error::Length { length, least, most });
        }
        let Some(field) = self.buffer.first_chunk::<LENGTH>() else { return Ok(None) };
        let length = u32::from_be_bytes(*field);
        // Bounds what a peer can make us hold: nothing is reserved before this.
        let Some(payload) = usize::try_from(length).ok().filter(|n| (least..=most).contains(n)) else {
            self.broken = Some(length);
            self.buffer = BytesMut::new();
            return Err(Error::Length { length, least, most });
        };
        let whole = LENGTH.saturating_add(payload);
        if self.buffer.len() < whole {
            self.buffer.reserve(whole.saturating_sub(self.buffer.len()));
            return Ok(None);
        }
        Ok(Some(Frame { wire: self.buffer.split_to(whole).freeze(), format: self.format }))
    }

    /// The stream has ended: was it between two frames? Ask when [`Self::next`] answers `None`.
    ///
    /// # Errors
    /// [`Error::Cut`].
    pub fn finish(&self) -> Result<(), Error> {
        if self.buffer.is_empty() { Ok(()) } else { Err(Error::Cut { got: self.buffer.len() }) }
    }
}

/// Reads frames from a stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    decoder: Decoder,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// There must be only one reader of a stream, from its first byte on.
    pub fn new(stream: R, format: Format) -> Self {
        Self { stream, decoder: Decoder::new(format) }
    }

    /// The next frame; `None` at an end between two frames. May be dropped at any time without losing a byte.
    ///
    /// # Errors
    /// All of [`Error`]. The stream is over then.
    pub async fn next(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            if let Some(frame) = self.decoder.next()? {
                return Ok(Some(frame));
            }
            let buffer = self.decoder.buffer();
            buffer.reserve(READ);
            if self.stream.read_buf(buffer).await? == 0 {
                self.decoder.finish()?;
                return Ok(None);
            }
        }
    }

    /// A frame that was read already: what can be sent on together with the one before.
    ///
    /// # Errors
    /// [`Error::Length`].
    pub fn buffered(&mut self) -> Result<Option<Frame>, Error> {
        self.decoder.next()
    }
}

/// Writes frames to a stream.
///
/// A call that was dropped half-way may have written half a frame: then the stream is of no more use.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
    format: Format,
    buffer: BytesMut,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// There must be only one writer of a stream.
    pub fn new(stream: W, format: Format) -> Self {
        Self { stream, format, buffer: BytesMut::new() }
    }

    /// Adds a packet of a TAP device to what the next [`Self::flush`] sends.
    ///
    /// # Errors
    /// [`Error::Length`]: this packet is no frame; the stream is not harmed.
    pub fn add(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.format.encode(payload, &mut self.buffer)
    }

    /// Bytes that wait for [`Self::flush`].
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// Sends what was added: one write, if the stream takes it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn flush(&mut self) -> Result<(), Error> {
        while self.buffer.has_remaining() {
            if self.stream.write_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
        }
        Ok(self.stream.flush().await?)
    }

    /// Passes a frame on, behind what was added.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Format`].
    pub async fn relay(&mut self, frame: &Frame) -> Result<(), Error> {
        if frame.format != self.format {
            return Err(Error::Format(frame.format));
        }
        self.flush().await?;
        self.stream.write_all(frame.wire()).await?;
        Ok(self.stream.flush().await?)
    }
}

#[cfg(test)]
mod tests;
