//! A guest in this process, for tests of the pump: its Stdio keeps the contract and loses its stream now and then.

use std::{
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::Stream;
use proto::{
    dial, ports,
    sandbox::{
        self, OutputChunk, StdinAck, StdioOpened, StdioRequest, StdioResponse, Stream as StdStream,
        sandbox_client::SandboxClient,
        sandbox_server::{Sandbox, SandboxServer},
        stdio_request::Kind as Ask,
        stdio_response::Kind as Answer,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    sync::{Notify, mpsc},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Server},
};

/// Bytes the guest holds unacknowledged.
const WINDOW: u64 = 256 << 10;

/// What the fake does, and what it saw.
pub(super) struct Script {
    /// Everything the process writes to stdout, offset by offset.
    pub(super) output: Bytes,
    /// Bytes after which a stream is cut, again and again.
    pub(super) cut_after: u64,
    /// Bytes of input after which a stream is cut, once.
    pub(super) cut_input_after: usize,
    /// The process ends only once its input did.
    pub(super) until_eof: bool,
    pub(super) seen: Mutex<Seen>,
}

#[derive(Default)]
pub(super) struct Seen {
    pub(super) opens: u32,
    pub(super) acked: u64,
    /// Most bytes sent beyond the acknowledged ones.
    pub(super) ahead: u64,
    pub(super) stdin: Vec<u8>,
    pub(super) stdin_eof: bool,
}

impl Script {
    pub(super) fn new(output: Bytes) -> Self {
        Self {
            output,
            cut_after: u64::MAX,
            cut_input_after: usize::MAX,
            until_eof: false,
            seen: Mutex::default(),
        }
    }
}

/// Serves the script behind a hybrid-vsock socket in `dir`; answers a client of it.
pub(super) fn guest(dir: &Path, script: Arc<Script>) -> SandboxClient<Channel> {
    let socket: PathBuf = dir.join("vsock.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (sender, connections) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut line = [0; 13];
            stream.read_exact(&mut line).await.unwrap();
            assert_eq!(&line, b"CONNECT 5555\n");
            stream.write_all(b"OK 1024\n").await.unwrap();
            sender.send(Ok::<_, std::io::Error>(stream)).await.unwrap();
        }
    });
    let service = SandboxServer::new(Fake(script));
    tokio::spawn(
        Server::builder().add_service(service).serve_with_incoming(ReceiverStream::new(connections)),
    );
    SandboxClient::new(dial::guest_channel(socket, ports::GUEST_CONTROL))
}

struct Fake(Arc<Script>);

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Fake {
    fn stdio(&self, mut requests: Streaming<StdioRequest>) -> Responses<StdioResponse> {
        let (sender, receiver) = mpsc::channel(4);
        let script = Arc::clone(&self.0);
        tokio::spawn(async move {
            let Ok(Some(StdioRequest { kind: Some(Ask::Open(open)) })) = requests.message().await else {
                return;
            };
            let stdin_offset = {
                let mut seen = script.seen.lock().unwrap();
                seen.opens += 1;
                seen.acked = seen.acked.max(open.stdout_offset);
                seen.stdin.len() as u64
            };
            let send = async |kind| sender.send(Ok(StdioResponse { kind: Some(kind) })).await.is_ok();
            send(Answer::Opened(StdioOpened { stdin_offset })).await;
            let changed = Notify::new();
            let input = async {
                while let Ok(Some(request)) = requests.message().await {
                    let answer = {
                        let mut seen = script.seen.lock().unwrap();
                        match request.kind {
                            Some(Ask::Ack(ack)) => {
                                assert!(ack.stdout_offset <= script.output.len() as u64);
                                seen.acked = seen.acked.max(ack.stdout_offset);
                                None
                            }
                            Some(Ask::Stdin(chunk)) => {
                                assert!(chunk.data.len() <= 64 << 10);
                                assert_eq!(
                                    chunk.offset,
                                    seen.stdin.len() as u64,
                                    "input in order, nothing twice"
                                );
                                let before = seen.stdin.len();
                                seen.stdin.extend_from_slice(&chunk.data);
                                seen.stdin_eof |= chunk.eof;
                                let cut = script.cut_input_after;
                                if before < cut && seen.stdin.len() >= cut {
                                    // Taken, but its acknowledgement is lost.
                                    return Err(Status::unavailable("input cut"));
                                }
                                Some(StdinAck { offset: seen.stdin.len() as u64, closed: false })
                            }
                            _ => None,
                        }
                    };
                    if let Some(ack) = answer {
                        send(Answer::StdinAck(ack)).await;
                    }
                    changed.notify_one();
                }
                std::future::pending().await
            };
            let output = async {
                let (mut at, mut sent) = (open.stdout_offset, 0);
                while at < script.output.len() as u64 {
                    let acked = script.seen.lock().unwrap().acked;
                    let end = (acked + WINDOW).min(at + 40_000).min(script.output.len() as u64);
                    if end <= at {
                        changed.notified().await;
                        continue;
                    }
                    let data = script.output.slice(at as usize..end as usize);
                    send(Answer::Output(OutputChunk {
                        stream: StdStream::Stdout.into(),
                        offset: at,
                        data,
                        eof: false,
                    }))
                    .await;
                    sent += end - at;
                    at = end;
                    {
                        let mut seen = script.seen.lock().unwrap();
                        seen.ahead = seen.ahead.max(at - seen.acked.min(at));
                    }
                    if sent >= script.cut_after {
                        return Err(Status::unavailable("output cut"));
                    }
                }
                while script.until_eof && !script.seen.lock().unwrap().stdin_eof {
                    changed.notified().await;
                }
                for (stream, offset) in [(StdStream::Stdout, at), (StdStream::Stderr, 0)] {
                    let last = OutputChunk { stream: stream.into(), offset, data: Bytes::new(), eof: true };
                    send(Answer::Output(last)).await;
                }
                Ok(())
            };
            let result = tokio::select! {
                result = input => result,
                result = output => result,
            };
            if let Err(status) = result {
                let _ = sender.send(Err(status)).await;
            }
        });
        Box::pin(ReceiverStream::new(receiver))
    }
}

macro_rules! sandbox {
    ($($name:ident $request:ident $response:ident,)*) => {
        #[tonic::async_trait]
        impl Sandbox for Fake {
            type StdioStream = Responses<StdioResponse>;
            type ArchiveGetStream = Responses<sandbox::ArchiveGetResponse>;
            type ChangesStream = Responses<sandbox::ChangesResponse>;
            async fn stdio(
                &self,
                request: Request<Streaming<StdioRequest>>,
            ) -> Result<Response<Self::StdioStream>, Status> {
                Ok(Response::new(Fake::stdio(self, request.into_inner())))
            }
            async fn archive_get(
                &self,
                _: Request<sandbox::ArchiveGetRequest>,
            ) -> Result<Response<Self::ArchiveGetStream>, Status> {
                Err(Status::unimplemented("fake"))
            }
            async fn archive_put(
                &self,
                _: Request<Streaming<sandbox::ArchivePutRequest>>,
            ) -> Result<Response<sandbox::ArchivePutResponse>, Status> {
                Err(Status::unimplemented("fake"))
            }
            async fn changes(
                &self,
                _: Request<sandbox::ChangesRequest>,
            ) -> Result<Response<Self::ChangesStream>, Status> {
                Err(Status::unimplemented("fake"))
            }
            $(async fn $name(
                &self,
                _: Request<sandbox::$request>,
            ) -> Result<Response<sandbox::$response>, Status> {
                Err(Status::unimplemented("fake"))
            })*
        }
    };
}

sandbox! {
    get_info GetInfoRequest GetInfoResponse,
    set_time SetTimeRequest SetTimeResponse,
    seed_random SeedRandomRequest SeedRandomResponse,
    prepare PrepareRequest PrepareResponse,
    release ReleaseRequest ReleaseResponse,
    update_resources UpdateResourcesRequest UpdateResourcesResponse,
    create_process CreateProcessRequest CreateProcessResponse,
    start_process StartProcessRequest StartProcessResponse,
    wait_process WaitProcessRequest WaitProcessResponse,
    signal_process SignalProcessRequest SignalProcessResponse,
    resize_process ResizeProcessRequest ResizeProcessResponse,
    delete_process DeleteProcessRequest DeleteProcessResponse,
    pause PauseRequest PauseResponse,
    resume ResumeRequest ResumeResponse,
    stats StatsRequest StatsResponse,
    top TopRequest TopResponse,
    archive_stat ArchiveStatRequest ArchiveStatResponse,
    sync SyncRequest SyncResponse,
    power_off PowerOffRequest PowerOffResponse,
}
