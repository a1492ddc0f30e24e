//! Content of one file, holes of sparse files filled in.

use std::io::Read;

use super::TarReader;
use super::sparse::SparseMap;
use crate::error::Result;

/// Content of a regular file.
pub(crate) struct Content<'a, R> {
    tar: &'a mut TarReader<R>,
    map: Option<&'a SparseMap>,
    piece: usize,
    pos: u64,
    size: u64,
}

impl<'a, R: Read> Content<'a, R> {
    pub(super) fn new(tar: &'a mut TarReader<R>, map: Option<&'a SparseMap>, size: u64) -> Self {
        Self { tar, map, piece: 0, pos: 0, size }
    }

    /// Fills `buf` wholly; asking for more than the file has is an error.
    pub(crate) fn read_exact(&mut self, buf: &mut [u8]) -> Result<()> {
        if buf.len() as u64 > self.size - self.pos {
            return Err(self.tar.bad("truncated"));
        }
        let Some(map) = self.map else { return self.stored(buf) };
        let mut filled = 0;
        while filled < buf.len() {
            let left = (buf.len() - filled) as u64;
            let Some(&(start, len)) = map.pieces.get(self.piece) else {
                buf[filled..].fill(0);
                self.pos += left;
                return Ok(());
            };
            let (hole, n) =
                if self.pos < start { (true, start - self.pos) } else { (false, start + len - self.pos) };
            // Bounded by `left`, which is a buffer's length.
            let n = usize::try_from(n.min(left)).unwrap_or(usize::MAX);
            if hole {
                buf[filled..filled + n].fill(0);
                self.pos += n as u64;
            } else {
                self.stored(&mut buf[filled..filled + n])?;
                if self.pos == start + len {
                    self.piece += 1;
                }
            }
            filled += n;
        }
        Ok(())
    }

    fn stored(&mut self, buf: &mut [u8]) -> Result<()> {
        if self.tar.remaining < buf.len() as u64 {
            return Err(self.tar.bad("truncated"));
        }
        self.tar.read_exact(buf)?;
        self.tar.remaining -= buf.len() as u64;
        self.pos += buf.len() as u64;
        Ok(())
    }
}
