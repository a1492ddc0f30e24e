//! The frame codec: whatever the cut, the same frames and the same end; what is decoded is encoded to the same bytes.

use bytes::BytesMut;
use proto::frame::{Decoder, Error, Format, Frame};

use super::choice;
use crate::Reach;

/// Frames that came, and whether a length ended the stream, or an end of input within a frame.
fn decode(format: Format, chunks: &[&[u8]]) -> (Vec<Frame>, bool, bool) {
    let mut decoder = Decoder::new(format);
    let mut frames = Vec::new();
    for chunk in chunks {
        decoder.buffer().extend_from_slice(chunk);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, matches!(error, Error::Length { .. }), false),
            }
        }
        // A peer cannot make us hold more than one frame.
        assert!(decoder.buffer().capacity() <= chunk.len() + 2 * format.most(), "the decoder holds too much");
    }
    let cut = decoder.finish().is_err();
    (frames, false, cut)
}

pub(super) fn target(data: &[u8]) -> Reach {
    let (how, stream) = choice(data);
    let format = if how & 1 == 0 { Format::Plain } else { Format::Offload };
    let size = usize::from(how >> 1) + 1;
    let whole = decode(format, &[stream]);
    assert_eq!(whole, decode(format, &stream.chunks(size).collect::<Vec<_>>()), "a cut changed something");
    let mut out = BytesMut::new();
    for frame in &whole.0 {
        assert!(format.encode(frame.payload(), &mut out).is_ok(), "what came cannot be sent");
        assert_eq!(
            frame.offload().map_or(0, |header| header.len()) + frame.ethernet().len(),
            frame.payload().len()
        );
    }
    assert!(stream.starts_with(&out), "frames are not what came");
    Reach::of(!whole.0.is_empty(), out.len() == stream.len() && !out.is_empty())
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (how, format, sizes) in [
        (0, Format::Plain, &[14, 60, 1514][..]),
        (0xff, Format::Offload, &[24, 70, 1524, 9000]),
        (6, Format::Plain, &[65_550]),
    ] {
        let mut out = BytesMut::from(&[how][..]);
        for size in sizes {
            // All of these sizes are possible.
            let _ = format.encode(&vec![0xa5; *size], &mut out);
        }
        seeds.push(out.to_vec());
    }
    seeds
}
