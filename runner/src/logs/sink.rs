//! The log's own thread: a slow disk holds up neither attached clients nor the runner for long.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{LogStream, LogWriter};

/// Time the disk has for a piece of output. One that has taken nothing meanwhile counts as stuck until it has taken something:
/// what there is no place for is left out, and the log says so.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pieces that may wait for a disk that is stuck.
const PIECES: usize = 16;
/// No piece has this number.
const NONE: u64 = u64::MAX;

enum Job {
    /// Output; how many lines before it were left out.
    Write(LogStream, Bytes, usize, oneshot::Sender<()>),
    /// Both streams are over; how many lines before the end were left out.
    Finish(usize, oneshot::Sender<()>),
}

/// How far the disk is.
#[derive(Debug)]
struct Progress {
    /// Jobs done.
    done: AtomicU64,
    /// The number of jobs done at which the disk was found stuck: it is, until it has done another.
    stuck_at: AtomicU64,
    /// Lines left out since the last piece that was handed over.
    left_out: AtomicUsize,
}

impl Progress {
    fn is_stuck(&self) -> bool {
        self.stuck_at.load(Ordering::Acquire) == self.done.load(Ordering::Acquire)
    }

    /// Nothing was done for [`PATIENCE`], with `done` jobs done before.
    fn stuck(&self, done: u64) {
        if self.stuck_at.swap(done, Ordering::AcqRel) != done {
            tracing::error!(
                "the disk has not taken the container's output for {PATIENCE:?}: what it cannot take is left out"
            );
        }
    }

    fn advance(&self) {
        let before = self.done.fetch_add(1, Ordering::AcqRel);
        if self.stuck_at.load(Ordering::Acquire) == before {
            tracing::info!("the disk takes the container's output again");
        }
    }
}

/// Hands output to the thread. It ends when this is dropped and everything is written.
#[derive(Debug)]
pub(crate) struct LogSink {
    jobs: mpsc::Sender<Job>,
    progress: Arc<Progress>,
}

impl LogSink {
    pub(crate) fn start(log: LogWriter) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel(PIECES);
        let progress = Arc::new(Progress {
            done: AtomicU64::new(0),
            stuck_at: AtomicU64::new(NONE),
            left_out: AtomicUsize::new(0),
        });
        let seen = Arc::clone(&progress);
        std::thread::Builder::new().name("log".into()).spawn(move || write(log, queue, &seen))?;
        Ok(Self { jobs, progress })
    }

    /// Hands over output; the answer comes once it is in the log, or the disk is stuck.
    pub(crate) fn write(
        &mut self,
        stream: LogStream,
        data: Bytes,
    ) -> impl Future<Output = ()> + Send + 'static + use<> {
        let (jobs, progress) = (self.jobs.clone(), Arc::clone(&self.progress));
        async move {
            let lines = data.iter().filter(|byte| **byte == b'\n').count().max(1);
            let handed =
                hand_over(&jobs, &progress, |left_out, done| Job::Write(stream, data, left_out, done));
            if !handed.await {
                progress.left_out.fetch_add(lines, Ordering::AcqRel);
            }
        }
    }

    /// The streams are over.
    pub(crate) async fn finish(&mut self) {
        // The thread finishes them all the same when it ends.
        let _ = hand_over(&self.jobs, &self.progress, Job::Finish).await;
    }
}

/// Gives the thread a job and waits for its end, for [`PATIENCE`] in all; not at all if the disk is stuck. False: there was no
/// place for the job.
async fn hand_over(
    jobs: &mpsc::Sender<Job>,
    progress: &Progress,
    job: impl FnOnce(usize, oneshot::Sender<()>) -> Job,
) -> bool {
    let (done, written) = oneshot::channel();
    let before = progress.done.load(Ordering::Acquire);
    let was_stuck = progress.is_stuck();
    let deadline = Instant::now() + PATIENCE;
    let place = if was_stuck {
        jobs.try_reserve().ok()
    } else {
        timeout_at(deadline, jobs.reserve()).await.ok().and_then(Result::ok)
    };
    let handed = place.is_some();
    if let Some(place) = place {
        place.send(job(progress.left_out.swap(0, Ordering::AcqRel), done));
    }
    // A slow disk that has taken something meanwhile is no stuck one: the next piece waits again.
    let late = !handed || (!was_stuck && timeout_at(deadline, written).await.is_err());
    if late && progress.done.load(Ordering::Acquire) == before {
        progress.stuck(before);
    }
    handed
}

fn write(mut log: LogWriter, mut jobs: mpsc::Receiver<Job>, progress: &Progress) {
    while let Some(job) = jobs.blocking_recv() {
        let done = match job {
            Job::Write(stream, data, left_out, done) => {
                log.left_out(left_out, "the disk was too slow");
                log.write(stream, &data);
                done
            }
            Job::Finish(left_out, done) => {
                log.left_out(left_out, "the disk was too slow");
                log.finish(LogStream::Stdout);
                log.finish(LogStream::Stderr);
                done
            }
        };
        progress.advance();
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

    use tokio::time::timeout;

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
        let left_out = |sink: &LogSink| sink.progress.left_out.load(Ordering::Acquire);
        assert!(left_out(&sink) > 0 && sink.progress.is_stuck());
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
        // Behind whatever waits, and under output that does not cease: once the disk has taken something nothing more is lost.
        while sink.progress.is_stuck() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for _ in 0..200 {
            sink.write(LogStream::Stdout, line.clone()).await;
            assert_eq!(left_out(&sink), 0);
        }
        assert!(!sink.progress.is_stuck());
        sink.write(LogStream::Stdout, Bytes::from_static(b"later\n")).await;
        sink.finish().await;
        let text = String::from_utf8(told.await.unwrap()).unwrap();
        let told = "lines of output are missing here: the disk was too slow";
        assert_eq!(text.matches(told).count(), 1);
        let whole = text.lines().filter(|entry| entry.contains("xxx")).count();
        assert!((200..).contains(&whole), "{whole}");
    }
}
