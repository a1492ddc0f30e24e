//! The codec against any cut of any stream.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use proptest::prelude::*;
use tokio::io::ReadBuf;

use super::*;

fn wire(format: Format, payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut out = BytesMut::new();
    for payload in payloads {
        format.encode(payload, &mut out).unwrap();
    }
    out.to_vec()
}

/// All frames of `chunks`, and how it ended.
fn decode(format: Format, chunks: &[&[u8]]) -> (Vec<Frame>, Result<(), Error>) {
    let mut decoder = Decoder::new(format);
    let mut frames = Vec::new();
    for chunk in chunks {
        decoder.buffer().extend_from_slice(chunk);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, decoder.finish())
}

/// Gives one byte more with each read, and counts writes.
struct Trickle {
    bytes: Vec<u8>,
    step: usize,
    writes: usize,
}

impl AsyncRead for Trickle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.step += 1;
        let n = self.step.min(self.bytes.len()).min(out.remaining());
        let part: Vec<u8> = self.bytes.drain(..n).collect();
        out.put_slice(&part);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Trickle {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writes += 1;
        self.bytes.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn the_wire_is_as_documented() {
    let plain = wire(Format::Plain, &[vec![0xab; 14]]);
    assert_eq!(plain[..5], [0, 0, 0, 14, 0xab]);
    let mut payload = vec![1; OFFLOAD_HEADER];
    payload.extend([2; 60]);
    let bytes = wire(Format::Offload, std::slice::from_ref(&payload));
    assert_eq!(bytes[..4], 70_u32.to_be_bytes());
    let (frames, end) = decode(Format::Offload, &[&bytes]);
    end.unwrap();
    let frame = &frames[0];
    assert_eq!((frame.wire().as_ref(), frame.payload()), (&bytes[..], &payload[..]));
    assert_eq!((frame.offload().unwrap(), frame.ethernet()), (&[1; 10], &[2; 60][..]));
}

#[test]
fn a_bad_length_ends_the_stream_for_good_and_holds_nothing() {
    for (format, length) in [
        (Format::Plain, 0),
        (Format::Plain, 13),
        (Format::Plain, 65_551),
        (Format::Offload, 23),
        (Format::Offload, 65_561),
        (Format::Plain, u32::MAX),
    ] {
        let mut decoder = Decoder::new(format);
        decoder.buffer().extend_from_slice(&wire(format, &[vec![7; 30]]));
        decoder.buffer().put_u32(length);
        decoder.buffer().put_slice(&[7; 40]);
        assert!(decoder.next().unwrap().is_some(), "what came before is good");
        for _ in 0..2 {
            assert!(matches!(decoder.next(), Err(Error::Length { length: l, .. }) if l == length));
        }
        assert_eq!(decoder.buffer().capacity(), 0);
    }
    for (format, length) in [(Format::Plain, 14), (Format::Plain, 65_550), (Format::Offload, 65_560)] {
        let bytes = wire(format, &[vec![1; length]]);
        let (frames, end) = decode(format, &[&bytes]);
        assert!(end.is_ok() && frames.len() == 1, "{format:?} {length}");
    }
    let mut out = BytesMut::new();
    assert!(Format::Plain.encode(&[0; 13], &mut out).is_err());
    assert!(Format::Plain.encode(&vec![0; 65_551], &mut out).is_err());
    assert!(out.is_empty());
}

#[tokio::test]
async fn short_reads_do_not_desynchronize() {
    let payloads: Vec<Vec<u8>> = (0..50_u8).map(|n| vec![n; 14 + usize::from(n) * 40]).collect();
    let mut bytes = wire(Format::Plain, &payloads);
    let mut reader = FrameReader::new(Trickle { bytes: bytes.clone(), step: 0, writes: 0 }, Format::Plain);
    for payload in &payloads {
        assert_eq!(reader.next().await.unwrap().unwrap().payload(), payload);
    }
    assert!(reader.next().await.unwrap().is_none());
    bytes.pop();
    let mut reader = FrameReader::new(&bytes[..], Format::Plain);
    for _ in 1..50 {
        reader.next().await.unwrap().unwrap();
    }
    assert!(matches!(reader.next().await, Err(Error::Cut { got }) if got == 3 + 14 + 49 * 40));
}

#[tokio::test]
async fn what_is_written_is_written_at_once() {
    let sink = || Trickle { bytes: Vec::new(), step: 0, writes: 0 };
    let mut writer = FrameWriter::new(sink(), Format::Plain);
    writer.add(&[5; 100]).unwrap();
    writer.add(&[6; 200]).unwrap();
    assert!(writer.add(&[0; 2]).is_err(), "a packet that is no frame");
    assert_eq!(writer.waiting(), 308);
    writer.flush().await.unwrap();
    assert_eq!(writer.stream.writes, 1);
    let bytes = writer.stream.bytes.clone();
    let (frames, end) = decode(Format::Plain, &[&bytes]);
    assert!(end.is_ok() && frames.len() == 2);

    let mut writer = FrameWriter::new(sink(), Format::Plain);
    writer.relay(&frames[1]).await.unwrap();
    assert_eq!((writer.stream.writes, &writer.stream.bytes[..]), (1, &bytes[104..]));
    let mut writer = FrameWriter::new(sink(), Format::Offload);
    assert!(matches!(writer.relay(&frames[1]).await, Err(Error::Format(Format::Plain))));
}

#[test]
fn a_relay_copies_nothing() {
    let bytes = wire(Format::Plain, &[vec![1; 1000], vec![2; 1000]]);
    let mut decoder = Decoder::new(Format::Plain);
    decoder.buffer().extend_from_slice(&bytes);
    let at = decoder.buffer().as_ptr();
    let first = decoder.next().unwrap().unwrap();
    assert_eq!(first.wire().as_ptr(), at);
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_frames(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 24..400), 0..8),
        cuts in prop::collection::vec(1_usize..300, 1..40),
        offload: bool,
    ) {
        let format = if offload { Format::Offload } else { Format::Plain };
        let bytes = wire(format, &payloads);
        let mut chunks = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts {
            let (chunk, behind) = rest.split_at(cut.min(rest.len()));
            chunks.push(chunk);
            rest = behind;
        }
        chunks.push(rest);
        let (frames, end) = decode(format, &chunks);
        prop_assert!(end.is_ok());
        let got: Vec<_> = frames.iter().map(Frame::payload).collect();
        prop_assert_eq!(got, payloads.iter().map(Vec::as_slice).collect::<Vec<_>>());
        prop_assert_eq!(frames.iter().flat_map(|frame| frame.wire().to_vec()).collect::<Vec<_>>(), bytes);
    }

    #[test]
    fn any_bytes_cut_anywhere_end_alike(
        bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(14), any::<u8>()], 0..600),
        at in 0_usize..600,
    ) {
        let (head, tail) = bytes.split_at(at.min(bytes.len()));
        let (whole, cut) = (decode(Format::Plain, &[&bytes]), decode(Format::Plain, &[head, tail]));
        prop_assert_eq!(whole.0, cut.0);
        prop_assert_eq!(format!("{:?}", whole.1), format!("{:?}", cut.1));
    }
}
