//! An exec's stdio, carried between the guest's numbered stream and a client.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use proto::sandbox::{
    OutputAck, StdinChunk, StdioOpen, StdioRequest, StdioResponse, Stream, stdio_request, stdio_response,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Exec, Phase};
use crate::{
    engine::{
        attach::{Input, Output, Streams},
        container::{Container, Run},
        vm,
    },
    error::{Error, Result},
};

/// Chunks on their way to a client, and requests on their way to the guest.
const CHUNKS: usize = 4;
/// Most data of one stdin chunk (the contract's limit).
const STDIN_CHUNK: usize = 64 << 10;
/// Most unacknowledged stdin (the contract's limit).
const STDIN_WINDOW: u64 = 256 << 10;
/// After the last output the exit is known within this time.
const EXIT: Duration = Duration::from_secs(20);

/// Opens the stdio of a created process. The receiver fires when its output has been carried.
pub(super) async fn open(
    run: &Run,
    container: &Container,
    exec: Arc<Exec>,
) -> Result<(Streams, oneshot::Receiver<()>)> {
    let (requests, queue) = mpsc::channel(CHUNKS);
    let request = |kind| StdioRequest { kind: Some(kind) };
    let open = StdioOpen {
        container_id: container.id.clone(),
        process_id: exec.id.clone(),
        stdout_offset: 0,
        stderr_offset: 0,
    };
    let queue = ReceiverStream::new(queue).map(request);
    let sent = requests.send(stdio_request::Kind::Open(open)).await;
    sent.map_err(|_| Error::system("the stdio queue closed"))?;
    let mut answers = vm::call("open stdio", vm::QUICK, run.vm.sandbox().stdio(queue)).await?;
    let opened = tokio::time::timeout(vm::QUICK, answers.message())
        .await
        .map_err(|_| Error::system(format!("stdio was not opened within {:?}", vm::QUICK)))?
        .map_err(|status| vm::status_error(&status))?;
    let Some(StdioResponse { kind: Some(stdio_response::Kind::Opened(opened)) }) = opened else {
        return Err(Error::system("the guest's first answer on stdio was not: opened"));
    };
    let (input, inputs) = mpsc::channel(CHUNKS);
    let (outputs, output) = mpsc::channel(CHUNKS);
    let (done, carried) = oneshot::channel();
    let carrier = Carrier {
        requests,
        answers,
        inputs,
        outputs,
        sent: opened.stdin_offset,
        acked: opened.stdin_offset,
        reading: true,
        ack: OutputAck::default(),
        rest: None,
    };
    run.attached.spawn(async move {
        let outputs = carrier.run().await;
        // The guest need not hold output any longer; the client is told the end when the exit code can be asked for.
        let _ = done.send(());
        let exited = exec.reaches(|phase| matches!(phase, Phase::Exited { .. }));
        if tokio::time::timeout(EXIT, exited).await.is_err() {
            tracing::debug!(exec = exec.id, "its streams ended before its process did");
        }
        drop(outputs);
    });
    Ok((Streams { input, output }, carried))
}

struct Carrier {
    requests: mpsc::Sender<stdio_request::Kind>,
    answers: Streaming<StdioResponse>,
    inputs: mpsc::Receiver<Input>,
    outputs: mpsc::Sender<Output>,
    /// Offset behind the last stdin byte sent.
    sent: u64,
    /// Offset up to which the process took its stdin.
    acked: u64,
    /// The client may still send, and the process reads.
    reading: bool,
    ack: OutputAck,
    /// Input that did not fit into one chunk or the window.
    rest: Option<Bytes>,
}

impl Carrier {
    /// Until the guest ends the stream or the client is gone. Returns the way to the client, still open.
    async fn run(mut self) -> mpsc::Sender<Output> {
        loop {
            let room = self.sent - self.acked < STDIN_WINDOW;
            let alive = if self.rest.is_some() && room {
                self.send_rest().await
            } else {
                tokio::select! {
                    answer = self.answers.message() => match answer {
                        Ok(Some(answer)) => self.take(answer).await,
                        Ok(None) => false,
                        Err(status) => {
                            tracing::debug!(%status, "an exec's stdio broke");
                            false
                        }
                    },
                    input = self.inputs.recv(), if self.reading && self.rest.is_none() && room => self.give(input).await,
                    () = self.outputs.closed() => false,
                }
            };
            if !alive {
                return self.outputs;
            }
        }
    }

    async fn take(&mut self, answer: StdioResponse) -> bool {
        match answer.kind {
            Some(stdio_response::Kind::Output(chunk)) => {
                let end = chunk.offset.saturating_add(chunk.data.len() as u64);
                let stderr = chunk.stream() == Stream::Stderr;
                if !chunk.data.is_empty() {
                    if self.outputs.send(Output { stderr, data: chunk.data }).await.is_err() {
                        return false;
                    }
                    let offset =
                        if stderr { &mut self.ack.stderr_offset } else { &mut self.ack.stdout_offset };
                    *offset = end;
                    // Once the guest is done it takes no more acks; what it still sends is read all the same.
                    let _ = self.requests.send(stdio_request::Kind::Ack(self.ack)).await;
                }
                true
            }
            Some(stdio_response::Kind::StdinAck(ack)) => {
                self.acked = self.acked.max(ack.offset.min(self.sent));
                if ack.closed {
                    self.reading = false;
                    self.rest = None;
                    self.inputs.close();
                }
                true
            }
            _ => true,
        }
    }

    async fn give(&mut self, input: Option<Input>) -> bool {
        match input {
            Some(Input::Data(data)) => {
                self.rest = Some(data).filter(|data| !data.is_empty());
                true
            }
            Some(Input::Eof) => {
                self.reading = false;
                let eof = StdinChunk { offset: self.sent, data: Bytes::new(), eof: true };
                let _ = self.requests.send(stdio_request::Kind::Stdin(eof)).await;
                true
            }
            // The client's sender is dropped with its receiver, or it only listens.
            None => {
                self.reading = false;
                true
            }
        }
    }

    async fn send_rest(&mut self) -> bool {
        let Some(mut data) = self.rest.take() else { return true };
        let chunk = data.split_to(data.len().min(STDIN_CHUNK));
        self.rest = Some(data).filter(|data| !data.is_empty());
        let offset = self.sent;
        self.sent += chunk.len() as u64;
        let _ = self
            .requests
            .send(stdio_request::Kind::Stdin(StdinChunk { offset, data: chunk, eof: false }))
            .await;
        true
    }
}
