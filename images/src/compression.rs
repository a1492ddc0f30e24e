//! Compressed layers and archives, told apart by their first bytes (media types lie).

use std::io::{self, BufReader, Read};

/// The decompressed stream of a gzip, zstd or plain one.
pub(crate) fn decompress<'a>(from: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut from = BufReader::with_capacity(256 << 10, from);
    let mut start = [0; 6];
    let mut have = 0;
    // A short first read must not hide the magic number.
    while have < start.len() {
        match from.read(&mut start[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let whole = io::Cursor::new(start).take(have as u64).chain(from);
    Ok(match &start[..have] {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Box::new(zstd::stream::read::Decoder::with_buffer(whole)?)
        }
        [b'B', b'Z', b'h', ..] => return Err(unsupported("bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => return Err(unsupported("xz")),
        _ => Box::new(whole),
    })
}

fn unsupported(name: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("{name} compression is not supported: use gzip or zstd"),
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn all_kinds() {
        let text = b"some text, some text, some text".repeat(100);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gz.write_all(&text).unwrap();
        let mut gz = gz.finish().unwrap();
        let member = gz.clone();
        gz.extend(member);
        let read = |bytes: &[u8]| -> io::Result<Vec<u8>> {
            let mut out = Vec::new();
            decompress(bytes)?.read_to_end(&mut out)?;
            Ok(out)
        };
        assert_eq!(read(&gz).unwrap(), text.repeat(2), "gzip with two members");
        assert_eq!(read(&zstd::encode_all(&text[..], 3).unwrap()).unwrap(), text);
        assert_eq!(read(&text).unwrap(), text);
        assert_eq!(read(b"").unwrap(), b"");
        assert!(read(&gz[..gz.len() / 2 - 10]).is_err(), "cut gzip");
        assert!(read(b"\xfd7zXZ\0 ").unwrap_err().to_string().contains("xz"));
    }
}
