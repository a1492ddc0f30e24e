//! Reads layer archives as a stream: headers through the `tar` crate, framing by ourselves so that extended
//! headers are bounded (a PAX header may claim terabytes) and binary PAX values survive.

#![warn(clippy::cast_possible_truncation, reason = "numbers of archives are anybody's")]

mod content;
mod members;
mod number;
mod pax;
mod sparse;

use std::io::{self, Read};

use crate::error::{Bound, Error, Fault, Result};
pub(crate) use content::Content;
pub use members::{Member, MemberKind, Members};
use sparse::{PaxSparse, SparseMap};

const BLOCK: usize = 512;
/// Largest extended header that is read; Go's archive/tar has the same bound.
const MAX_EXTENSION: usize = 1 << 20;
/// Sizes near 2^64 would overflow the padding arithmetic; no stream is that long.
const MAX_NUMBER: u64 = 1 << 62;
/// Extension headers before one entry.
const MAX_EXTENSIONS: usize = 16;

/// What kind of file an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    HardLink,
    Symlink,
    Directory,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// One entry, extended headers applied.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: EntryKind,
    pub(crate) mode: u16,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: (i64, u32),
    pub(crate) device: (u64, u64),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Size of a regular file, holes counted.
    pub(crate) size: u64,
    sparse: Option<SparseMap>,
}

/// Extended headers that wait for their entry.
#[derive(Default)]
struct Pending {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: PaxSparse,
}

/// A tar stream.
#[derive(Debug)]
pub(crate) struct TarReader<R> {
    src: R,
    offset: u64,
    /// Most bytes read: extended headers and padding cost time too, and nothing else counts them.
    max: u64,
    /// Stored bytes of the current entry that were not read yet, and the padding behind them.
    remaining: u64,
    padding: u64,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(src: R, max: u64) -> Self {
        Self { src, offset: 0, max, remaining: 0, padding: 0 }
    }

    /// The next entry, or `None` at the end of the archive. What was not read of the last one is skipped.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut pending = Pending::default();
        for _ in 0..=MAX_EXTENSIONS {
            self.skip_rest()?;
            let Some(block) = self.header()? else { return Ok(None) };
            let header = tar::Header::from_byte_slice(&block);
            let size = self.field(&header.as_old().size)?;
            let flag = header.as_old().linkflag[0];
            match flag {
                b'x' | b'g' | b'L' | b'K' => {
                    let data = self.extension(size)?;
                    let text = || data.split(|&b| b == 0).next().unwrap_or_default().to_vec();
                    match flag {
                        b'x' => self.pax(&data, &mut pending)?,
                        b'L' => pending.path = Some(text()),
                        b'K' => pending.link = Some(text()),
                        // Global headers carry comments (git archive); dockerd ignores them too.
                        _ => {}
                    }
                }
                _ => return self.entry(header, pending, size).map(Some),
            }
        }
        Err(self.bad("too many extension headers"))
    }

    /// Reads the stream to its end, so that a digest taken on the way covers all of it.
    pub(crate) fn drain(&mut self) -> Result<()> {
        let mut buf = vec![0; 64 << 10];
        while self.read_some(&mut buf)? > 0 {}
        Ok(())
    }

    /// Content of the entry that `next_entry` gave last; holes read as zeros.
    pub(crate) fn content<'a>(&'a mut self, entry: &'a Entry) -> Content<'a, R> {
        Content::new(self, entry.sparse.as_ref(), entry.size)
    }

    fn entry(&mut self, header: &tar::Header, pending: Pending, size: u64) -> Result<Entry> {
        let old = header.as_old();
        let flag = old.linkflag[0];
        let path = pending.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let kind = match flag {
            // Archives older than POSIX have no directory type.
            0 if path.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::CharDevice,
            b'4' => EntryKind::BlockDevice,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => return Err(Error::entry(&path, Fault::Type(other))),
        };
        let mut stored = pending.size.unwrap_or(size);
        let mut sparse = None;
        if flag == b'S' {
            sparse = Some(self.gnu_sparse(header, &path)?);
        }
        // Only files have content; other types may state a size without any (POSIX), as hard links often do.
        if kind != EntryKind::File {
            stored = 0;
        }
        self.remaining = stored;
        self.padding = stored.next_multiple_of(BLOCK as u64) - stored;
        let mut true_path = path;
        if kind == EntryKind::File && sparse.is_none() {
            if pending.sparse.map_in_data {
                let real_size =
                    pending.sparse.real_size.ok_or_else(|| self.bad("sparse file has no size"))?;
                sparse = Some(self.sparse_map_in_data(real_size)?);
            } else if let Some(map) = pending.sparse.inline_map() {
                sparse = Some(map.ok_or_else(|| Error::entry(&true_path, Fault::Sparse))?);
            }
            if let Some(name) = pending.sparse.name {
                true_path = name;
            }
        }
        if sparse.as_ref().is_some_and(|map| !map.is_valid(self.remaining)) {
            return Err(Error::entry(&true_path, Fault::Sparse));
        }
        let device = match header
            .as_ustar()
            .map(|h| (h.dev_major, h.dev_minor))
            .or_else(|| header.as_gnu().map(|h| (h.dev_major, h.dev_minor)))
        {
            Some((major, minor)) if matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice) => {
                (self.field(&major)?, self.field(&minor)?)
            }
            _ => (0, 0),
        };
        let mtime = match pending.mtime {
            Some(time) => time,
            None => (number::parse(&old.mtime).ok_or_else(|| self.bad("mtime is not a number"))?, 0),
        };
        Ok(Entry {
            link: pending.link.unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned()),
            kind,
            mode: (self.field(&old.mode)? & 0o7777) as u16,
            uid: pending.uid.map_or_else(|| self.field(&old.uid), Ok)?,
            gid: pending.gid.map_or_else(|| self.field(&old.gid), Ok)?,
            mtime,
            device,
            xattrs: pending.xattrs,
            size: sparse.as_ref().map_or(stored, |map| map.real_size),
            sparse,
            path: true_path,
        })
    }

    fn pax(&self, data: &[u8], pending: &mut Pending) -> Result<()> {
        const BAD: &str = "malformed PAX record";
        for record in pax::Records::new(data) {
            let (key, value) = record.ok_or_else(|| self.bad(BAD))?;
            let number = || pax::decimal(value).filter(|&n| n < MAX_NUMBER).ok_or_else(|| self.bad(BAD));
            // An empty value takes the record back (POSIX).
            match key {
                b"path" => pending.path = (!value.is_empty()).then(|| value.to_vec()),
                b"linkpath" => pending.link = (!value.is_empty()).then(|| value.to_vec()),
                b"size" => pending.size = if value.is_empty() { None } else { Some(number()?) },
                b"uid" => pending.uid = if value.is_empty() { None } else { Some(number()?) },
                b"gid" => pending.gid = if value.is_empty() { None } else { Some(number()?) },
                b"mtime" if value.is_empty() => pending.mtime = None,
                b"mtime" => pending.mtime = Some(pax::time(value).ok_or_else(|| self.bad(BAD))?),
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        pending.xattrs.push((name.to_vec(), value.to_vec()));
                    } else if let Some(rest) = key.strip_prefix(b"GNU.sparse.")
                        && !pending.sparse.record(rest, value)
                    {
                        return Err(self.bad(BAD));
                    }
                }
            }
        }
        Ok(())
    }

    /// The map of an old GNU sparse header and its extension blocks.
    fn gnu_sparse(&mut self, header: &tar::Header, path: &[u8]) -> Result<SparseMap> {
        let fault = || Error::entry(path, Fault::Sparse);
        let gnu = header.as_gnu().ok_or_else(fault)?;
        let bytes = header.as_bytes();
        let real_size = number::parse_unsigned(&gnu.realsize).ok_or_else(fault)?;
        let mut map = SparseMap { pieces: Vec::new(), real_size };
        // struct oldgnu_header: four entries at 386, the "more follow" flag at 482.
        if !map.add_gnu(&bytes[386..482]) {
            return Err(fault());
        }
        let mut more = gnu.isextended[0] != 0;
        while more {
            let mut block = [0; BLOCK];
            self.read_exact(&mut block)?;
            if !map.add_gnu(&block[..504]) {
                return Err(fault());
            }
            more = block[504] != 0;
        }
        // GNU tar ends a map with an empty piece at the end of the file.
        map.pieces.retain(|&(_, len)| len > 0);
        Ok(map)
    }

    /// The map of the PAX 1.0 form: decimal lines before the data, padded to a block.
    fn sparse_map_in_data(&mut self, real_size: u64) -> Result<SparseMap> {
        let mut numbers: Vec<u64> = Vec::new();
        let mut wanted: Option<usize> = None;
        let mut line = Vec::new();
        loop {
            let mut block = [0; BLOCK];
            if self.remaining < BLOCK as u64 {
                return Err(self.bad("sparse map is cut off"));
            }
            self.read_exact(&mut block)?;
            self.remaining -= BLOCK as u64;
            for b in block {
                if wanted == Some(numbers.len()) {
                    break;
                }
                if b != b'\n' {
                    line.push(b);
                    continue;
                }
                let n = pax::decimal(&line).ok_or_else(|| self.bad("sparse map is not numeric"))?;
                line.clear();
                if wanted.is_some() {
                    numbers.push(n);
                } else {
                    let pieces = usize::try_from(n).ok().filter(|n| *n <= sparse::MAX_PIECES);
                    wanted = Some(pieces.ok_or_else(|| self.bad("sparse map is too long"))? * 2);
                }
            }
            if line.len() > BLOCK {
                return Err(self.bad("sparse map is not numeric"));
            }
            if wanted == Some(numbers.len()) {
                let pieces = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).filter(|p| p.1 > 0);
                return Ok(SparseMap { pieces: pieces.collect(), real_size });
            }
        }
    }

    /// Reads one header block; `None` at the end: a zero block, or a stream that ends here.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.read_some(&mut block[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(self.bad("truncated header")),
                n => filled += n,
            }
        }
        if block == [0; BLOCK] {
            return Ok(None);
        }
        // The checksum field counts as spaces; some old writers summed signed bytes.
        let stated = number::parse(&block[148..156]);
        let rest = block[..148].iter().chain(&block[156..]);
        let (unsigned, signed) =
            rest.fold((256i64, 256i64), |(u, s), &b| (u + i64::from(b), s + i64::from(b.cast_signed())));
        if stated != Some(unsigned) && stated != Some(signed) {
            return Err(self.bad("header checksum does not match"));
        }
        Ok(Some(block))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        let bytes = usize::try_from(size).ok().filter(|bytes| *bytes <= MAX_EXTENSION);
        let mut data = vec![0; bytes.ok_or_else(|| self.bad("extended header is larger than 1 MiB"))?];
        self.read_exact(&mut data)?;
        self.remaining = 0;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(data)
    }

    fn skip_rest(&mut self) -> Result<()> {
        let mut left = self.remaining.saturating_add(self.padding);
        let mut buf = [0; 8192];
        while left > 0 {
            let want = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.read_exact(&mut buf[..want])?;
            left -= want as u64;
        }
        (self.remaining, self.padding) = (0, 0);
        Ok(())
    }

    fn read_some(&mut self, buf: &mut [u8]) -> Result<usize> {
        loop {
            match self.src.read(buf) {
                Ok(n) => {
                    self.offset = self.offset.saturating_add(n as u64);
                    if self.offset > self.max {
                        return Err(Error::limit(b"(archive)", Bound::Bytes, self.max));
                    }
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(Error::Read { offset: self.offset, cause }),
            }
        }
    }

    fn read_exact(&mut self, buf: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.read_some(&mut buf[filled..])? {
                0 => return Err(self.bad("truncated")),
                n => filled += n,
            }
        }
        Ok(())
    }

    fn field(&self, field: &[u8]) -> Result<u64> {
        number::parse_unsigned(field)
            .filter(|&n| n < MAX_NUMBER)
            .ok_or_else(|| self.bad("header field is not a number"))
    }

    fn bad(&self, reason: &'static str) -> Error {
        Error::Tar { offset: self.offset, reason }
    }
}
