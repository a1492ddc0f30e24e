//! The guest's console on disk, bounded: the first bytes and the last ones. A flood can neither fill the disk nor block.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// Bytes kept from the start.
const HEAD: u64 = 64 << 10;
/// Bytes kept from the end.
const TAIL: u64 = 256 << 10;
/// Bytes of the end that are also held in memory, for error messages.
const RECENT: usize = 4 << 10;

/// Writes a console log: appends until twice the tail is there, then drops the middle.
#[derive(Debug)]
pub(super) struct Console {
    path: PathBuf,
    /// `None` once the disk failed: the console goes on without a file.
    file: Option<File>,
    size: u64,
    left_out: u64,
    recent: Vec<u8>,
}

impl Console {
    /// Starts a new log at `path`.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Self { path: path.to_owned(), file: Some(file), size: 0, left_out: 0, recent: Vec::new() })
    }

    /// Only the memory part, for messages of the processes.
    pub(super) fn memory() -> Self {
        Self { path: PathBuf::new(), file: None, size: 0, left_out: 0, recent: Vec::new() }
    }

    /// Takes what the guest wrote.
    pub(super) fn push(&mut self, data: &[u8]) {
        self.recent.extend_from_slice(&data[data.len().saturating_sub(RECENT)..]);
        let excess = self.recent.len().saturating_sub(RECENT);
        self.recent.drain(..excess);
        if let Err(error) = self.store(data) {
            tracing::warn!(%error, "console log given up");
            self.file = None;
        }
    }

    fn store(&mut self, data: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(data)?;
        self.size += data.len() as u64;
        if self.size > HEAD + 2 * TAIL {
            self.compact()?;
        }
        Ok(())
    }

    /// Rewrites the file as head, note, tail.
    fn compact(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let temporary = self.path.with_extension("tmp");
        let mut fresh =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&temporary)?;
        let mut buffer = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.take(HEAD).read_to_end(&mut buffer)?;
        fresh.write_all(&buffer)?;
        self.left_out += self.size - HEAD - TAIL;
        let note = format!("\n[... about {} bytes left out ...]\n", self.left_out);
        fresh.write_all(note.as_bytes())?;
        buffer.clear();
        file.seek(SeekFrom::Start(self.size - TAIL))?;
        file.take(TAIL).read_to_end(&mut buffer)?;
        fresh.write_all(&buffer)?;
        fs::rename(&temporary, &self.path)?;
        self.size = fresh.stream_position()?;
        self.file = Some(fresh);
        Ok(())
    }

    /// The last lines, printable.
    pub(super) fn tail(&self, lines: usize) -> String {
        let text: String = String::from_utf8_lossy(&self.recent)
            .chars()
            .filter(|c| *c == '\n' || *c == '\t' || !c.is_control())
            .collect();
        let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_keeps_first_and_last_within_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let mut console = Console::create(&path).unwrap();
        console.push(b"first line\n");
        for n in 0..100_000 {
            console.push(format!("line {n} of the flood\n").as_bytes());
        }
        console.push(b"last \x1b[0mline\r\n");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.len() as u64 <= HEAD + 2 * TAIL + 100, "{}", text.len());
        assert!(text.starts_with("first line\nline 0 "));
        assert!(text.ends_with("last \x1b[0mline\r\n"));
        assert!(text.contains("bytes left out"));
        assert_eq!(console.tail(2), "line 99999 of the flood\nlast [0mline");
    }
}
