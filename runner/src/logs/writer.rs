//! The writing side, in the runner.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{
    entry::{LogStream, encode},
    files::numbered,
    lines::Lines,
};
use crate::{Error, clock};

/// Appends output to a json-file log.
#[derive(Debug)]
pub(crate) struct LogWriter {
    path: PathBuf,
    file: File,
    size: u64,
    /// 0: no limit.
    max_size: u64,
    max_file: u32,
    stdout: Lines,
    stderr: Lines,
    buffer: Vec<u8>,
    /// Entries that are not in the file since the last one that is, and why: the log itself tells once there is room.
    missing: Option<(usize, String)>,
    /// The file ends in half an entry (a full disk, a runner that was killed): the next entry begins a line of its own.
    torn: bool,
}

impl LogWriter {
    /// Opens the log at `path` for appending, or creates it.
    pub(crate) fn open(path: &Path, max_size: u64, max_file: u32) -> Result<Self, Error> {
        let open = || -> io::Result<(File, u64, bool)> {
            let file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
            let size = file.metadata()?.len();
            let mut last = *b"\n";
            if size > 0 {
                file.read_exact_at(&mut last, size - 1)?;
            }
            Ok((file, size, last != *b"\n"))
        };
        let (file, size, torn) = open().map_err(Error::file("open", path))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            max_size,
            max_file: max_file.max(1),
            stdout: Lines::new(LogStream::Stdout),
            stderr: Lines::new(LogStream::Stderr),
            buffer: Vec::new(),
            missing: None,
            torn,
        })
    }

    /// Writes output; when this returns, all its full lines are in the file. A full disk loses lines, never the container.
    pub(crate) fn write(&mut self, stream: LogStream, data: &[u8]) {
        self.emit(stream, |lines, out| {
            lines.push(data, now, |stream, time, line| encode(out, stream, time, line));
        });
    }

    /// The stream is over: its unfinished line is written.
    pub(crate) fn finish(&mut self, stream: LogStream) {
        self.emit(stream, |lines, out| {
            lines.end(now, |stream, time, line| encode(out, stream, time, line));
        });
    }

    fn emit(&mut self, stream: LogStream, cut: impl FnOnce(&mut Lines, &mut Vec<u8>)) {
        let lines = match stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        cut(lines, &mut buffer);
        if !buffer.is_empty() {
            self.tell_missing();
            self.store(&buffer);
        }
        buffer.clear();
        self.buffer = buffer;
    }

    /// Lines that never got here are missing from the log.
    pub(super) fn left_out(&mut self, lines: usize, why: &str) {
        if lines > 0 {
            // Half a line must not go on with the end of another.
            self.finish(LogStream::Stdout);
            self.finish(LogStream::Stderr);
            self.lose(lines, why);
        }
    }

    fn lose(&mut self, entries: usize, why: &str) {
        let (missing, _) = self.missing.get_or_insert_with(|| {
            tracing::error!(path = %self.path.display(), "log lines are being lost: {why}");
            (0, why.to_owned())
        });
        *missing += entries;
    }

    fn tell_missing(&mut self) {
        let Some((missing, why)) = self.missing.take() else { return };
        let note = format!("arca: {missing} lines of output are missing here: {why}\n");
        let mut entry = Vec::new();
        encode(&mut entry, LogStream::Stderr, &now(), note.as_bytes());
        if self.append(&entry).is_ok() {
            tracing::info!(missing, path = %self.path.display(), "log lines are stored again");
        } else {
            self.missing = Some((missing, why));
        }
    }

    /// Writes whole entries, or notes how many did not get in.
    fn store(&mut self, entries: &[u8]) {
        if self.missing.is_none()
            && let Err((stored, error)) = self.append(entries)
        {
            self.lose(count(&entries[stored..]), &error.to_string());
        } else if self.missing.is_some() {
            // In order: what is missing is told first.
            self.lose(count(entries), "");
        }
    }

    /// Writes whole entries, rotating between two of them where the file is full.
    /// An error says how many bytes are in.
    fn append(&mut self, all: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut entries = all;
        while !entries.is_empty() {
            let stored = all.len() - entries.len();
            if self.max_size > 0 && self.size >= self.max_size {
                self.rotate().map_err(|error| (stored, error))?;
            }
            let take = if self.max_size == 0 {
                entries.len()
            } else {
                until_full(entries, self.max_size - self.size)
            };
            let (now, later) = entries.split_at(take);
            if self.torn {
                self.file.write_all(b"\n").map_err(|error| (stored, error))?;
                self.size += 1;
                self.torn = false;
            }
            if let Err(error) = self.file.write_all(now) {
                let size = self.file.metadata().map_or(self.size, |file| file.len());
                let part = usize::try_from(size.saturating_sub(self.size)).unwrap_or(0).min(now.len());
                self.size += part as u64;
                self.torn = !matches!(now[..part].last(), None | Some(b'\n'));
                return Err((stored + part, error));
            }
            self.size += now.len() as u64;
            entries = later;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.max_file == 1 {
            self.file.set_len(0)?;
        } else {
            // The new file first: without it nothing is moved, however often this is tried again on a full disk.
            let mut fresh = self.path.as_os_str().to_owned();
            fresh.push(".new");
            let file = OpenOptions::new().create(true).append(true).open(&fresh)?;
            // Moved already where only the last step failed.
            if self.path.try_exists()? {
                for number in (1..self.max_file).rev() {
                    match fs::rename(numbered(&self.path, number - 1), numbered(&self.path, number)) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
            }
            fs::rename(&fresh, &self.path)?;
            self.file = file;
        }
        self.size = 0;
        self.torn = false;
        Ok(())
    }
}

/// Length of the entries up to and with the one that fills `room`, as docker does: a file is full once it is over its limit.
fn until_full(entries: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if entries.len() <= room {
        return entries.len();
    }
    let from = room.saturating_sub(1);
    entries[from..].iter().position(|byte| *byte == b'\n').map_or(entries.len(), |newline| from + newline + 1)
}

/// Entries, the last of which may be half a one.
fn count(entries: &[u8]) -> usize {
    entries.iter().filter(|byte| **byte == b'\n').count()
}

fn now() -> String {
    clock::format(clock::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(path: &Path) -> Vec<String> {
        let Ok(text) = fs::read(path) else { return Vec::new() };
        text.split_inclusive(|byte| *byte == b'\n')
            .map(|line| String::from_utf8(super::super::entry::decode(line).unwrap().line.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn rotates_between_entries_and_keeps_so_many_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        let mut log = LogWriter::open(&path, 200, 3).unwrap();
        let text: String = (0..20).map(|n| format!("line {n}\n")).collect();
        log.write(LogStream::Stdout, text.as_bytes());
        let mut seen = Vec::new();
        for number in (0..3).rev() {
            let file = numbered(&path, number);
            assert!(fs::metadata(&file).unwrap().len() < 300);
            seen.extend(texts(&file));
        }
        assert!(!numbered(&path, 3).exists());
        assert_eq!(seen.last().unwrap(), "line 19\n");
        let first: usize = seen[0].trim_start_matches("line ").trim().parse().unwrap();
        assert_eq!(seen.len(), 20 - first, "no gap: {seen:?}");
        // A reopened log goes on.
        drop(log);
        LogWriter::open(&path, 0, 1).unwrap().write(LogStream::Stderr, b"again\n");
        assert_eq!(texts(&path).last().unwrap(), "again\n");
    }

    #[test]
    fn a_rotation_that_fails_moves_nothing_however_often_it_is_tried() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        let mut log = LogWriter::open(&path, 300, 3).unwrap();
        while !numbered(&path, 2).exists() || log.size < 300 {
            log.write(LogStream::Stdout, b"some words of output\n");
        }
        let files = || [0, 1, 2].map(|number| fs::read(numbered(&path, number)).unwrap());
        let (before, blocked) = (files(), dir.path().join("c.log.new"));
        fs::create_dir(&blocked).unwrap();
        for _ in 0..5 {
            log.write(LogStream::Stdout, b"lost\n");
        }
        assert_eq!(files(), before);
        fs::remove_dir(&blocked).unwrap();
        log.torn = true;
        log.write(LogStream::Stdout, b"later\n");
        assert_eq!([files()[1].clone(), files()[2].clone()], [before[0].clone(), before[1].clone()]);
        let told = texts(&path);
        assert!(told[0].starts_with("arca: 5 lines of output are missing here"), "{told:?}");
        assert_eq!(told[1], "later\n");
    }

    #[test]
    fn half_a_line_does_not_go_on_with_what_comes_behind_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        let mut log = LogWriter::open(&path, 0, 1).unwrap();
        log.write(LogStream::Stdout, b"half");
        log.left_out(2, "the disk was too slow");
        log.write(LogStream::Stdout, b" of another\n");
        let told = "arca: 2 lines of output are missing here: the disk was too slow\n";
        assert_eq!(texts(&path), ["half", told, " of another\n"]);
    }

    /// SPEC D10
    #[test]
    fn half_an_entry_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        LogWriter::open(&path, 0, 1).unwrap().write(LogStream::Stdout, b"one\n");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"log\":\"tw").unwrap();
        let mut log = LogWriter::open(&path, 0, 1).unwrap();
        log.write(LogStream::Stdout, b"three\n");
        log.write(LogStream::Stdout, b"four\n");
        let text = fs::read(&path).unwrap();
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        let whole: Vec<_> =
            lines.filter_map(|line| Some(super::super::entry::decode(line).ok()?.line)).collect();
        assert_eq!(whole, ["one\n", "three\n", "four\n"]);
    }

    /// SPEC V10
    #[test]
    fn what_a_full_disk_did_not_take_is_told_once_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        let mut log = LogWriter::open(&path, 0, 1).unwrap();
        log.write(LogStream::Stdout, b"before\n");
        let room =
            std::mem::replace(&mut log.file, OpenOptions::new().append(true).open("/dev/full").unwrap());
        log.write(LogStream::Stdout, b"one\ntwo\n");
        log.write(LogStream::Stderr, b"three\n");
        log.file = room;
        log.write(LogStream::Stdout, b"after\n");
        log.write(LogStream::Stdout, b"last\n");
        let told = "arca: 3 lines of output are missing here: No space left on device (os error 28)\n";
        assert_eq!(texts(&path), ["before\n", told, "after\n", "last\n"]);
    }

    #[test]
    fn one_file_is_truncated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        let mut log = LogWriter::open(&path, 100, 1).unwrap();
        for n in 0..50 {
            log.write(LogStream::Stdout, format!("{n}\n").as_bytes());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(texts(&path).last().unwrap(), "49\n");
        assert!(fs::metadata(&path).unwrap().len() < 200);
    }

    #[test]
    fn an_unfinished_line_is_written_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        let mut log = LogWriter::open(&path, 0, 1).unwrap();
        log.write(LogStream::Stdout, b"$ ");
        assert!(texts(&path).is_empty());
        log.finish(LogStream::Stdout);
        log.finish(LogStream::Stdout);
        assert_eq!(texts(&path), ["$ "]);
    }
}
