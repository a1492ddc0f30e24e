//! The way to a guest: hybrid vsock, the convention of Firecracker, Cloud Hypervisor and our own `vsock-device`.
//!
//! One unix socket stands for a VM. The host connects, writes `CONNECT <port>\n` and reads `OK <n>\n`; then the socket is
//! the stream. A port nobody listens on yet answers with EOF, so a caller retries until its deadline.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::{Instant, sleep, timeout_at},
};
use tonic::transport::{Channel, Endpoint, Uri};

/// Longest answer line accepted: `OK ` and a 32-bit number.
const MAX_LINE: usize = 32;
/// Pause between two tries: a boot is told within this time.
const RETRY: Duration = Duration::from_millis(5);
/// Longest wait for the answer of a guest that is up. Generous: a guest whose processor is taken is slow, not gone.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// One stream to a vsock port of the VM behind `socket`.
///
/// # Errors
/// `UnexpectedEof` when nobody listens (yet), `InvalidData` for an answer that is no `OK` line, `TimedOut`.
pub async fn connect(socket: &Path, port: u32) -> io::Result<UnixStream> {
    connect_by(socket, port, Instant::now() + HANDSHAKE).await
}

async fn connect_by(socket: &Path, port: u32, deadline: Instant) -> io::Result<UnixStream> {
    timeout_at(deadline, handshake(socket, port))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn handshake(socket: &Path, port: u32) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    // In one write: others than our device refuse a split line.
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    let mut line = Vec::with_capacity(MAX_LINE);
    // Byte by byte: the guest's first HTTP/2 frame may follow the line at once.
    loop {
        let byte = stream.read_u8().await?;
        if byte == b'\n' {
            break;
        }
        if line.len() == MAX_LINE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "hybrid vsock: answer too long"));
        }
        line.push(byte);
    }
    if line.starts_with(b"OK ") {
        Ok(stream)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "hybrid vsock: answer is not OK"))
    }
}

/// [`connect`], tried again until `deadline`. A handshake under way is not given up before: a guest that boots answers it
/// as soon as it can.
///
/// # Errors
/// The last error, once the deadline has passed.
pub async fn connect_until(socket: &Path, port: u32, deadline: Instant) -> io::Result<UnixStream> {
    loop {
        match connect_by(socket, port, deadline).await {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() + RETRY >= deadline => return Err(error),
            Err(_) => sleep(RETRY).await,
        }
    }
}

/// A gRPC channel to a port of the guest behind `socket`. Dials lazily and again after a loss; the first call on it fails
/// when the guest is not there.
///
/// # Panics
/// Never: the URI is a constant.
#[must_use]
pub fn guest_channel(socket: PathBuf, port: u32) -> Channel {
    lazy(move || {
        let socket = socket.clone();
        async move { connect(&socket, port).await }
    })
}

/// A gRPC channel over a plain unix socket (a runner's).
#[must_use]
pub fn unix_channel(socket: PathBuf) -> Channel {
    lazy(move || UnixStream::connect(socket.clone()))
}

fn lazy<F, Fut>(dial: F) -> Channel
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = io::Result<UnixStream>> + Send + 'static,
{
    // The address is never resolved: the connector ignores it.
    Endpoint::from_static("http://arca.invalid").connect_with_connector_lazy(tower::service_fn(
        move |_: Uri| {
            let stream = dial();
            async move { stream.await.map(hyper_util::rt::TokioIo::new) }
        },
    ))
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    async fn answer(reply: &'static [u8]) -> io::Result<UnixStream> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("v");
        let listener = UnixListener::bind(&path)?;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = [0; 13];
            stream.read_exact(&mut seen).await.unwrap();
            assert_eq!(&seen, b"CONNECT 5555\n");
            stream.write_all(reply).await.unwrap();
        });
        let stream = connect(&path, 5555).await;
        server.await.unwrap();
        stream
    }

    #[tokio::test]
    async fn bytes_behind_the_line_belong_to_the_stream() {
        let mut stream = answer(b"OK 1024\nhello").await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "hello");
    }

    #[tokio::test]
    async fn eof_and_garbage_are_errors() {
        assert_eq!(answer(b"").await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(answer(b"NO\n").await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(answer(&[b'x'; 99]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
