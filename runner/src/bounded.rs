//! A log file that keeps its first bytes and its last ones: a flood can neither fill the disk nor wash the beginning away.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::Path,
};

/// Bytes kept from the start.
const HEAD: u64 = 64 << 10;
/// Bytes kept from the end, at least; up to twice as many before the middle is dropped.
const TAIL: u64 = 256 << 10;

/// Appends to such a file.
#[derive(Debug)]
pub(crate) struct Bounded {
    file: File,
    size: u64,
    left_out: u64,
}

impl Bounded {
    /// Opens or creates it; `fresh`: without what is there.
    pub(crate) fn open(path: &Path, fresh: bool) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        if fresh {
            file.set_len(0)?;
        }
        let size = file.metadata()?.len();
        Ok(Self { file, size, left_out: 0 })
    }

    /// Appends.
    pub(crate) fn push(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all(data)?;
        self.size += data.len() as u64;
        if self.size > HEAD + 2 * TAIL { self.compact() } else { Ok(()) }
    }

    /// Drops the middle. In place: a process may hold the file as its standard error.
    fn compact(&mut self) -> io::Result<()> {
        self.size = self.file.metadata()?.len();
        let Some(middle) = self.size.checked_sub(HEAD + TAIL) else { return Ok(()) };
        let mut tail = vec![0; usize::try_from(TAIL).unwrap_or_default()];
        self.file.read_exact_at(&mut tail, HEAD + middle)?;
        self.left_out += middle;
        self.file.set_len(HEAD)?;
        let note = format!("\n[... about {} bytes left out ...]\n", self.left_out);
        self.file.write_all(note.as_bytes())?;
        self.file.write_all(&tail)?;
        self.size = HEAD + note.len() as u64 + TAIL;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SPEC V9
    #[test]
    fn a_flood_keeps_first_and_last_within_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let mut log = Bounded::open(&path, true).unwrap();
        log.push(b"first line\n").unwrap();
        for n in 0..50_000 {
            log.push(format!("line {n} of the flood\n").as_bytes()).unwrap();
        }
        // What is there is kept, and counts.
        let mut log = Bounded::open(&path, false).unwrap();
        for n in 50_000..100_000 {
            log.push(format!("line {n} of the flood\n").as_bytes()).unwrap();
        }
        log.push(b"last line\n").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.len() as u64 <= HEAD + 2 * TAIL + 100, "{}", text.len());
        assert!(text.starts_with("first line\nline 0 "));
        assert!(text.ends_with("line 99999 of the flood\nlast line\n"));
        assert!(text.contains("bytes left out"));
        Bounded::open(&path, true).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    }
}
