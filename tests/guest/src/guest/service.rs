//! A gRPC server that keeps the contract until the container's command says otherwise.

use std::sync::{Arc, Mutex};

use proto::sandbox::*;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};
use tonic::{Request, Response, Status, Streaming};

type Answer<T> = Result<Response<T>, Status>;
type Sender<T> = tokio::sync::mpsc::Sender<Result<T, Status>>;

/// Text that should reach no terminal as it is.
fn evil(size: usize) -> String {
    "\x1b]0;owned\x07\x1b[2J\r\n\u{202e}fake log line\n".chars().cycle().take(size).collect()
}

fn ok<T>(message: T) -> Answer<T> {
    Ok(Response::new(message))
}

#[derive(Default, Clone)]
struct Service {
    /// The command of the container's first process.
    mode: Arc<Mutex<String>>,
}

pub(crate) async fn serve() {
    let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, 5555)).unwrap();
    let _ = tonic::transport::Server::builder()
        .add_service(sandbox_server::SandboxServer::new(Service::default()))
        .serve_with_incoming(listener.incoming())
        .await;
}

impl Service {
    fn mode(&self) -> String {
        self.mode.lock().unwrap().clone()
    }

    /// A stream of what `fill` sends.
    fn stream<T: Send + 'static, F: Future<Output = ()> + Send + 'static>(
        fill: impl FnOnce(Sender<T>) -> F,
    ) -> ReceiverStream<Result<T, Status>> {
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        tokio::spawn(fill(sender));
        ReceiverStream::new(receiver)
    }
}

fn output(stream: i32, offset: u64, data: impl Into<Vec<u8>>, eof: bool) -> StdioResponse {
    let chunk = OutputChunk { stream, offset, data: data.into().into(), eof };
    StdioResponse { kind: Some(stdio_response::Kind::Output(chunk)) }
}

/// The output of the first process.
fn chunks(mode: &str) -> Vec<StdioResponse> {
    match mode {
        "overlap" => vec![
            output(1, 0, "first line\n", false),
            output(1, 4, "overlapping line\n", false),
            output(1, 0, "again from the start\n", false),
        ],
        "gap" => vec![output(1, 0, "first line\n", false), output(1, 1 << 40, "far away\n", false)],
        "edge" => vec![output(1, u64::MAX, "edge\n", false), output(2, u64::MAX - 2, "edge\n", true)],
        "streams" => vec![output(0, 0, "stdin?\n", false), output(77, 0, "which?\n", true)],
        "empty" => vec![StdioResponse { kind: None }, output(1, 0, "", false), output(1, 0, "", true)],
        "after" => vec![output(1, 0, "a\n", true), output(1, 2, "after the end\n", false)],
        "large" => vec![output(1, 0, vec![b'x'; 64 << 20], false)],
        "acks" => [u64::MAX, 0, 5, u64::MAX]
            .into_iter()
            .map(|offset| StdioResponse {
                kind: Some(stdio_response::Kind::StdinAck(StdinAck { offset, closed: false })),
            })
            .collect(),
        // The end of the output is told, so that nobody waits for it.
        "exit" | "negative" | "lost" => vec![output(1, 0, "", true), output(2, 0, "", true)],
        _ => vec![output(1, 0, "running\n", false)],
    }
}

#[tonic::async_trait]
impl sandbox_server::Sandbox for Service {
    async fn get_info(&self, _: Request<GetInfoRequest>) -> Answer<GetInfoResponse> {
        ok(GetInfoResponse {
            version: evil(1000),
            kernel_release: evil(1000),
            containers: vec![evil(100); 100],
            disks: vec![evil(100); 100],
            uptime_ms: u64::MAX,
            memory_total: u64::MAX,
            cpus: u32::MAX,
            architecture: evil(1000),
        })
    }

    async fn set_time(&self, _: Request<SetTimeRequest>) -> Answer<SetTimeResponse> {
        ok(SetTimeResponse {})
    }

    async fn seed_random(&self, _: Request<SeedRandomRequest>) -> Answer<SeedRandomResponse> {
        ok(SeedRandomResponse {})
    }

    async fn prepare(&self, _: Request<PrepareRequest>) -> Answer<PrepareResponse> {
        ok(PrepareResponse {})
    }

    async fn release(&self, _: Request<ReleaseRequest>) -> Answer<ReleaseResponse> {
        ok(ReleaseResponse {})
    }

    async fn update_resources(&self, _: Request<UpdateResourcesRequest>) -> Answer<UpdateResourcesResponse> {
        ok(UpdateResourcesResponse {})
    }

    async fn create_process(&self, request: Request<CreateProcessRequest>) -> Answer<CreateProcessResponse> {
        let request = request.into_inner();
        let command = request.spec.unwrap().args.first().cloned().unwrap_or_default();
        if request.process_id == request.container_id {
            super::console(&format!("saboteur {command}\n"));
            *self.mode.lock().unwrap() = command.clone();
        }
        if command == "mute" {
            std::future::pending::<()>().await;
        }
        ok(CreateProcessResponse {})
    }

    async fn start_process(&self, _: Request<StartProcessRequest>) -> Answer<StartProcessResponse> {
        match self.mode().as_str() {
            "error" => Err(Status::failed_precondition(evil(8000))),
            "lie" => Err(proto::detail::cannot_run(-5, evil(100))),
            "hang" => loop {
                // Nobody else gets a turn.
                std::thread::sleep(std::time::Duration::from_secs(3600));
            },
            "off" => super::power_off(),
            _ => ok(StartProcessResponse { pid: u32::MAX }),
        }
    }

    async fn wait_process(&self, request: Request<WaitProcessRequest>) -> Answer<WaitProcessResponse> {
        let request = request.into_inner();
        let first = request.container_id == request.process_id;
        let end = |exit_code, seconds, nanoseconds| {
            ok(WaitProcessResponse {
                exit_code,
                oom_killed: true,
                exited_at_seconds: seconds,
                exited_at_nanoseconds: nanoseconds,
            })
        };
        match self.mode().as_str() {
            "lost" if first => Err(Status::not_found(evil(8000))),
            "exit" if first => end(70_000, i64::MAX, i32::MIN),
            "negative" if first => end(i32::MIN, i64::MIN, i32::MAX),
            "absurd" if !first => end(-1, 0, 0),
            "acks" | "empty" | "after" | "streams" if first => end(3, 0, 0),
            _ => std::future::pending().await,
        }
    }

    async fn signal_process(&self, _: Request<SignalProcessRequest>) -> Answer<SignalProcessResponse> {
        ok(SignalProcessResponse {})
    }

    async fn resize_process(&self, _: Request<ResizeProcessRequest>) -> Answer<ResizeProcessResponse> {
        ok(ResizeProcessResponse {})
    }

    async fn delete_process(&self, _: Request<DeleteProcessRequest>) -> Answer<DeleteProcessResponse> {
        ok(DeleteProcessResponse {})
    }

    type StdioStream = ReceiverStream<Result<StdioResponse, Status>>;

    async fn stdio(&self, request: Request<Streaming<StdioRequest>>) -> Answer<Self::StdioStream> {
        let mode = self.mode();
        let mut requests = request.into_inner();
        ok(Self::stream(|sender| async move {
            let open = match requests.next().await {
                Some(Ok(StdioRequest { kind: Some(stdio_request::Kind::Open(open)) })) => open,
                _ => StdioOpen::default(),
            };
            let stdin_offset = if mode == "acks" { u64::MAX } else { 0 };
            let opened = stdio_response::Kind::Opened(StdioOpened { stdin_offset });
            let _ = sender.send(Ok(StdioResponse { kind: Some(opened) })).await;
            if mode == "flood" {
                // Never reads an acknowledgement, and ends only when the host does.
                let mut offset = open.stdout_offset;
                while sender.send(Ok(output(1, offset, vec![b'\n'; 65_536], false))).await.is_ok() {
                    offset += 65_536;
                }
                return;
            }
            if open.container_id == open.process_id || mode == "absurd" {
                for chunk in chunks(&mode) {
                    let _ = sender.send(Ok(chunk)).await;
                }
            }
            if mode == "absurd" && open.container_id != open.process_id {
                for stream in [1, 2] {
                    let _ = sender.send(Ok(output(stream, u64::MAX, evil(100), true))).await;
                }
                return;
            }
            while requests.next().await.is_some() {}
            sender.closed().await;
        }))
    }

    async fn pause(&self, _: Request<PauseRequest>) -> Answer<PauseResponse> {
        ok(PauseResponse {})
    }

    async fn resume(&self, _: Request<ResumeRequest>) -> Answer<ResumeResponse> {
        ok(ResumeResponse {})
    }

    async fn stats(&self, _: Request<StatsRequest>) -> Answer<StatsResponse> {
        let all = u64::MAX;
        ok(StatsResponse {
            cpu_usage_ns: all,
            cpu_user_ns: all,
            cpu_system_ns: all,
            system_cpu_ns: 1,
            online_cpus: u32::MAX,
            memory_usage: all,
            memory_limit: 0,
            memory_peak: all,
            memory_stat: (0..1000).map(|n| (format!("{n}{}", evil(50)), all)).collect(),
            pids_current: all,
            pids_limit: all,
            block_io: vec![BlockIo { major: u32::MAX, read_bytes: all, ..BlockIo::default() }; 1000],
            network_io: vec![NetworkIo { interface: evil(100), rx_bytes: all, ..NetworkIo::default() }; 1000],
            ..StatsResponse::default()
        })
    }

    async fn top(&self, _: Request<TopRequest>) -> Answer<TopResponse> {
        let rows = vec![TopRow { columns: vec![evil(100); 3] }, TopRow { columns: Vec::new() }];
        ok(TopResponse { titles: vec![evil(20); 7], rows })
    }

    type ArchiveGetStream = ReceiverStream<Result<ArchiveGetResponse, Status>>;

    async fn archive_get(&self, request: Request<ArchiveGetRequest>) -> Answer<Self::ArchiveGetStream> {
        let path = request.into_inner().path;
        ok(Self::stream(|sender| async move {
            let stat = PathStat {
                name: format!("../../{}", evil(200)),
                size: u64::MAX,
                mode: 0o644,
                mtime_seconds: i64::MAX,
                mtime_nanoseconds: i32::MIN,
                link_target: evil(4000),
            };
            let stat = if path.contains("nostat") { None } else { Some(stat) };
            let _ = sender.send(Ok(ArchiveGetResponse { stat, data: Vec::new().into() })).await;
            // A header that promises much more than comes.
            let mut header = [0u8; 512];
            header[..14].copy_from_slice(b"../../escape\0\0");
            header[100..107].copy_from_slice(b"0000644");
            header[124..135].copy_from_slice(b"77777777777");
            header[148..156].copy_from_slice(b"        ");
            header[156] = b'0';
            let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            let _ = sender.send(Ok(ArchiveGetResponse { stat: None, data: header.to_vec().into() })).await;
            let _ = sender.send(Err(Status::internal(evil(1000)))).await;
        }))
    }

    async fn archive_put(&self, _: Request<Streaming<ArchivePutRequest>>) -> Answer<ArchivePutResponse> {
        Err(Status::data_loss(evil(4000)))
    }

    async fn archive_stat(&self, _: Request<ArchiveStatRequest>) -> Answer<ArchiveStatResponse> {
        ok(ArchiveStatResponse { stat: None })
    }

    type ChangesStream = ReceiverStream<Result<ChangesResponse, Status>>;

    async fn changes(&self, _: Request<ChangesRequest>) -> Answer<Self::ChangesStream> {
        ok(Self::stream(|sender| async move {
            // Until the host has had enough.
            let changes = vec![Change { kind: 99, path: evil(4000) }; 500];
            while sender.send(Ok(ChangesResponse { changes: changes.clone() })).await.is_ok() {}
        }))
    }

    async fn sync(&self, _: Request<SyncRequest>) -> Answer<SyncResponse> {
        ok(SyncResponse {})
    }

    async fn power_off(&self, _: Request<PowerOffRequest>) -> Answer<PowerOffResponse> {
        ok(PowerOffResponse {})
    }
}
