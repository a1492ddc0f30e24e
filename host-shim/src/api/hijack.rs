//! Hijacked connections: raw stdio after an HTTP upgrade, as `attach` and `exec` use them.

use std::{io, sync::Arc};

use axum::{
    body::Body,
    http::{HeaderValue, Request, StatusCode, header},
    response::Response,
};
use bytes::{BufMut, Bytes, BytesMut};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use super::{
    Version,
    connections::{Connection, Io, Session},
};
use crate::{
    engine::attach::{Input, Output, Streams},
    error::{Error, Kind, Result},
};

/// What is read from a client at once.
const READ: usize = 32 << 10;
/// `ctrl-p,ctrl-q`, unless the request names others.
const DETACH: [u8; 2] = [16, 17];

/// How a client's stdio is carried.
#[derive(Debug, Clone)]
pub struct Options {
    /// A terminal: output is raw instead of framed.
    pub tty: bool,
    /// The client's stdin goes to the process.
    pub stdin: bool,
    /// The end of the client's half is the end of the process's stdin.
    pub eof: bool,
    /// Keys that end the session; empty: none do.
    pub detach: Vec<u8>,
}

/// The taken connection of a request; take it before the body is read.
#[derive(Debug)]
pub struct Hijack {
    upgrade: Option<(OnUpgrade, Option<Session>)>,
}

impl Hijack {
    /// Takes it, if the client asks for an upgrade.
    ///
    /// # Errors
    /// 503 when too many are taken.
    pub fn take(request: &mut Request<Body>) -> Result<Self> {
        if !request.headers().contains_key(header::UPGRADE) {
            return Ok(Self { upgrade: None });
        }
        let session = match request.extensions().get::<Arc<Connection>>() {
            Some(connection) => Some(connection.session().ok_or_else(|| {
                Error::new(Kind::Unavailable, "too many clients are attached: detach some of them")
            })?),
            None => None,
        };
        Ok(Self { upgrade: Some((hyper::upgrade::on(request), session)) })
    }

    /// Answers at once and carries `streams` when they come: both ways after an upgrade, else output only, as the body of a
    /// plain answer. The first future yields the streams, or bytes to show instead of them.
    pub fn answer(
        self,
        version: Version,
        options: Options,
        streams: impl Future<Output = std::result::Result<Streams, Bytes>> + Send + 'static,
    ) -> Response {
        let media = if options.tty || !version.at_least(42) {
            "application/vnd.docker.raw-stream"
        } else {
            "application/vnd.docker.multiplexed-stream"
        };
        let media = HeaderValue::from_static(media);
        let mut response = Response::new(Body::empty());
        let Some((upgrade, session)) = self.upgrade else {
            response.headers_mut().insert(header::CONTENT_TYPE, media);
            *response.body_mut() = output_only(options.tty, streams);
            return response;
        };
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, media);
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
        tokio::spawn(async move {
            match upgrade.await {
                Ok(connection) => carry(connection, &options, streams).await,
                Err(error) => tracing::debug!(%error, "an upgrade failed"),
            }
            drop(session);
        });
        response
    }
}

/// The output as a body: for clients that did not ask for an upgrade.
fn output_only(
    tty: bool,
    streams: impl Future<Output = std::result::Result<Streams, Bytes>> + Send + 'static,
) -> Body {
    let (sender, receiver) = mpsc::channel::<Bytes>(4);
    tokio::spawn(async move {
        match streams.await {
            Ok(Streams { input, mut output }) => {
                while let Some(chunk) = output.recv().await {
                    if sender.send(frame(&chunk, tty)).await.is_err() {
                        break;
                    }
                }
                drop(input);
            }
            Err(text) => drop(sender.send(frame(&Output { stderr: false, data: text }, tty)).await),
        }
    });
    Body::from_stream(ReceiverStream::new(receiver).map(Ok::<_, std::convert::Infallible>))
}

/// One chunk as docker frames it (`stdcopy`): stream, three zeros, length, data. Raw for a terminal.
fn frame(output: &Output, tty: bool) -> Bytes {
    if tty {
        return output.data.clone();
    }
    let mut framed = BytesMut::with_capacity(8 + output.data.len());
    framed.put_slice(&[if output.stderr { 2 } else { 1 }, 0, 0, 0]);
    // Chunks come in gRPC messages, far below 4 GiB.
    framed.put_u32(u32::try_from(output.data.len()).unwrap_or(u32::MAX));
    framed.put_slice(&output.data);
    framed.freeze()
}

async fn carry(
    connection: Upgraded,
    options: &Options,
    streams: impl Future<Output = std::result::Result<Streams, Bytes>>,
) {
    let (stream, early) = match connection.downcast::<TokioIo<Io>>() {
        Ok(parts) => (parts.io.into_inner(), parts.read_buf),
        Err(_) => {
            tracing::error!("an upgraded connection is none of the server's");
            return;
        }
    };
    let client = stream.0.clone();
    client.hijacked();
    let gone = async {
        tokio::select! {
            () = client.hung_up() => {}
            () = client.is_cut() => {}
        }
    };
    let mut gone = std::pin::pin!(gone);
    let (reader, mut writer) = (stream.clone(), stream);
    let streams = tokio::select! {
        streams = streams => streams,
        // It may leave before the container is started.
        () = &mut gone => return,
    };
    match streams {
        Ok(Streams { input, output }) => {
            let session = session(reader, &mut writer, early, input, output, options);
            tokio::select! {
                () = session => {}
                () = &mut gone => tracing::debug!("an attached client left"),
            }
        }
        Err(text) => {
            let shown = frame(&Output { stderr: false, data: text }, options.tty);
            let told = tokio::select! {
                told = writer.write_all(&shown) => told,
                () = &mut gone => Ok(()),
            };
            if let Err(error) = told {
                tracing::debug!(%error, "cannot tell an attached client");
            }
        }
    }
    // Fails where the client is gone.
    let _ = writer.shutdown().await;
}

/// Both directions until the output ends, the client cannot be written to, or it pressed the detach keys.
async fn session<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    reader: R,
    writer: &mut W,
    early: Bytes,
    input: mpsc::Sender<Input>,
    mut output: mpsc::Receiver<Output>,
    options: &Options,
) {
    let forward = async {
        while let Some(chunk) = output.recv().await {
            if let Err(error) = write(writer, &chunk, options.tty).await {
                tracing::debug!(%error, "an attached client cannot be written to");
                break;
            }
        }
    };
    let backward = async {
        if take_input(reader, early, &input, options).await == Left::Detached {
            return;
        }
        // The other direction decides when it is over.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = forward => {}
        () = backward => {}
    }
}

async fn write<W: AsyncWrite + Unpin>(writer: &mut W, chunk: &Output, tty: bool) -> io::Result<()> {
    writer.write_all(&frame(chunk, tty)).await
}

#[derive(Debug, PartialEq, Eq)]
enum Left {
    /// The client's half ended.
    Ended,
    /// The user pressed the detach keys.
    Detached,
}

async fn take_input<R: AsyncRead + Unpin>(
    reader: R,
    early: Bytes,
    input: &mpsc::Sender<Input>,
    options: &Options,
) -> Left {
    let mut reader = early.chain(reader);
    let mut keys = Keys { keys: &options.detach, held: 0 };
    let mut buffer = BytesMut::with_capacity(READ);
    // Once the process no longer reads, the client's bytes are still taken, so that it does not block.
    let mut open = options.stdin;
    loop {
        buffer.reserve(READ);
        match reader.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let (data, detached) = keys.scan(buffer.split().freeze());
        if open && !data.is_empty() {
            open = input.send(Input::Data(data)).await.is_ok();
        }
        if detached {
            return Left::Detached;
        }
    }
    if open && options.eof {
        // An error: the process ended first.
        let _ = input.send(Input::Eof).await;
    }
    Left::Ended
}

/// Finds the detach keys in a stream, withholding what might be their beginning.
struct Keys<'a> {
    keys: &'a [u8],
    held: usize,
}

impl Keys<'_> {
    /// What goes on to the process, and whether the keys were complete.
    fn scan(&mut self, data: Bytes) -> (Bytes, bool) {
        if self.keys.is_empty() || (self.held == 0 && !data.contains(&self.keys[0])) {
            return (data, false);
        }
        let mut passed = BytesMut::with_capacity(data.len() + self.keys.len());
        for byte in data {
            if byte == self.keys[self.held] {
                self.held += 1;
                if self.held == self.keys.len() {
                    return (passed.freeze(), true);
                }
                continue;
            }
            passed.put_slice(&self.keys[..self.held]);
            self.held = usize::from(byte == self.keys[0]);
            if self.held == 0 {
                passed.put_u8(byte);
            }
        }
        (passed.freeze(), false)
    }
}

/// Parses `detachKeys`: `ctrl-x` with a letter or one of `@[\]^_`, or single characters, separated by commas.
///
/// # Errors
/// The sentence for a 400.
pub fn parse_keys(text: Option<&str>) -> std::result::Result<Vec<u8>, String> {
    let Some(text) = text else { return Ok(DETACH.to_vec()) };
    text.split(',')
        .map(|key| {
            let bad = || format!("Invalid detach keys ({text}) provided");
            match (key.strip_prefix("ctrl-"), key.as_bytes()) {
                (Some(letter), _) => match letter.as_bytes() {
                    [c @ (b'a'..=b'z' | b'A'..=b'Z')] => Ok(c.to_ascii_lowercase() - b'a' + 1),
                    [c @ (b'@' | b'['..=b'_')] => Ok(c - b'@'),
                    _ => Err(bad()),
                },
                (None, [one]) => Ok(*one),
                _ => Err(bad()),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;
    use crate::api::{connections::Connections, limits::Limits};

    #[test]
    fn frames_carry_stream_and_length() {
        let chunk = Output { stderr: true, data: Bytes::from_static(b"abc") };
        assert_eq!(&frame(&chunk, false)[..], b"\x02\0\0\0\0\0\0\x03abc");
        assert_eq!(&frame(&chunk, true)[..], b"abc");
    }

    #[test]
    fn detach_keys_are_found_across_reads() {
        let keys = parse_keys(None).unwrap();
        let mut scanner = Keys { keys: &keys, held: 0 };
        let scan = |scanner: &mut Keys<'_>, data: &'static [u8]| scanner.scan(Bytes::from_static(data));
        assert_eq!(scan(&mut scanner, b"ab\x10"), (Bytes::from_static(b"ab"), false));
        assert_eq!(scan(&mut scanner, b"x\x10\x10"), (Bytes::from_static(b"\x10x\x10"), false));
        assert_eq!(scan(&mut scanner, b"\x11rest"), (Bytes::new(), true));
    }

    #[test]
    fn keys_parse() {
        assert_eq!(parse_keys(Some("ctrl-a,q,ctrl-@")).unwrap(), [1, b'q', 0]);
        assert!(parse_keys(Some("ctrl-aa")).is_err());
        assert!(parse_keys(Some("xyz")).is_err());
    }

    #[tokio::test]
    async fn half_close_is_eof_and_a_closed_peer_is_gone() {
        let (client, server) = UnixStream::pair().unwrap();
        let connection = Connections::new(Limits::default()).admit(server).unwrap();
        connection.hijacked();
        let server = Io(connection.clone());
        let (input, mut inputs) = mpsc::channel(4);
        let (output, outputs) = mpsc::channel(4);
        let options = Options { tty: false, stdin: true, eof: true, detach: Vec::new() };
        let task = tokio::spawn(async move {
            let (reader, mut writer) = (server.clone(), server);
            session(reader, &mut writer, Bytes::from_static(b"early"), input, outputs, &options).await;
        });
        let (mut reader, mut writer) = client.into_split();
        writer.write_all(b"late").await.unwrap();
        writer.shutdown().await.unwrap();
        let mut seen = Vec::new();
        while let Some(Input::Data(data)) = inputs.recv().await {
            seen.extend_from_slice(&data);
        }
        assert_eq!(seen, b"earlylate");
        output.send(Output { stderr: false, data: Bytes::from_static(b"hi") }).await.unwrap();
        let mut answer = [0; 10];
        reader.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"\x01\0\0\0\0\0\0\x02hi");
        let gone = connection.hung_up();
        let early = tokio::time::timeout(std::time::Duration::from_secs(2), gone).await;
        assert!(early.is_err(), "half-closed is not gone");
        drop((reader, writer));
        connection.hung_up().await;
        drop(output);
        task.await.unwrap();
    }
}
