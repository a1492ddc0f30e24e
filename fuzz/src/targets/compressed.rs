//! Compressed layers: gzip of several members, zstd, and what looks like them.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use crate::Reach;

pub(super) fn target(data: &[u8]) -> Reach {
    let known = data.starts_with(&[0x1f, 0x8b]) || data.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    Reach::of(known, known && images::fuzzing::compressed(data))
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let text = b"some text, some text, some text".repeat(20);
    let mut seeds = vec![zstd::encode_all(&text[..], 3).unwrap_or_default()];
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    if gzip.write_all(&text).is_ok()
        && let Ok(bytes) = gzip.finish()
    {
        seeds.push(bytes.repeat(2));
        seeds.push(bytes);
    }
    // A bomb: more than is read of it.
    seeds.push(zstd::encode_all(&vec![0; 20 << 20][..], 1).unwrap_or_default());
    seeds
}
