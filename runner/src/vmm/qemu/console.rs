//! What a VM's processes say: the end of it in memory, for error messages, and a bounded file.

use std::path::Path;

use crate::{Error, backlog::Backlog, bounded::Bounded};

/// Bytes of the end that are held in memory.
const RECENT: usize = 4 << 10;

/// Takes what comes; never waits for the disk.
#[derive(Debug, Default)]
pub(super) struct Console {
    file: Option<Backlog>,
    recent: Vec<u8>,
}

impl Console {
    /// Starts a new log at `path`.
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        let open = || Backlog::start("console", Bounded::open(path, true)?);
        Ok(Self { file: Some(open().map_err(Error::file("create", path))?), recent: Vec::new() })
    }

    /// Takes what the guest wrote.
    pub(super) fn push(&mut self, data: &[u8]) {
        self.recent.extend_from_slice(&data[data.len().saturating_sub(RECENT)..]);
        let excess = self.recent.len().saturating_sub(RECENT);
        self.recent.drain(..excess);
        if let Some(file) = &self.file {
            file.push(data);
        }
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
    fn the_tail_is_printable_and_bounded() {
        let mut console = Console::default();
        for n in 0..10_000 {
            console.push(format!("line {n}\n").as_bytes());
        }
        console.push(b"last \x1b[0mline\r\n\n");
        assert_eq!(console.tail(2), "line 9999\nlast [0mline");
        assert!(console.tail(usize::MAX).len() <= RECENT && console.recent.len() <= RECENT);
    }
}
