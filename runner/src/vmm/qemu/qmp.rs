//! QEMU's machine protocol (QMP), as far as the runner needs it: has the guest's vsock driver started?
//!
//! Why it is asked: vhost-device-vsock 0.3.0 ends its worker thread, without a word and for good, when a connection arrives
//! between the moments when QEMU tells it the guest's memory and when it tells it the queues. Dialling a booting guest every
//! 5 ms met that moment in 6 of 65 boots; so nobody dials before the driver runs.

use std::{io, path::Path, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::sleep,
};

/// QMP's socket, in the run folder.
pub(crate) const QMP_SOCKET: &str = "qmp.sock";
/// The vsock device in QEMU's object tree.
const VSOCK: &str = "/machine/peripheral/channel/virtio-backend";
/// Pause between two questions.
const POLL: Duration = Duration::from_millis(10);
/// From QEMU's last word to the worker having acted on it, on a busy host too. Costs nothing: PID 1 listens later than that.
const SETTLE: Duration = Duration::from_millis(25);
/// Longest answer accepted.
const MAX_LINE: u64 = 1 << 20;

/// Answers once the guest's vsock driver has started.
///
/// # Errors
/// When QEMU ends, or does not know the question.
pub(super) async fn vsock_started(socket: &Path) -> io::Result<()> {
    let mut qmp = Qmp::connect(socket).await?;
    loop {
        let status =
            qmp.ask(&json!({ "execute": "x-query-virtio-status", "arguments": { "path": VSOCK } })).await?;
        if status["vhost-started"] == true {
            sleep(SETTLE).await;
            return Ok(());
        }
        sleep(POLL).await;
    }
}

struct Qmp(BufReader<UnixStream>);

impl Qmp {
    async fn connect(socket: &Path) -> io::Result<Self> {
        let stream = loop {
            match UnixStream::connect(socket).await {
                Ok(stream) => break stream,
                // QEMU is just starting; its end is seen by whoever waits for the VM.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
                {
                    sleep(POLL).await;
                }
                Err(error) => return Err(error),
            }
        };
        let mut qmp = Self(BufReader::new(stream));
        qmp.line().await?;
        qmp.ask(&json!({ "execute": "qmp_capabilities" })).await?;
        Ok(qmp)
    }

    /// A command's answer; events in between are dropped.
    async fn ask(&mut self, command: &Value) -> io::Result<Value> {
        self.0.write_all(format!("{command}\n").as_bytes()).await?;
        loop {
            let mut answer = self.line().await?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                return Err(io::Error::other(error.to_string()));
            }
        }
    }

    async fn line(&mut self) -> io::Result<Value> {
        let mut line = Vec::new();
        if (&mut self.0).take(MAX_LINE).read_until(b'\n', &mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_slice(&line)?)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    const WAITING: &str = "{\"return\": {\"vhost-started\": false}}";
    const STARTED: &str = "{\"event\": \"RESUME\"}\n{\"return\": {\"vhost-started\": true}}";

    async fn answers(status: &'static [&'static str]) -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("q");
        let listener = UnixListener::bind(&path)?;
        let server = tokio::spawn(async move {
            let mut stream = BufReader::new(listener.accept().await.unwrap().0);
            stream.write_all(b"{\"QMP\": {}}\n").await.unwrap();
            for answer in [&"{\"return\": {}}"].into_iter().chain(status) {
                stream.read_until(b'\n', &mut Vec::new()).await.unwrap();
                stream.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
            }
        });
        let result = vsock_started(&path).await;
        server.await.unwrap();
        result
    }

    #[tokio::test]
    async fn waits_for_the_driver_past_events() {
        assert!(answers(&[WAITING, STARTED]).await.is_ok());
    }

    #[tokio::test]
    async fn a_refusal_and_an_end_are_errors() {
        assert!(answers(&["{\"error\": {\"class\": \"CommandNotFound\"}}"]).await.is_err());
        assert!(answers(&[WAITING]).await.is_err());
    }
}
