//! QEMU's monitor (QMP), for one thing only: a full disk of the host.
//!
//! A write of the guest that finds no room stops its VM: QEMU's default (`werror=enospc`), and right, since an error would make
//! the guest's file system give up and lose what it had promised to keep. The VM is set going again each second; the write is
//! repeated then, and stops it again while there is still no room.

use std::{
    io,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, de::IgnoredAny};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::unix::OwnedWriteHalf,
    time::{MissedTickBehavior, interval, timeout},
};

/// Pause between two tries to go on.
const RETRY: Duration = Duration::from_secs(1);
/// Pauses without another stop after which the VM has room again: each try lets it run for a moment.
const CALM: u32 = 2;
/// Pauses after which a QEMU that has not answered counts as one that hangs: then its VM waits for nothing, and its silence is
/// that of any other.
const UNANSWERED: u32 = 10;
/// Time one command has to be written.
const WRITE: Duration = Duration::from_secs(5);
/// Most bytes of one message; a guest that took over its QEMU could send more.
const MOST: u64 = 64 << 10;

/// What is of interest in a message (QEMU's docs/interop/qmp-spec and qapi/block-core.json).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message {
    event: String,
    data: Data,
    #[serde(rename = "return")]
    done: Option<IgnoredAny>,
    error: Option<IgnoredAny>,
}

impl Message {
    /// Whether it answers a command.
    fn is_answer(&self) -> bool {
        self.done.is_some() || self.error.is_some()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Data {
    action: String,
    nospace: bool,
}

/// Serves QEMU's monitor on a stream until QEMU ends. The flag is set while the VM waits for room on the host's disk.
pub(super) fn watch(stream: UnixStream) -> io::Result<Arc<AtomicBool>> {
    stream.set_nonblocking(true)?;
    let stream = tokio::net::UnixStream::from_std(stream)?;
    let waiting = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&waiting);
    tokio::spawn(async move {
        if let Err(error) = serve(stream, &flag).await {
            tracing::warn!(%error, "QEMU's monitor is given up: a full disk would stop the VM for good");
        }
        flag.store(false, Ordering::Release);
    });
    Ok(waiting)
}

async fn serve(stream: tokio::net::UnixStream, waiting: &AtomicBool) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    send(&mut write, b"{\"execute\":\"qmp_capabilities\"}\n").await?;
    let mut tick = interval(RETRY);
    // Pauses are counted: those in which this process did not run are none.
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut line = Vec::new();
    // Whether the VM stands still this moment, and for how many pauses it has not.
    let (mut stopped, mut calm) = (false, 0);
    // Pauses since a command that is not answered yet.
    let mut unanswered: Option<u32> = Some(0);
    loop {
        tokio::select! {
            // Keeps what it read when the clock comes first.
            length = async { (&mut read).take(MOST).read_until(b'\n', &mut line).await } => {
                if length? == 0 {
                    return Ok(());
                }
                if line.last() != Some(&b'\n') && line.len() as u64 >= MOST {
                    return Err(io::Error::other("a message without end"));
                }
                if line.last() == Some(&b'\n') {
                    // What is no message says nothing.
                    let message: Message = serde_json::from_slice(&line).unwrap_or_default();
                    if message.is_answer() {
                        unanswered = None;
                    }
                    stopped = take(&message, stopped, waiting.load(Ordering::Acquire));
                    line.clear();
                }
                if stopped {
                    calm = 0;
                    if unanswered.is_none_or(|pauses| pauses < UNANSWERED)
                        && !waiting.swap(true, Ordering::AcqRel)
                    {
                        tracing::warn!("the host's disk is full: the VM waits until there is room");
                    }
                }
            }
            _ = tick.tick() => {
                if let Some(pauses) = &mut unanswered {
                    *pauses = pauses.saturating_add(1);
                    if *pauses >= UNANSWERED && waiting.swap(false, Ordering::AcqRel) {
                        tracing::warn!("QEMU does not answer its monitor: it is not waited for as one without room");
                    }
                } else if stopped {
                    send(&mut write, b"{\"execute\":\"cont\"}\n").await?;
                    unanswered = Some(0);
                } else if waiting.load(Ordering::Acquire) {
                    calm += 1;
                    if calm >= CALM {
                        waiting.store(false, Ordering::Release);
                        tracing::info!("the VM goes on");
                    }
                }
            }
        }
    }
}

async fn send(write: &mut OwnedWriteHalf, command: &[u8]) -> io::Result<()> {
    timeout(WRITE, write.write_all(command)).await.map_err(|_| io::Error::other("QEMU does not read"))?
}

/// Whether the VM stands still for want of room after this message.
fn take(message: &Message, stopped: bool, waiting: bool) -> bool {
    match message.event.as_str() {
        "BLOCK_IO_ERROR" if message.data.nospace && message.data.action == "stop" => true,
        // The event above comes once a second at most (QEMU 10), so late.
        "STOP" if waiting => true,
        "RESUME" => false,
        _ => stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SPEC E6
    #[tokio::test(start_paused = true)]
    async fn a_vm_without_room_is_set_going_until_there_is() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let waiting = watch(ours).unwrap();
        let mut qemu = BufReader::new(tokio::net::UnixStream::from_std(theirs).unwrap());
        let mut line = String::new();
        qemu.get_mut().write_all(b"{\"QMP\":{\"capabilities\":[]}}\r\n").await.unwrap();
        qemu.read_line(&mut line).await.unwrap();
        assert!(line.contains("qmp_capabilities"));
        qemu.get_mut().write_all(b"{\"return\":{}}\r\n").await.unwrap();
        let full = b"{\"event\":\"BLOCK_IO_ERROR\",\"data\":{\"operation\":\"write\",\"action\":\"stop\",\"nospace\":true}}\r\n{\"event\":\"STOP\"}\r\n";
        for _ in 0..3 {
            qemu.get_mut().write_all(full).await.unwrap();
            line.clear();
            qemu.read_line(&mut line).await.unwrap();
            assert!(line.contains("\"cont\"") && waiting.load(Ordering::Acquire), "{line}");
            qemu.get_mut().write_all(b"{\"return\":{}}\r\n{\"event\":\"RESUME\"}\r\n").await.unwrap();
            // A moment in which it runs proves nothing.
            tokio::time::sleep(RETRY / 2).await;
            assert!(waiting.load(Ordering::Acquire));
        }
        tokio::time::sleep(RETRY * (CALM + 1)).await;
        assert!(!waiting.load(Ordering::Acquire));
        // Another error is the guest's business.
        let other = b"{\"event\":\"BLOCK_IO_ERROR\",\"data\":{\"action\":\"report\",\"nospace\":false}}\r\nnonsense\r\n";
        qemu.get_mut().write_all(other).await.unwrap();
        line.clear();
        let more = tokio::time::timeout(RETRY * 5, qemu.read_line(&mut line)).await;
        assert!(more.is_err() && !waiting.load(Ordering::Acquire), "{line}");
    }

    /// SPEC V2, E6
    #[tokio::test(start_paused = true)]
    async fn a_qemu_that_does_not_answer_is_not_taken_for_one_without_room() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let waiting = watch(ours).unwrap();
        let mut qemu = BufReader::new(tokio::net::UnixStream::from_std(theirs).unwrap());
        let full = b"{\"return\":{}}\r\n{\"event\":\"BLOCK_IO_ERROR\",\"data\":{\"action\":\"stop\",\"nospace\":true}}\r\n";
        qemu.get_mut().write_all(full).await.unwrap();
        let mut line = String::new();
        while !line.contains("\"cont\"") {
            qemu.read_line(&mut line).await.unwrap();
        }
        assert!(waiting.load(Ordering::Acquire));
        // It stops for good.
        let more = timeout(RETRY * (UNANSWERED + 5), qemu.read_line(&mut line)).await;
        assert!(more.is_err() && !waiting.load(Ordering::Acquire), "asked again, or waited for: {line}");
        // It answers after all: the disk is still full.
        qemu.get_mut().write_all(b"{\"return\":{}}\r\n").await.unwrap();
        line.clear();
        qemu.read_line(&mut line).await.unwrap();
        assert!(line.contains("\"cont\"") && waiting.load(Ordering::Acquire));
    }

    #[tokio::test]
    async fn a_message_without_end_is_not_kept() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let _waiting = watch(ours).unwrap();
        let mut qemu = tokio::net::UnixStream::from_std(theirs).unwrap();
        let flood = async { while qemu.write_all(&[b'x'; 4096]).await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(20), flood).await.unwrap();
    }
}
