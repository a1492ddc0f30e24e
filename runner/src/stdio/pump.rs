//! The pump between the guest's Stdio stream, the log and the attached clients.
//!
//! Output is acknowledged to the guest once it is in the log and in the clients' queues; at most [`HELD`] bytes wait here, so
//! a slow client in the end blocks the process, as with dockerd. A lost stream is opened again at the same offsets.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::OptionFuture;
use proto::sandbox::{
    OutputAck, OutputChunk, StdioOpen, StdioRequest, StdioResponse, Stream as StdStream,
    sandbox_client::SandboxClient, stdio_request, stdio_response,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{
    hub::Hub,
    input::{Input, Unacked},
};
use crate::{
    Error,
    logs::{LogSink, LogStream, LogWriter},
};

/// Bytes of output that may wait for slow clients here.
const HELD: usize = 1 << 20;
/// Largest piece handed to a client at once.
const PIECE: usize = 64 << 10;
/// Time a lost stream is tried to be opened again.
const REOPEN: Duration = Duration::from_secs(30);
/// Streams in a row that may end without a byte of output: more is a fault of the guest.
const MAX_FRUITLESS: u32 = 50;
/// Time one attempt may take.
const OPEN: Duration = Duration::from_secs(5);

/// Which streams the process has, and what ends its input.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// Input ends when the first client that offered some leaves.
    pub(crate) stdin_once: bool,
}

/// One stream of output.
#[derive(Debug)]
struct Side {
    /// Offset behind the last byte received.
    received: u64,
    /// Offset behind the last byte that is safe.
    safe: u64,
    /// The process closed it (or never had it).
    over: bool,
    /// Output was missing; the stream was opened again for it.
    gap: bool,
}

impl Side {
    fn new(wanted: bool) -> Self {
        Self { received: 0, safe: 0, over: !wanted, gap: false }
    }
}

/// An open Stdio stream.
struct Session {
    requests: mpsc::Sender<StdioRequest>,
    responses: Streaming<StdioResponse>,
}

/// Moves the stdio of one process.
pub(crate) struct Pump {
    guest: SandboxClient<Channel>,
    container_id: String,
    process_id: String,
    wanted: Wanted,
    log: Option<LogSink>,
    hub: Arc<Hub>,
    stdin: mpsc::Receiver<Input>,
    stdin_over: bool,
    input: Unacked,
    stdout: Side,
    stderr: Side,
    held: VecDeque<(StdStream, Bytes)>,
    held_bytes: usize,
    /// What the guest was told to be safe on the present stream.
    told: (u64, u64),
    session: Option<Session>,
}

impl Pump {
    pub(crate) fn new(
        guest: SandboxClient<Channel>,
        id: &str,
        wanted: Wanted,
        log: Option<LogWriter>,
        hub: Arc<Hub>,
        stdin: mpsc::Receiver<Input>,
    ) -> Self {
        let log = log.and_then(|log| {
            LogSink::start(log)
                .inspect_err(|error| tracing::error!(%error, "no thread for the log: nothing is logged"))
                .ok()
        });
        Self {
            guest,
            container_id: id.to_owned(),
            process_id: id.to_owned(),
            wanted,
            log,
            hub,
            stdin,
            stdin_over: false,
            input: Unacked::default(),
            stdout: Side::new(wanted.stdout),
            stderr: Side::new(wanted.stderr),
            held: VecDeque::new(),
            held_bytes: 0,
            told: (0, 0),
            session: None,
        }
    }

    /// Opens the stream (again), at the offsets reached.
    ///
    /// # Errors
    /// The guest's refusal, or a timeout.
    pub(crate) async fn open(&mut self) -> Result<(), Error> {
        self.session = None;
        let (requests, receiver) = mpsc::channel(8);
        let open = StdioOpen {
            container_id: self.container_id.clone(),
            process_id: self.process_id.clone(),
            stdout_offset: self.stdout.received,
            stderr_offset: self.stderr.received,
        };
        let first = StdioRequest { kind: Some(stdio_request::Kind::Open(open)) };
        let opening = async {
            // An empty channel has room.
            let _ = requests.send(first).await;
            self.guest.stdio(ReceiverStream::new(receiver)).await
        };
        let responses = timeout(OPEN, opening)
            .await
            .map_err(|_| Error::Timeout {
                stage: "stdio stream of the guest",
                after: OPEN,
                tail: String::new(),
            })??
            .into_inner();
        self.told = (0, 0);
        self.session = Some(Session { requests, responses });
        Ok(())
    }

    /// Runs until all output is over, in the log and with the clients.
    ///
    /// # Errors
    /// When a lost stream cannot be opened again.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let mut fruitless = 0;
        let result = loop {
            let before = (self.stdout.received, self.stderr.received);
            let Err(status) = self.exchange().await else { break Ok(()) };
            tracing::warn!(code = ?status.code(), "stdio stream lost: {}", status.message());
            // They only grow.
            fruitless =
                if (self.stdout.received, self.stderr.received) == before { fruitless + 1 } else { 0 };
            if fruitless > MAX_FRUITLESS {
                break Err(status.into());
            }
            sleep(Duration::from_millis(10) * fruitless).await;
            if let Err(error) = self.reopen().await {
                break Err(error);
            }
        };
        if let Some(log) = &mut self.log {
            log.finish().await;
        }
        result
    }

    async fn reopen(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + REOPEN;
        let mut pause = Duration::from_millis(10);
        loop {
            match self.open().await {
                Ok(()) => return Ok(()),
                Err(Error::Rpc(status)) if status.code() == Code::NotFound => return Err(Error::Rpc(status)),
                Err(error) if Instant::now() + pause >= deadline => return Err(error),
                Err(_) => sleep(pause).await,
            }
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// Serves one stream. `Ok`: all output is over. `Err`: the stream was lost.
    async fn exchange(&mut self) -> Result<(), Status> {
        let mut delivery: Option<Delivery> = None;
        let Some(Session { requests, mut responses }) = self.session.take() else {
            return Err(Status::unavailable("not open"));
        };
        // Before the answer to open it is not known from where input is expected.
        let mut opened = false;
        loop {
            if delivery.is_none() {
                if let Some((stream, data)) = self.held.pop_front() {
                    delivery = Some(self.begin_delivery(stream, data));
                } else if self.stdout.over && self.stderr.over && (self.wanted.stdout || self.wanted.stderr) {
                    self.farewell(&requests);
                    return Ok(());
                }
            }
            let safe = (self.stdout.safe, self.stderr.safe);
            let has_request = safe != self.told || (opened && self.input.has_unsent());
            tokio::select! {
                // Deliver first: what is safe is acknowledged soon.
                biased;
                done = finished(&mut delivery), if delivery.is_some() => {
                    delivery = None;
                    self.delivered(done);
                }
                permit = requests.reserve(), if has_request => {
                    let permit = permit.map_err(|_| Status::unavailable("request side closed"))?;
                    let kind = if safe == self.told {
                        self.input.next().map(stdio_request::Kind::Stdin)
                    } else {
                        self.told = safe;
                        Some(stdio_request::Kind::Ack(OutputAck { stdout_offset: safe.0, stderr_offset: safe.1 }))
                    };
                    if kind.is_some() {
                        permit.send(StdioRequest { kind });
                    }
                }
                response = responses.message(), if self.held_bytes < HELD => {
                    match response {
                        Ok(Some(response)) => opened |= self.take(response)?,
                        // OK means that the guest has no more: a stream without an end in it has none coming.
                        Ok(None) if !self.wanted.stdout && !self.wanted.stderr => return Ok(()),
                        Ok(None) => {
                            self.keep(delivery.take()).await;
                            return Err(Status::unavailable("stream ended before the output"));
                        }
                        Err(status) => {
                            self.keep(delivery.take()).await;
                            return Err(status);
                        }
                    }
                }
                input = self.stdin.recv(), if !self.stdin_over && self.input.has_room() => self.accept(input),
            }
        }
    }

    /// A stream was lost while a delivery waits: it is finished first, the order of output is kept.
    async fn keep(&mut self, delivery: Option<Delivery>) {
        if let Some(delivery) = delivery {
            let done = delivery.await;
            self.delivered(done);
        }
    }

    /// The last acknowledgement, if there is room for it: the process is over, the guest will be told to forget it.
    fn farewell(&mut self, requests: &mpsc::Sender<StdioRequest>) {
        let (stdout_offset, stderr_offset) = (self.stdout.safe, self.stderr.safe);
        let kind = Some(stdio_request::Kind::Ack(OutputAck { stdout_offset, stderr_offset }));
        let _ = requests.try_send(StdioRequest { kind });
    }

    /// Takes a message of the guest. True: it answered the opening.
    fn take(&mut self, response: StdioResponse) -> Result<bool, Status> {
        match response.kind {
            Some(stdio_response::Kind::Opened(opened)) => {
                self.input.reopened(opened.stdin_offset);
                return Ok(true);
            }
            Some(stdio_response::Kind::Output(chunk)) => self.output(chunk)?,
            Some(stdio_response::Kind::StdinAck(ack)) => self.input.ack(&ack),
            None => {}
        }
        Ok(false)
    }

    fn output(&mut self, chunk: OutputChunk) -> Result<(), Status> {
        let stream = chunk.stream();
        let side = match stream {
            StdStream::Stdout => &mut self.stdout,
            StdStream::Stderr => &mut self.stderr,
            StdStream::Stdin => return Ok(()),
        };
        let mut data = chunk.data;
        let Some(end) = chunk.offset.checked_add(data.len() as u64) else {
            return Err(Status::data_loss("output beyond all offsets"));
        };
        if chunk.offset > side.received {
            let missing = chunk.offset - side.received;
            if !std::mem::replace(&mut side.gap, true) {
                return Err(Status::data_loss(format!("{missing} bytes of output missing")));
            }
            // Asked for once more and still not there: better less output than none.
            tracing::error!(missing, at = side.received, ?stream, "the guest lost output");
            side.received = chunk.offset;
            side.safe += missing;
        }
        side.gap = false;
        // What is repeated after a reopening was received already.
        let known = usize::try_from(side.received - chunk.offset).unwrap_or(usize::MAX);
        let _ = data.split_to(known.min(data.len()));
        side.received = side.received.max(end);
        side.over |= chunk.eof;
        self.held_bytes += data.len();
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            self.held.push_back((stream, piece));
        }
        Ok(())
    }

    /// Into the log and to the clients at the same time: neither waits for the other.
    fn begin_delivery(&mut self, stream: StdStream, data: Bytes) -> Delivery {
        let logged = self.log.as_mut().map(|log| {
            let stream = if stream == StdStream::Stderr { LogStream::Stderr } else { LogStream::Stdout };
            log.write(stream, data.clone())
        });
        let hub = Arc::clone(&self.hub);
        Box::pin(async move {
            let length = data.len();
            tokio::join!(hub.deliver(stream, data), OptionFuture::from(logged));
            (stream, length)
        })
    }

    fn delivered(&mut self, (stream, length): (StdStream, usize)) {
        self.held_bytes -= length;
        match stream {
            StdStream::Stderr => self.stderr.safe += length as u64,
            _ => self.stdout.safe += length as u64,
        }
    }

    /// What [`Self::exchange`] does with messages, for a fuzz target: without a stream, which a refused message would end.
    /// Answers how many were taken.
    pub(crate) async fn feed(&mut self, messages: Vec<StdioResponse>) -> usize {
        let mut taken = 0;
        for message in messages {
            self.accept(Some(Input::Data(Bytes::from_static(b"input"))));
            while self.input.next().is_some() {}
            taken += usize::from(self.take(message).is_ok());
            while let Some((stream, data)) = self.held.pop_front() {
                let done = self.begin_delivery(stream, data).await;
                self.delivered(done);
            }
        }
        taken
    }

    fn accept(&mut self, input: Option<Input>) {
        match input {
            Some(Input::Data(data)) if self.wanted.stdin => self.input.push(data),
            Some(Input::Left) if self.wanted.stdin && self.wanted.stdin_once => self.input.close(),
            Some(_) => {}
            None => self.stdin_over = true,
        }
    }
}

/// Hands a piece to all clients; answers stream and length of what is then safe.
type Delivery = Pin<Box<dyn Future<Output = (StdStream, usize)> + Send>>;

async fn finished(delivery: &mut Option<Delivery>) -> (StdStream, usize) {
    match delivery {
        Some(delivery) => delivery.await,
        None => std::future::pending().await,
    }
}
