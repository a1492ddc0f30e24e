//! The data area of an image: file contents, written as they are read.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use crate::error::{Bound, Error, Result};
use crate::tarball::Content;

/// EROFS block size; also the page size of every guest we boot.
pub(crate) const BLOCK: u64 = 4096;

/// Room for an inline tail beside the larger inode form.
const INLINE_ROOM: usize = BLOCK as usize - 64;

/// Memory for tails that wait for their inode; what comes later gets a block of its own.
const INLINE_BUDGET: usize = 64 << 20;

/// Bytes gathered before a write.
const CHUNK: usize = 1 << 20;

/// Where a regular file's content lies.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) size: u64,
    /// First block, meaningless without blocks.
    pub(crate) block: u32,
    pub(crate) blocks: u32,
    /// The last bytes, kept to be stored behind the inode.
    pub(crate) tail: Option<Box<[u8]>>,
}

/// Sequential writer of blocks. Runs of zeros are skipped, which leaves holes in a new file.
pub(crate) struct DataArea {
    file: File,
    /// Gathered blocks, and the block number of their start.
    buf: Vec<u8>,
    start: u64,
    max_blocks: u64,
    inline_left: usize,
    dead: Vec<(u32, u32)>,
}

impl DataArea {
    /// Block 0 is left for the super block.
    pub(crate) fn new(file: File, max_bytes: u64) -> Self {
        // Block numbers are 32 bits.
        let max_blocks = (max_bytes / BLOCK).min(u64::from(u32::MAX));
        Self { file, buf: Vec::new(), start: 1, max_blocks, inline_left: INLINE_BUDGET, dead: Vec::new() }
    }

    /// The number the next block gets.
    pub(crate) fn next_block(&self) -> u64 {
        self.start + self.buf.len() as u64 / BLOCK
    }

    /// The most blocks the image may have.
    pub(crate) fn max_blocks(&self) -> u64 {
        self.max_blocks
    }

    /// Whether `more` blocks still fit.
    pub(crate) fn has_room(&self, more: u64) -> bool {
        self.next_block().checked_add(more).is_some_and(|end| end <= self.max_blocks)
    }

    /// Stores a file's content; `xattrs` is the encoded size of its attributes, which share the tail's block.
    pub(crate) fn store<R: Read>(
        &mut self,
        name: &[u8],
        content: &mut Content<'_, R>,
        size: u64,
        xattrs: usize,
    ) -> Result<Stored> {
        if !self.has_room(size.div_ceil(BLOCK)) {
            return Err(Error::limit(name, Bound::Bytes, self.max_blocks * BLOCK));
        }
        let tail_len = (size % BLOCK) as usize;
        let inline = tail_len > 0 && tail_len + xattrs <= INLINE_ROOM && tail_len <= self.inline_left;
        let in_blocks = if inline { size - tail_len as u64 } else { size };
        // has_room() bounded both to 32 bits.
        let (block, blocks) = (self.next_block() as u32, in_blocks.div_ceil(BLOCK) as u32);
        let mut left = in_blocks;
        while left > 0 {
            if self.buf.len() >= CHUNK {
                self.flush()?;
            }
            let old = self.buf.len();
            let n = left.min((CHUNK - old) as u64) as usize;
            self.buf.resize(old + n, 0);
            content.read_exact(&mut self.buf[old..])?;
            left -= n as u64;
        }
        self.buf.resize(self.buf.len().next_multiple_of(BLOCK as usize), 0);
        let mut tail = None;
        if inline {
            let mut bytes = vec![0; tail_len].into_boxed_slice();
            content.read_exact(&mut bytes)?;
            self.inline_left -= tail_len;
            tail = Some(bytes);
        }
        Ok(Stored { size, block, blocks, tail })
    }

    /// Appends whole blocks that are in memory already; the last one is padded with zeros.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if self.buf.len() + bytes.len() > CHUNK {
            self.flush()?;
        }
        self.buf.extend_from_slice(bytes);
        self.buf.resize(self.buf.len().next_multiple_of(BLOCK as usize), 0);
        Ok(())
    }

    /// A file is gone: its blocks stay in the image but need no space on the host.
    pub(crate) fn forget(&mut self, stored: &Stored) {
        self.inline_left += stored.tail.as_ref().map_or(0, |tail| tail.len());
        if stored.blocks == 0 {
            return;
        }
        // A name that is given again and again leaves one run, not millions.
        match self.dead.last_mut() {
            Some((block, blocks)) if u64::from(*block) + u64::from(*blocks) == u64::from(stored.block) => {
                // Both are parts of one image, whose blocks fit 32 bits.
                *blocks += stored.blocks;
            }
            _ => self.dead.push((stored.block, stored.blocks)),
        }
    }

    fn flush(&mut self) -> Result<()> {
        const PIECE: usize = 16 * BLOCK as usize;
        let mut at = 0;
        while at < self.buf.len() {
            let zeros = self.buf[at..].chunks(PIECE).take_while(|piece| is_zero(piece)).count();
            at = (at + zeros * PIECE).min(self.buf.len());
            let used = self.buf[at..].chunks(PIECE).take_while(|piece| !is_zero(piece)).count();
            let end = (at + used * PIECE).min(self.buf.len());
            self.file
                .write_all_at(&self.buf[at..end], self.start * BLOCK + at as u64)
                .map_err(Error::io("write the layer disk"))?;
            at = end;
        }
        self.start = self.next_block();
        self.buf.clear();
        Ok(())
    }

    /// Writes what is left, gives up the space of forgotten files, and hands out the file.
    pub(crate) fn finish(mut self) -> Result<File> {
        self.flush()?;
        for &(block, blocks) in &self.dead {
            punch(&self.file, u64::from(block) * BLOCK, u64::from(blocks) * BLOCK);
        }
        Ok(self.file)
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    // In pieces that vectorise; stops at the first byte of ordinary data's first piece.
    bytes.chunks(64).all(|piece| piece.iter().fold(0, |or, &b| or | b) == 0)
}

/// Makes a hole. Only saves space, so file systems that cannot are fine; but every image must read the same,
/// hence the zeros by hand there.
fn punch(file: &File, offset: u64, len: u64) {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::FallocateFlags;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if rustix::fs::fallocate(file, flags, offset, len).is_ok() {
            return;
        }
    }
    let zeros = vec![0; CHUNK];
    let mut at = 0;
    while at < len {
        let n = (len - at).min(CHUNK as u64);
        if file.write_all_at(&zeros[..n as usize], offset + at).is_err() {
            return;
        }
        at += n;
    }
}
