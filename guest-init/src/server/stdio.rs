//! One Stdio RPC: a session on a process's streams.

use std::sync::Arc;

use proto::sandbox::{StdioOpened, StdioRequest, StdioResponse, stdio_request, stdio_response::Kind};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tonic::{Code, Status, Streaming};

use super::status;
use crate::process::{
    InputError, Process,
    stdio::{Session, Stdio, Step, message},
};

/// Messages under way to HTTP/2, which has its own window.
const DEPTH: usize = 2;

/// What the RPC answers with.
pub(super) type Responses = tokio_stream::wrappers::ReceiverStream<Result<StdioResponse, Status>>;

/// Opens a session at these offsets and serves it in the background until its end.
pub(super) fn serve(
    process: &Process,
    offsets: [u64; 2],
    requests: Streaming<StdioRequest>,
) -> Result<Responses, Status> {
    let stdio = Arc::clone(&process.stdio);
    let (session, stdin_offset) =
        stdio.open(offsets).map_err(|e| status::about(Code::OutOfRange, e.to_string(), ""))?;
    let (sender, receiver) = mpsc::channel(DEPTH);
    let number = session.number();
    tokio::spawn(async move {
        let outgoing = outgoing(&stdio, session, stdin_offset, &sender);
        let incoming = incoming(&stdio, requests);
        tokio::pin!(outgoing);
        let result = tokio::select! {
            result = &mut outgoing => result,
            // The host may have nothing more to say and still listen.
            result = incoming => match result {
                Ok(()) => outgoing.await,
                Err(status) => Err(status),
            },
            () = sender.closed() => Ok(()),
        };
        stdio.detach(number);
        if let Err(status) = result {
            let _ = sender.send(Err(status)).await;
        }
    });
    Ok(Responses::new(receiver))
}

async fn outgoing(
    stdio: &Stdio,
    mut session: Session,
    stdin_offset: u64,
    sender: &mpsc::Sender<Result<StdioResponse, Status>>,
) -> Result<(), Status> {
    let mut next = Some(message(Kind::Opened(StdioOpened { stdin_offset })));
    loop {
        if let Some(response) = next.take()
            && sender.send(Ok(response)).await.is_err()
        {
            return Ok(());
        }
        match stdio.step(&mut session) {
            Step::Send(response) => next = Some(response),
            Step::Idle => tokio::select! {
                () = stdio.changed() => {}
                () = sender.closed() => return Ok(()),
            },
            Step::Done => return Ok(()),
            Step::TakenOver => return Err(Status::aborted("a newer Stdio stream took over")),
        }
    }
}

async fn incoming(stdio: &Stdio, mut requests: Streaming<StdioRequest>) -> Result<(), Status> {
    while let Some(request) = requests.next().await {
        match request?.kind {
            Some(stdio_request::Kind::Ack(ack)) => stdio.acknowledge([ack.stdout_offset, ack.stderr_offset]),
            Some(stdio_request::Kind::Stdin(chunk)) => {
                stdio.push_input(chunk.offset, chunk.data, chunk.eof).map_err(|error| {
                    let code = match error {
                        InputError::Gap { .. } => Code::OutOfRange,
                        InputError::Overflow => Code::ResourceExhausted,
                    };
                    status::about(code, error.to_string(), "")
                })?;
            }
            Some(stdio_request::Kind::Open(_)) => {
                return Err(Status::invalid_argument("open is the first message only"));
            }
            None => {}
        }
    }
    Ok(())
}
