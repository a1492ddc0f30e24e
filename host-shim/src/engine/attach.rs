//! Stdio of a container's main process, for clients of the API.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use proto::{
    runner::{AttachOpen, AttachRequest, attach_request},
    sandbox::Stream,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Engine,
    container::{Container, Run},
    vm,
};
use crate::error::{Error, Result};

/// Chunks on their way between a client and a runner, each way. Small: what is beyond waits in the guest.
const CHUNKS: usize = 4;

/// Which streams a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the streams are")]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// From the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Bytes for the process.
    Data(Bytes),
    /// The end of its stdin.
    Eof,
}

/// From the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// stderr rather than stdout.
    pub stderr: bool,
    /// What it wrote.
    pub data: Bytes,
}

/// Both ways. `output` ends after the last output of the process; dropping both detaches.
#[derive(Debug)]
pub struct Streams {
    /// To the process; errors once it no longer reads.
    pub input: mpsc::Sender<Input>,
    /// From the process.
    pub output: mpsc::Receiver<Output>,
}

/// An attached client: at once, or as soon as the container is started.
#[derive(Debug)]
pub enum Attachment {
    /// The container runs.
    Now(Streams),
    /// It does not yet.
    Later(oneshot::Receiver<Streams>),
}

impl Attachment {
    /// The streams; `None` when the container was removed, or its start failed.
    pub async fn streams(self) -> Option<Streams> {
        match self {
            Self::Now(streams) => Some(streams),
            Self::Later(receiver) => receiver.await.ok(),
        }
    }
}

impl Engine {
    /// Attaches to the present run, or to the next one.
    ///
    /// # Errors
    /// When the runner does not answer.
    pub async fn attach(&self, container: &Arc<Container>, wanted: Wanted) -> Result<Attachment> {
        self.settled(container).await?;
        let attachment = match container.run_or_wait(wanted) {
            Ok(run) => Attachment::Now(open(&run, wanted).await?),
            Err(receiver) => Attachment::Later(receiver),
        };
        self.events.publish(container.event("attach"));
        Ok(attachment)
    }
}

/// Opens the stdio of a run; when it returns, nothing the process writes from now on is missed.
pub(crate) async fn open(run: &Run, wanted: Wanted) -> Result<Streams> {
    let Wanted { stdin, stdout, stderr } = wanted;
    let (input, inputs) = mpsc::channel(CHUNKS);
    let (outputs, output) = mpsc::channel(CHUNKS);
    let request = |kind| AttachRequest { kind: Some(kind) };
    let first = request(attach_request::Kind::Open(AttachOpen { stdin, stdout, stderr }));
    let rest = ReceiverStream::new(inputs).map(move |input| {
        request(match input {
            Input::Data(data) => attach_request::Kind::Stdin(data),
            Input::Eof => attach_request::Kind::StdinEof(true),
        })
    });
    let requests = stream::iter([first]).chain(rest);
    let mut answers = vm::call("attach", vm::QUICK, run.vm.client().attach(requests)).await?;
    // The first answer says: subscribed.
    let subscribed = tokio::time::timeout(vm::QUICK, answers.message())
        .await
        .map_err(|_| Error::system(format!("attach: the runner did not subscribe within {:?}", vm::QUICK)))?
        .map_err(|status| vm::status_error(&status))?;
    let keep = input.clone();
    run.attached.spawn(async move {
        if subscribed.is_none() {
            return;
        }
        loop {
            let message = tokio::select! {
                message = answers.message() => message,
                () = outputs.closed() => break,
            };
            match message {
                Ok(Some(answer)) => {
                    let stderr = answer.stream() == Stream::Stderr;
                    if !answer.data.is_empty()
                        && outputs.send(Output { stderr, data: answer.data }).await.is_err()
                    {
                        break;
                    }
                }
                Ok(None) => break,
                Err(status) => {
                    tracing::debug!(%status, "an attach stream broke");
                    break;
                }
            }
        }
        // The request stream stays open until here: its end is the client's leaving.
        drop(keep);
    });
    Ok(Streams { input, output })
}
