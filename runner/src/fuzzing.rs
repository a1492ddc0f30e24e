//! What a guest, a process's output and files from before a crash feed, for fuzz targets. Not an interface.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use proto::{dial, sandbox::StdioResponse, sandbox::sandbox_client::SandboxClient};
use tokio::sync::mpsc;

use crate::{
    logs::{LogStream, LogWriter},
    stdio::{Hub, Input, Pump, Wanted},
};

/// What a guest said on a Stdio stream, into the log at `log`; how many messages were taken. Call it within a tokio runtime.
pub async fn stdio(messages: Vec<StdioResponse>, log: PathBuf) -> usize {
    let Ok(log) = LogWriter::open(&log, 64 << 10, 2) else { return 0 };
    let wanted = Wanted { stdin: true, stdout: true, stderr: true, stdin_once: true };
    // Never dialled: the messages are here.
    let guest = SandboxClient::new(dial::guest_channel(PathBuf::new(), 0));
    let (_stdin, source) = mpsc::channel::<Input>(1);
    let mut pump = Pump::new(guest, "c", wanted, Some(log), Arc::new(Hub::new()), source);
    pump.feed(messages).await
}

/// Output of a process, in the pieces given, into the log at `log` of at most two files of 64 KiB.
pub fn log_output(pieces: &[(bool, &[u8])], log: &Path) -> bool {
    let Ok(mut log) = LogWriter::open(log, 64 << 10, 2) else { return false };
    for (error, piece) in pieces {
        log.write(if *error { LogStream::Stderr } else { LogStream::Stdout }, piece);
    }
    log.finish(LogStream::Stdout);
    log.finish(LogStream::Stderr);
    true
}
