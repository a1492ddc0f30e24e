//! The reading side, in the daemon.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{mpsc, watch},
    time::timeout_at,
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    entry::{Entry, LogStream, decode},
    files::{identity, open_all, successor},
    follow::Changes,
};
use crate::{
    Error,
    clock::{self, Stamp},
};

/// Bytes read at once.
const BLOCK: usize = 64 << 10;
/// A longer line is no entry of ours (16 KiB, escaped, and a frame): it is skipped.
const MAX_ENTRY: usize = 256 << 10;

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Nothing older than this; seconds and nanoseconds since the epoch.
    pub since: Option<(i64, u32)>,
    /// Nothing newer than this; a following read ends there.
    pub until: Option<(i64, u32)>,
    /// Only the last so many entries of what is there (counted before the other conditions, as docker does).
    pub tail: Option<usize>,
    /// Go on with what is written later.
    pub follow: bool,
    /// Entries of standard output.
    pub stdout: bool,
    /// Entries of standard error.
    pub stderr: bool,
}

impl Default for Query {
    fn default() -> Self {
        Self { since: None, until: None, tail: None, follow: false, stdout: true, stderr: true }
    }
}

/// Reads the log at `path` and its rotated files, oldest first. A following read ends once `ended` is true (or its sender
/// is gone) and everything was read. A log that does not exist (yet) is an empty one. Call it within a tokio runtime.
#[must_use]
pub fn read(
    path: PathBuf,
    query: Query,
    ended: watch::Receiver<bool>,
) -> ReceiverStream<Result<Entry, Error>> {
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let mut reader = Reader { path, query, out: sender };
        if let Err(Stop::Failed(error)) = reader.run(ended).await {
            let error = Error::File { what: "read", path: reader.path, source: error };
            // Nobody listens any more: nothing to tell.
            let _ = reader.out.send(Err(error)).await;
        }
    });
    ReceiverStream::new(receiver)
}

/// Why reading ends early.
enum Stop {
    /// Past `until`, or the listener left.
    Done,
    Failed(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

struct Reader {
    path: PathBuf,
    query: Query,
    out: mpsc::Sender<Result<Entry, Error>>,
}

impl Reader {
    async fn run(&mut self, mut ended: watch::Receiver<bool>) -> Result<(), Stop> {
        // Watch first, look then: no change is missed.
        let mut changes = self.query.follow.then(|| Changes::of(&self.path));
        let mut files = VecDeque::from(open_all(&self.path)?);
        if let Some(tail) = self.query.tail {
            skip_to_tail(&mut files, tail)?;
        }
        let mut current: Option<Cursor> = None;
        while let Some(file) = files.pop_front() {
            let mut cursor = Cursor::new(file);
            self.drain(&mut cursor).await?;
            current = Some(cursor);
        }
        let Some(changes) = &mut changes else { return Ok(()) };
        loop {
            // Asked before reading: what was written before the end is then read.
            let last = *ended.borrow() || ended.has_changed().is_err();
            self.catch_up(&mut current).await?;
            if last {
                return Ok(());
            }
            let wake = async {
                tokio::select! {
                    () = changes.next() => {}
                    _ = ended.wait_for(|ended| *ended) => {}
                    () = self.out.closed() => {}
                }
            };
            match self.query.until {
                Some(until) => timeout_at(instant(until), wake).await.map_err(|_| Stop::Done)?,
                None => wake.await,
            }
            if self.out.is_closed() {
                return Err(Stop::Done);
            }
        }
    }

    /// Reads what was added, through any number of rotations.
    async fn catch_up(&self, current: &mut Option<Cursor>) -> Result<(), Stop> {
        loop {
            let Some(cursor) = current else {
                let Some(first) = open_all(&self.path)?.into_iter().next() else { return Ok(()) };
                *current = Some(Cursor::new(first));
                continue;
            };
            // In this order: once there is a successor nothing more is written to this file.
            let next = successor(&self.path, identity(&cursor.file.metadata()?))?;
            self.drain(cursor).await?;
            match next {
                Some(file) => *current = Some(Cursor::new(file)),
                None => return Ok(()),
            }
        }
    }

    /// Sends all complete entries from the cursor to the end of its file.
    async fn drain(&self, cursor: &mut Cursor) -> Result<(), Stop> {
        while let Some(line) = cursor.next()? {
            match decode(line) {
                Ok(entry) => self.send(entry).await?,
                Err(error) => {
                    tracing::warn!(path = %self.path.display(), %error, "damaged log entry skipped");
                }
            }
        }
        Ok(())
    }

    async fn send(&self, entry: Entry) -> Result<(), Stop> {
        let wanted = match entry.stream {
            LogStream::Stdout => self.query.stdout,
            LogStream::Stderr => self.query.stderr,
        };
        if self.query.since.is_some() || self.query.until.is_some() {
            let time = clock::parse(&entry.time).unwrap_or_default();
            if self.query.until.is_some_and(|until| time > until) {
                return Err(Stop::Done);
            }
            if self.query.since.is_some_and(|since| time < since) {
                return Ok(());
            }
        }
        if wanted {
            self.out.send(Ok(entry)).await.map_err(|_| Stop::Done)?;
        }
        Ok(())
    }
}

/// The tokio instant of a wall-clock time.
fn instant((seconds, nanos): Stamp) -> tokio::time::Instant {
    let at = u64::try_from(seconds).map_or(UNIX_EPOCH, |seconds| {
        UNIX_EPOCH.checked_add(Duration::new(seconds, nanos)).unwrap_or(UNIX_EPOCH)
    });
    let left = at.duration_since(SystemTime::now()).unwrap_or_default();
    // Ten years are as good as never, and never overflow.
    tokio::time::Instant::now() + left.min(Duration::from_secs(10 * 365 * 86_400))
}

/// A place in a growing file.
struct Cursor {
    file: File,
    offset: u64,
    buffer: Vec<u8>,
    /// Start of the unread part of `buffer`.
    start: usize,
    /// The line at hand is too long: dropped up to its end.
    skipping: bool,
}

impl Cursor {
    /// At the file's current position.
    fn new(mut file: File) -> Self {
        let offset = file.stream_position().unwrap_or_default();
        Self { file, offset, buffer: Vec::new(), start: 0, skipping: false }
    }

    /// The next complete line; `None` at the (present) end.
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let mut scanned = self.start;
        loop {
            if let Some(newline) = self.buffer[scanned..].iter().position(|byte| *byte == b'\n') {
                let line = self.start..scanned + newline;
                self.start = line.end + 1;
                if !std::mem::take(&mut self.skipping) {
                    return Ok(Some(&self.buffer[line]));
                }
                scanned = self.start;
                continue;
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            if self.buffer.len() > MAX_ENTRY {
                self.buffer.clear();
                self.skipping = true;
            }
            scanned = self.buffer.len();
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    fn fill(&mut self) -> io::Result<bool> {
        // A log of one file is truncated when it is full: begin again.
        if self.file.metadata()?.len() < self.offset {
            self.file.rewind()?;
            self.offset = 0;
            self.buffer.clear();
            self.skipping = false;
        }
        let read = (&self.file).take(BLOCK as u64).read_to_end(&mut self.buffer)?;
        self.offset += read as u64;
        Ok(read > 0)
    }
}

/// Drops files and moves positions so that the last `tail` complete entries are left.
fn skip_to_tail(files: &mut VecDeque<File>, tail: usize) -> io::Result<()> {
    let mut wanted = tail;
    let mut keep = 0;
    for (back, file) in files.iter_mut().rev().enumerate() {
        keep = back + 1;
        let (position, found) = position_of_last(file, wanted)?;
        file.seek(SeekFrom::Start(position))?;
        wanted -= found;
        if wanted == 0 {
            break;
        }
    }
    files.drain(..files.len() - keep);
    Ok(())
}

/// Where the last `wanted` complete lines begin, and how many there are (at most `wanted`).
fn position_of_last(file: &mut File, wanted: usize) -> io::Result<(u64, usize)> {
    let mut end = file.metadata()?.len();
    let mut newlines = 0_usize;
    let mut last = None;
    let mut block = vec![0; BLOCK];
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let block = &mut block[..usize::try_from(end - start).unwrap_or(BLOCK)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(block)?;
        for (index, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = start + index as u64 + 1;
            last.get_or_insert(after);
            if newlines == wanted {
                return Ok((after, wanted));
            }
            newlines += 1;
        }
        end = start;
    }
    Ok((0, newlines))
}
