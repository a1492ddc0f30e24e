//! Cutting a byte stream into log lines, as docker's copier does.

use super::entry::LogStream;

/// A longer line is logged in parts.
pub(super) const MAX_LINE: usize = 16 << 10;

/// Holds the unfinished line of one stream.
#[derive(Debug)]
pub(super) struct Lines {
    stream: LogStream,
    rest: Vec<u8>,
    /// Time of the first part of the line at hand: all its parts carry it.
    partial: Option<String>,
}

impl Lines {
    pub(super) fn new(stream: LogStream) -> Self {
        Self { stream, rest: Vec::new(), partial: None }
    }

    /// Cuts `data`; `emit` gets stream, time and text of each entry, `now` tells the time of a line that ends here.
    pub(super) fn push(
        &mut self,
        mut data: &[u8],
        now: impl Fn() -> String,
        mut emit: impl FnMut(LogStream, &str, &[u8]),
    ) {
        while !data.is_empty() {
            let room = MAX_LINE - self.rest.len();
            let window = &data[..data.len().min(room)];
            if let Some(newline) = window.iter().position(|byte| *byte == b'\n') {
                let (line, after) = data.split_at(newline + 1);
                let time = self.partial.take().unwrap_or_else(&now);
                if self.rest.is_empty() {
                    emit(self.stream, &time, line);
                } else {
                    self.rest.extend_from_slice(line);
                    emit(self.stream, &time, &self.rest);
                    self.rest.clear();
                }
                data = after;
            } else {
                self.rest.extend_from_slice(window);
                data = &data[window.len()..];
                if self.rest.len() == MAX_LINE {
                    self.flush(&now, &mut emit);
                }
            }
        }
    }

    /// The stream is over, or some of it is missing: what is held becomes an entry, and what comes then begins another line.
    pub(super) fn end(&mut self, now: impl Fn() -> String, emit: impl FnMut(LogStream, &str, &[u8])) {
        self.flush(now, emit);
        self.partial = None;
    }

    /// The line is too long: what is held becomes an entry without a newline.
    fn flush(&mut self, now: impl Fn() -> String, mut emit: impl FnMut(LogStream, &str, &[u8])) {
        if !self.rest.is_empty() {
            let time = self.partial.get_or_insert_with(now);
            emit(self.stream, time, &self.rest);
            self.rest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut lines = Lines::new(LogStream::Stdout);
        let mut seen = Vec::new();
        for chunk in chunks {
            lines.push(chunk, String::new, |_, _, line| seen.push(line.to_vec()));
        }
        lines.end(String::new, |_, _, line| seen.push(line.to_vec()));
        seen
    }

    #[test]
    fn chunks_do_not_matter() {
        let expected = vec![b"one\n".to_vec(), b"\n".to_vec(), b"two".to_vec()];
        assert_eq!(cut(&[b"one\n\ntwo"]), expected);
        assert_eq!(cut(&[b"o", b"n", b"e", b"\n", b"\nt", b"wo"]), expected);
    }

    #[test]
    fn long_lines_become_parts_of_16_kib_with_one_time() {
        let long = vec![b'x'; 2 * MAX_LINE];
        let mut lines = Lines::new(LogStream::Stdout);
        let clock = std::cell::Cell::new(0);
        let now = || {
            clock.set(clock.get() + 1);
            clock.get().to_string()
        };
        let mut seen = Vec::new();
        for chunk in long.chunks(1000).chain([&b"y\nz\n"[..]]) {
            lines.push(chunk, now, |_, time, line| seen.push((time.to_owned(), line.len())));
        }
        let expected = [("1", MAX_LINE), ("1", MAX_LINE), ("1", 2), ("2", 2)];
        assert_eq!(seen, expected.map(|(time, len)| (time.to_owned(), len)));
    }

    #[test]
    fn a_newline_right_behind_a_full_part_is_an_entry() {
        let line = [vec![b'x'; MAX_LINE], b"\n".to_vec()].concat();
        assert_eq!(cut(&[&line]).iter().map(Vec::len).collect::<Vec<_>>(), [MAX_LINE, 1]);
    }
}
