//! A thread that writes a log: who logs never waits for a disk.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use crate::bounded::Bounded;

/// Pieces that may wait for the disk; more are left out.
const PIECES: usize = 256;

enum Message {
    /// Bytes that were left out before, and what comes then.
    Data(u64, Vec<u8>),
    Flushed(SyncSender<()>),
}

/// A log that is written elsewhere. The thread ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Backlog {
    sender: SyncSender<Message>,
    /// Bytes left out since the last message.
    lost: Arc<AtomicU64>,
}

impl Backlog {
    /// Starts the thread.
    pub(crate) fn start(name: &str, log: Bounded) -> io::Result<Self> {
        let (sender, messages) = sync_channel(PIECES);
        let lost = Arc::new(AtomicU64::new(0));
        std::thread::Builder::new().name(name.into()).spawn(move || write(log, &messages))?;
        Ok(Self { sender, lost })
    }

    /// Appends, soon.
    pub(crate) fn push(&self, data: &[u8]) {
        let before = self.lost.swap(0, Ordering::Relaxed);
        if self.sender.try_send(Message::Data(before, data.to_vec())).is_err() {
            self.lost.fetch_add(before + data.len() as u64, Ordering::Relaxed);
        }
    }

    /// Waits until everything is written, at most so long.
    pub(crate) fn flush(&self, within: Duration) {
        let (done, wait) = sync_channel(1);
        if self.sender.try_send(Message::Flushed(done)).is_ok() {
            // A disk that hangs is not waited for.
            let _ = wait.recv_timeout(within);
        }
    }
}

/// For [`tracing_subscriber`], which writes whole lines.
impl io::Write for Backlog {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.push(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(mut log: Bounded, messages: &Receiver<Message>) {
    let mut missing = 0;
    for message in messages {
        let (before, data) = match message {
            Message::Data(before, data) => (before, data),
            Message::Flushed(done) => {
                // The one who asked may have left.
                let _ = done.send(());
                continue;
            }
        };
        missing += before;
        // Nowhere else to tell it: a disk that has room again is told what is missing.
        if missing > 0
            && log.push(format!("\n[... {missing} bytes are missing here ...]\n").as_bytes()).is_ok()
        {
            missing = 0;
        }
        if log.push(&data).is_err() {
            missing += data.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_there_after_a_flush() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        let log = Backlog::start("test", Bounded::open(&path, true).unwrap()).unwrap();
        for n in 0..100 {
            log.push(format!("{n}\n").as_bytes());
        }
        log.flush(Duration::from_secs(60));
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("98\n99\n"));
    }

    /// SPEC V10
    #[test]
    fn a_disk_that_hangs_holds_nobody_up_and_the_gap_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        let mut log = Backlog::start("test", Bounded::open(&path, true).unwrap()).unwrap();
        // Stands for the disk: the thread waits for the room of a message nobody takes.
        let (block, release) = sync_channel(0);
        log.sender.send(Message::Flushed(block)).unwrap();
        for _ in 0..2 * PIECES {
            io::Write::write_all(&mut log, b"flood\n").unwrap();
        }
        assert!(log.lost.load(Ordering::Relaxed) > 0);
        release.recv().unwrap();
        let mut text = String::new();
        // The last piece may itself find no room.
        while !text.ends_with("later\n") {
            log.push(b"later\n");
            log.flush(Duration::from_secs(60));
            text = std::fs::read_to_string(&path).unwrap();
        }
        assert!(text.starts_with("flood\n") && text.contains(" bytes are missing here"), "{text}");
    }
}
