//! Reading tar streams: ustar, PAX and GNU long names, from senders that are not trusted.
//!
//! The `tar` crate decodes the headers, the framing is here: its own reader takes extended headers of any size into memory
//! and splits PAX records at line ends, which breaks binary values (`security.capability`).

use std::io::{self, Read};

use tar::{EntryType, Header};

/// Size of a tar block.
const BLOCK: usize = 512;
/// Largest extended header taken: PAX records or a long name (Go's reader has the same limit).
const MAX_EXTENDED: u64 = 1 << 20;
/// Extended headers that may come before one entry.
const MAX_EXTENDED_COUNT: usize = 8;

/// One member of an archive, extended headers applied.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) kind: EntryType,
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    /// Bytes of content, to be read from [`TarReader`] before the next member.
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// Seconds and nanoseconds.
    pub(super) mtime: (i64, i64),
    pub(super) device: (u32, u32),
    pub(super) xattrs: Vec<(String, Vec<u8>)>,
}

/// Members of a tar stream one after the other.
#[derive(Debug)]
pub(super) struct TarReader<R> {
    inner: R,
    /// Content of the current member not read yet, and its padding.
    left: u64,
    padding: u64,
}

#[derive(Debug, Default)]
struct Extended {
    records: Vec<(Vec<u8>, Vec<u8>)>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: Read> TarReader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0 }
    }

    /// The next member; what was not read of the last one is skipped. `None` at the end, the stream then is drained.
    pub(super) fn next(&mut self) -> io::Result<Option<Member>> {
        let mut extended = Extended::default();
        for _ in 0..=MAX_EXTENDED_COUNT {
            self.skip()?;
            let Some(header) = self.header()? else {
                io::copy(&mut self.inner, &mut io::sink())?;
                return Ok(None);
            };
            let kind = header.entry_type();
            let size = if kind.is_pax_local_extensions() || kind.is_gnu_longname() || kind.is_gnu_longlink() {
                header.entry_size()?
            } else if kind.is_pax_global_extensions() {
                self.frame(header.entry_size()?)?;
                continue;
            } else {
                return self.member(&header, extended).map(Some);
            };
            if size > MAX_EXTENDED {
                return Err(invalid("extended header is too large"));
            }
            self.frame(size)?;
            let mut data = Vec::new();
            self.read_to_end(&mut data)?;
            match kind {
                EntryType::GNULongName => extended.name = Some(until_nul(&data)),
                EntryType::GNULongLink => extended.link = Some(until_nul(&data)),
                _ => extended.records = records(&data)?,
            }
        }
        Err(invalid("too many extended headers"))
    }

    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(at, &byte)| if (148..156).contains(&at) { 32 } else { u32::from(byte) })
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(invalid("invalid tar header"));
        }
        Ok(Some(header))
    }

    fn member(&mut self, header: &Header, extended: Extended) -> io::Result<Member> {
        let kind = header.entry_type();
        let device = |part: io::Result<Option<u32>>| part.ok().flatten().unwrap_or(0);
        let seconds = header.mtime().ok().and_then(|time| i64::try_from(time).ok()).unwrap_or(0);
        let mut member = Member {
            kind,
            name: extended.name.unwrap_or_else(|| header.path_bytes().into_owned()),
            link: extended.link.or_else(|| header.link_name_bytes().map(Into::into)).unwrap_or_default(),
            size: 0,
            mode: header.mode()?,
            uid: header.uid().unwrap_or(0),
            gid: header.gid().unwrap_or(0),
            mtime: (seconds, 0),
            device: (device(header.device_major()), device(header.device_minor())),
            xattrs: Vec::new(),
        };
        let mut size = None;
        let mut sparse = kind.is_gnu_sparse();
        for (key, value) in extended.records {
            let text = std::str::from_utf8(&value).unwrap_or("");
            match key.as_slice() {
                // An empty record takes an earlier one back, so the header counts.
                _ if value.is_empty() => {}
                b"path" => member.name = value,
                b"linkpath" => member.link = value,
                b"size" => size = Some(text.parse().map_err(|_| invalid("invalid size in tar header"))?),
                b"uid" => member.uid = text.parse().map_err(|_| invalid("invalid uid in tar header"))?,
                b"gid" => member.gid = text.parse().map_err(|_| invalid("invalid gid in tar header"))?,
                b"mtime" => member.mtime = time(text).ok_or_else(|| invalid("invalid time in tar header"))?,
                key if key.starts_with(b"GNU.sparse.") => sparse = true,
                key => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.".as_slice())
                        && let Ok(name) = std::str::from_utf8(name)
                    {
                        member.xattrs.push((name.to_owned(), value));
                    }
                }
            }
        }
        if sparse {
            let name = String::from_utf8_lossy(&member.name);
            return Err(invalid(&format!(
                "sparse entry {name:?} is not supported: make the archive without --sparse"
            )));
        }
        // Only these have content; tools that write a size for others write no content.
        if matches!(kind, EntryType::Regular | EntryType::Continuous) || !known(kind) {
            member.size = match size {
                Some(size) => size,
                None => header.entry_size()?,
            };
        }
        self.frame(member.size)?;
        Ok(member)
    }

    fn frame(&mut self, size: u64) -> io::Result<()> {
        let blocks = size
            .checked_next_multiple_of(BLOCK as u64)
            .ok_or_else(|| invalid("invalid size in tar header"))?;
        self.left = size;
        self.padding = blocks - size;
        Ok(())
    }

    fn skip(&mut self) -> io::Result<()> {
        let amount =
            self.left.checked_add(self.padding).ok_or_else(|| invalid("invalid size in tar header"))?;
        let skipped = io::copy(&mut self.inner.by_ref().take(amount), &mut io::sink())?;
        (self.left, self.padding) = (0, 0);
        // The last padding may be missing, as Go takes it.
        if skipped < amount && amount >= BLOCK as u64 {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Ok(())
        }
    }
}

/// The content of the current member. A stream that ends within it is an error.
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// Kinds that have no content whatever their header says, and those that have.
fn known(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::Regular
            | EntryType::Continuous
            | EntryType::Link
            | EntryType::Symlink
            | EntryType::Char
            | EntryType::Block
            | EntryType::Directory
            | EntryType::Fifo
    )
}

/// PAX records: `LENGTH KEY=VALUE\n`, the length counting all of it.
fn records(mut data: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let malformed = || invalid("malformed PAX record in tar header");
    let mut records = Vec::new();
    while !data.is_empty() {
        let space = data.iter().take(20).position(|&byte| byte == b' ').ok_or_else(malformed)?;
        let length = std::str::from_utf8(&data[..space]).ok().and_then(|text| text.parse::<usize>().ok());
        let length =
            length.filter(|&length| length > space + 1 && length <= data.len()).ok_or_else(malformed)?;
        let (record, rest) = data.split_at(length);
        let record = record[space + 1..].strip_suffix(b"\n").ok_or_else(malformed)?;
        let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(malformed)?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        data = rest;
    }
    Ok(records)
}

/// A PAX time: seconds with an optional sign and fraction.
fn time(text: &str) -> Option<(i64, i64)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = seconds.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: i64 = digits.parse().ok()?;
    if seconds.starts_with('-') && nanoseconds > 0 {
        return Some((whole.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((whole, nanoseconds))
}

fn until_nul(data: &[u8]) -> Vec<u8> {
    data.split(|&byte| byte == 0).next().unwrap_or_default().to_vec()
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_records_may_hold_line_ends() {
        let data = b"24 SCHILY.xattr.a=x\ny\nz\n\x31\x32 path=a/b\n";
        assert_eq!(
            records(data).unwrap(),
            [(b"SCHILY.xattr.a".to_vec(), b"x\ny\nz".to_vec()), (b"path".to_vec(), b"a/b".to_vec())]
        );
        for bad in
            ["1 \n", "99 a=b\n", "x a=b\n", "5 a=b", "5 abc\n", "-6 a=b\n", "999999999999999999999 a=b\n"]
        {
            assert!(records(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn pax_times() {
        assert_eq!(time("12"), Some((12, 0)));
        assert_eq!(time("12.5"), Some((12, 500_000_000)));
        assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time("-0.25"), Some((-1, 750_000_000)));
        assert_eq!(time("1.0000000019"), Some((1, 1)));
        for bad in ["", "x", "1.x", "1.-5"] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }

    #[test]
    fn ends_early_or_with_rubbish() {
        assert!(TarReader::new(io::empty()).next().unwrap().is_none());
        assert!(TarReader::new([0u8; 512].as_slice()).next().unwrap().is_none());
        assert_eq!(
            TarReader::new([0u8; 100].as_slice()).next().unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        assert_eq!(
            TarReader::new([7u8; 512].as_slice()).next().unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );

        let mut header = Header::new_gnu();
        header.set_size(u64::MAX);
        header.set_entry_type(EntryType::GNULongName);
        header.set_cksum();
        let error = TarReader::new(header.as_bytes().as_slice()).next().unwrap_err();
        assert!(error.to_string().contains("too large"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(data: Vec<u8>, kind: u8, flips in proptest::collection::vec((0usize..512, 0u8..), 0..4)) {
            let mut block = *Header::new_gnu().as_bytes();
            for (at, byte) in flips {
                block[at] = byte;
            }
            let mut header = Header::from_byte_slice(&block).clone();
            header.set_entry_type(EntryType::new(kind));
            header.set_size(data.len() as u64);
            header.set_cksum();
            let mut stream = header.as_bytes().to_vec();
            stream.extend_from_slice(&data);
            let mut reader = TarReader::new(stream.as_slice());
            while let Ok(Some(_)) = reader.next() {
                let _ = io::copy(&mut reader, &mut io::sink());
            }
            let _ = records(&data);
        }
    }
}
