//! The log's own thread: a slow disk holds up neither attached clients nor the runner for long.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{LogStream, LogWriter};

/// Time the disk has for a piece of output. Then it counts as stuck, until it has taken one: what there is no place for is left
/// out, and the log says so.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pieces that may wait for a disk that is stuck.
const PIECES: usize = 16;

enum Job {
    /// Output; how many lines before it were left out.
    Write(LogStream, Bytes, usize, oneshot::Sender<()>),
    /// Both streams are over.
    Finish(oneshot::Sender<()>),
}

/// Hands output to the thread. It ends when this is dropped and everything is written.
#[derive(Debug)]
pub(crate) struct LogSink {
    jobs: mpsc::Sender<Job>,
    stuck: Arc<AtomicBool>,
    /// Lines left out since the last piece that was handed over.
    left_out: usize,
}

impl LogSink {
    pub(crate) fn start(log: LogWriter) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel(PIECES);
        std::thread::Builder::new().name("log".into()).spawn(move || write(log, queue))?;
        Ok(Self { jobs, stuck: Arc::new(AtomicBool::new(false)), left_out: 0 })
    }

    /// Hands over output; the answer comes once it is in the log, or the disk is stuck.
    pub(crate) fn write(
        &mut self,
        stream: LogStream,
        data: Bytes,
    ) -> impl Future<Output = ()> + Send + 'static + use<> {
        let lines = data.iter().filter(|byte| **byte == b'\n').count().max(1);
        let (done, written) = oneshot::channel();
        let handed = self.jobs.try_send(Job::Write(stream, data, self.left_out, done)).is_ok();
        // Only a stuck disk leaves pieces waiting: otherwise each is waited for.
        self.left_out = if handed { 0 } else { self.left_out + lines };
        let stuck = Arc::clone(&self.stuck);
        async move {
            if handed {
                await_disk(written, &stuck).await;
            }
        }
    }

    /// The streams are over.
    pub(crate) async fn finish(&mut self) {
        let (done, written) = oneshot::channel();
        if self.jobs.try_send(Job::Finish(done)).is_ok() {
            await_disk(written, &self.stuck).await;
        }
    }
}

/// Waits, unless the disk was stuck before.
async fn await_disk(mut written: oneshot::Receiver<()>, stuck: &AtomicBool) {
    let patience = if stuck.load(Ordering::Relaxed) { Duration::from_millis(1) } else { PATIENCE };
    let late = timeout(patience, &mut written).await.is_err();
    if late && !stuck.swap(true, Ordering::Relaxed) {
        tracing::error!(
            "the disk has not taken the container's output for {PATIENCE:?}: what it cannot take is left out"
        );
    }
    if !late && stuck.swap(false, Ordering::Relaxed) {
        tracing::info!("the disk takes the container's output again");
    }
}

fn write(mut log: LogWriter, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.blocking_recv() {
        let done = match job {
            Job::Write(stream, data, left_out, done) => {
                log.left_out(left_out, "the disk was too slow");
                log.write(stream, &data);
                done
            }
            Job::Finish(done) => {
                log.finish(LogStream::Stdout);
                log.finish(LogStream::Stderr);
                done
            }
        };
        // Nobody waits for a disk that was stuck.
        let _ = done.send(());
    }
    // A VM that was lost has said all it had to say.
    log.finish(LogStream::Stdout);
    log.finish(LogStream::Stderr);
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Read};

    use super::*;

    #[tokio::test]
    async fn an_unfinished_line_is_logged_when_nobody_finishes_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        let mut sink = LogSink::start(LogWriter::open(&path, 0, 1).unwrap()).unwrap();
        sink.write(LogStream::Stderr, Bytes::from_static(b"whole\nhalf")).await;
        drop(sink);
        let text = async {
            loop {
                let text = std::fs::read_to_string(&path).unwrap();
                if text.contains("\"half\"") {
                    return text;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(timeout(PATIENCE * 4, text).await.unwrap().contains("whole\\n"));
    }

    /// SPEC V10
    #[tokio::test]
    async fn a_stuck_disk_holds_up_nobody_for_long_and_what_is_left_out_is_told() {
        // A pipe that nobody reads stands for the disk.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        let status = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(status.success());
        let mut disk = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut sink = LogSink::start(LogWriter::open(&path, 0, 1).unwrap()).unwrap();
        let line = Bytes::from([vec![b'x'; 9_999], b"\n".to_vec()].concat());
        let begin = tokio::time::Instant::now();
        for _ in 0..200 {
            sink.write(LogStream::Stdout, line.clone()).await;
        }
        assert!(begin.elapsed() < 3 * PATIENCE, "{:?}", begin.elapsed());
        assert!(sink.left_out > 0 && sink.stuck.load(Ordering::Relaxed));
        let (tell, told) = oneshot::channel();
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let mut buffer = [0; 4096];
            while !String::from_utf8_lossy(&text).contains("later") {
                let read = disk.read(&mut buffer).unwrap();
                text.extend_from_slice(&buffer[..read]);
            }
            tell.send(text).unwrap();
        });
        while sink.left_out > 0 {
            sink.write(LogStream::Stdout, Bytes::from_static(b"again\n")).await;
        }
        sink.write(LogStream::Stdout, Bytes::from_static(b"later\n")).await;
        sink.finish().await;
        let text = String::from_utf8(told.await.unwrap()).unwrap();
        assert!(text.contains("lines of output are missing here: the disk was too slow"), "{text}");
    }
}
