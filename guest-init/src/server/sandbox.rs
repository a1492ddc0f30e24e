//! `arca.sandbox.v1`: the words are in sandbox.proto; here they only find their way.

use std::{sync::Arc, time::UNIX_EPOCH};

use nix::errno::Errno;
use proto::sandbox::{
    ArchiveGetRequest, ArchiveGetResponse, ArchivePutRequest, ArchivePutResponse, ArchiveStatRequest,
    ArchiveStatResponse, ChangesRequest, ChangesResponse, CreateProcessRequest, CreateProcessResponse,
    DeleteProcessRequest, DeleteProcessResponse, GetInfoRequest, GetInfoResponse, PauseRequest,
    PauseResponse, PowerOffRequest, PowerOffResponse, PrepareRequest, PrepareResponse, ReleaseRequest,
    ReleaseResponse, ResizeProcessRequest, ResizeProcessResponse, ResumeRequest, ResumeResponse,
    SeedRandomRequest, SeedRandomResponse, SetTimeRequest, SetTimeResponse, SignalProcessRequest,
    SignalProcessResponse, StartProcessRequest, StartProcessResponse, StatsRequest, StatsResponse,
    StdioRequest, SyncRequest, SyncResponse, TopRequest, TopResponse, UpdateResourcesRequest,
    UpdateResourcesResponse, WaitProcessRequest, WaitProcessResponse, sandbox_server, stdio_request,
};
use tokio::sync::Notify;
use tokio_stream::StreamExt;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{files, status, stdio};
use crate::{
    boot::kernel,
    container::{Container, cgroup::Cgroup, disks, registry::Registry},
    metrics,
    process::Process,
    sys::random,
};

/// The service.
pub(super) struct Sandbox {
    registry: Arc<Registry>,
    power: Arc<Notify>,
}

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(message: T) -> Answer<T> {
    Ok(Response::new(message))
}

/// Work that goes on when the host's connection is lost: a half-made container would be neither here nor there.
async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(Status::internal(error.to_string())))
}

/// Work that blocks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    finish(async {
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(Status::internal(e.to_string())))
    })
    .await
}

impl Sandbox {
    /// `power` is notified when the VM is to end.
    pub(super) fn new(registry: Arc<Registry>, power: Arc<Notify>) -> Self {
        Self { registry, power }
    }

    fn container(&self, id: &str) -> Result<Arc<Container>, Status> {
        self.registry.get(id).ok_or_else(|| status::unknown("container", id))
    }

    fn process(&self, container: &str, id: &str) -> Result<Arc<Process>, Status> {
        self.container(container)?.process(id).ok_or_else(|| status::unknown("process", id))
    }

    /// Does something with a container's cgroup.
    async fn with_cgroup(
        &self,
        id: &str,
        work: impl FnOnce(&Cgroup) -> Result<(), Status> + Send + 'static,
    ) -> Result<(), Status> {
        let container = self.container(id)?;
        blocking(move || match &container.cgroup {
            Some(cgroup) => work(cgroup),
            None => Err(Status::failed_precondition("the container was prepared for its files only")),
        })
        .await
    }
}

#[tonic::async_trait]
impl sandbox_server::Sandbox for Sandbox {
    async fn get_info(&self, _: Request<GetInfoRequest>) -> Answer<GetInfoResponse> {
        let uname = rustix::system::uname();
        answer(GetInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel_release: uname.release().to_string_lossy().into_owned(),
            containers: self.registry.ids(),
            disks: disks::list().into_iter().map(|(serial, _)| serial).collect(),
            uptime_ms: kernel::uptime_ms(),
            memory_total: kernel::memory_total(),
            cpus: kernel::cpus(),
            architecture: uname.machine().to_string_lossy().into_owned(),
        })
    }

    async fn set_time(&self, request: Request<SetTimeRequest>) -> Answer<SetTimeResponse> {
        let request = request.into_inner();
        let time = nix::sys::time::TimeSpec::new(request.seconds, i64::from(request.nanoseconds));
        nix::time::clock_settime(nix::time::ClockId::CLOCK_REALTIME, time)
            .map_err(|e| Status::invalid_argument(format!("set time: {e}")))?;
        answer(SetTimeResponse {})
    }

    async fn seed_random(&self, request: Request<SeedRandomRequest>) -> Answer<SeedRandomResponse> {
        random::seed(&request.into_inner().seed).map_err(|e| {
            Status::invalid_argument(format!("seed random (at most {} bytes): {e}", random::MAX_SEED))
        })?;
        answer(SeedRandomResponse {})
    }

    async fn prepare(&self, request: Request<PrepareRequest>) -> Answer<PrepareResponse> {
        let registry = Arc::clone(&self.registry);
        let request = request.into_inner();
        finish(async move { registry.prepare(request).await.map_err(|e| status::prepare(&e)) }).await?;
        answer(PrepareResponse {})
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Answer<ReleaseResponse> {
        let registry = Arc::clone(&self.registry);
        let id = request.into_inner().container_id;
        finish(async move {
            registry.release(&id).await;
            Ok(())
        })
        .await?;
        answer(ReleaseResponse {})
    }

    async fn update_resources(
        &self,
        request: Request<UpdateResourcesRequest>,
    ) -> Answer<UpdateResourcesResponse> {
        let request = request.into_inner();
        let resources = request.resources.unwrap_or_default();
        let work = move |cgroup: &Cgroup| cgroup.apply(&resources).map_err(|e| status::cgroup(&e));
        self.with_cgroup(&request.container_id, work).await?;
        answer(UpdateResourcesResponse {})
    }

    async fn create_process(&self, request: Request<CreateProcessRequest>) -> Answer<CreateProcessResponse> {
        let request = request.into_inner();
        let spec = request.spec.ok_or_else(|| Status::invalid_argument("spec is missing"))?;
        if request.process_id.is_empty() {
            return Err(Status::invalid_argument("process_id is empty"));
        }
        let container = self.container(&request.container_id)?;
        if !container.create(&request.process_id, spec) {
            let message = format!("process {} exists already, from another request", request.process_id);
            return Err(status::about(Code::AlreadyExists, message, &request.process_id));
        }
        answer(CreateProcessResponse {})
    }

    async fn start_process(&self, request: Request<StartProcessRequest>) -> Answer<StartProcessResponse> {
        let request = request.into_inner();
        let container = self.container(&request.container_id)?;
        let process = self.process(&request.container_id, &request.process_id)?;
        let registry = Arc::clone(&self.registry);
        let pid = finish(async move {
            let _one = process.starting.lock().await;
            if let Some((pid, _)) = process.pid() {
                return Ok(pid);
            }
            let first = process.first;
            let failed = move |failure| status::launch(&failure, first);
            let shared = registry.shared(&container.request).map_err(failed)?;
            let work = {
                let process = Arc::clone(&process);
                move || container.start(&process, shared, &registry.reaper).map_err(failed)
            };
            tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(Status::internal(e.to_string())))
        })
        .await?;
        answer(StartProcessResponse { pid: pid.cast_unsigned() })
    }

    async fn wait_process(&self, request: Request<WaitProcessRequest>) -> Answer<WaitProcessResponse> {
        let request = request.into_inner();
        let process = self.process(&request.container_id, &request.process_id)?;
        let ended = process.wait().await.ok_or_else(|| status::unknown("process", &request.process_id))?;
        let at = ended.exit.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        answer(WaitProcessResponse {
            exit_code: ended.exit.code,
            oom_killed: ended.oom_killed,
            exited_at_seconds: at.as_secs().cast_signed(),
            exited_at_nanoseconds: at.subsec_nanos().cast_signed(),
        })
    }

    async fn signal_process(&self, request: Request<SignalProcessRequest>) -> Answer<SignalProcessResponse> {
        let request = request.into_inner();
        let number = i32::try_from(request.signal)
            .ok()
            .filter(|number| (0..=libc::SIGRTMAX()).contains(number))
            .ok_or_else(|| Status::invalid_argument(format!("invalid signal: {}", request.signal)))?;
        let container = self.container(&request.container_id)?;
        if request.all {
            for pid in container.cgroup.as_ref().map(Cgroup::pids).unwrap_or_default() {
                // SAFETY: kill(2) takes two integers. A pid of the list that ended meanwhile is not reused so soon.
                unsafe { libc::kill(pid, number) };
            }
            return answer(SignalProcessResponse {});
        }
        let process = self.process(&request.container_id, &request.process_id)?;
        match process.signal(&self.registry.reaper, number) {
            Ok(()) => answer(SignalProcessResponse {}),
            Err(Errno::ESRCH) => {
                let message = format!("process {} is not running", request.process_id);
                Err(status::about(Code::FailedPrecondition, message, &request.process_id))
            }
            Err(error) => Err(Status::internal(format!("signal {number}: {error}"))),
        }
    }

    async fn resize_process(&self, request: Request<ResizeProcessRequest>) -> Answer<ResizeProcessResponse> {
        let request = request.into_inner();
        let process = self.process(&request.container_id, &request.process_id)?;
        let size = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        process
            .resize(size(request.width), size(request.height))
            .map_err(|e| Status::internal(format!("resize terminal: {e}")))?;
        answer(ResizeProcessResponse {})
    }

    async fn delete_process(&self, request: Request<DeleteProcessRequest>) -> Answer<DeleteProcessResponse> {
        let request = request.into_inner();
        let Ok(container) = self.container(&request.container_id) else {
            return answer(DeleteProcessResponse {});
        };
        let Some(process) = container.process(&request.process_id) else {
            return answer(DeleteProcessResponse {});
        };
        let registry = Arc::clone(&self.registry);
        finish(async move {
            let _one = process.starting.lock().await;
            // A pump must not wait for room that nobody will make.
            process.stdio.abandon();
            if process.pid().is_some() {
                let _ = process.signal(&registry.reaper, libc::SIGKILL);
                process.wait().await;
            }
            container.forget(&request.process_id);
            Ok(())
        })
        .await?;
        answer(DeleteProcessResponse {})
    }

    type StdioStream = stdio::Responses;

    async fn stdio(&self, request: Request<Streaming<StdioRequest>>) -> Answer<Self::StdioStream> {
        let mut requests = request.into_inner();
        let Some(StdioRequest { kind: Some(stdio_request::Kind::Open(open)) }) = requests.message().await?
        else {
            return Err(Status::invalid_argument("the first message of Stdio is open"));
        };
        let process = self.process(&open.container_id, &open.process_id)?;
        answer(stdio::serve(&process, [open.stdout_offset, open.stderr_offset], requests)?)
    }

    async fn pause(&self, request: Request<PauseRequest>) -> Answer<PauseResponse> {
        let work = |cgroup: &Cgroup| cgroup.freeze(true).map_err(|e| status::cgroup(&e));
        self.with_cgroup(&request.into_inner().container_id, work).await?;
        answer(PauseResponse {})
    }

    async fn resume(&self, request: Request<ResumeRequest>) -> Answer<ResumeResponse> {
        let work = |cgroup: &Cgroup| cgroup.freeze(false).map_err(|e| status::cgroup(&e));
        self.with_cgroup(&request.into_inner().container_id, work).await?;
        answer(ResumeResponse {})
    }

    async fn stats(&self, request: Request<StatsRequest>) -> Answer<StatsResponse> {
        let container = self.container(&request.into_inner().container_id)?;
        let stats = blocking(move || {
            let Some(cgroup) = &container.cgroup else {
                return Err(Status::failed_precondition("the container was prepared for its files only"));
            };
            Ok(metrics::stats(cgroup.path(), container.init_pid().map(i32::cast_unsigned)))
        });
        answer(stats.await?)
    }

    async fn top(&self, request: Request<TopRequest>) -> Answer<TopResponse> {
        let request = request.into_inner();
        let container = self.container(&request.container_id)?;
        let top = blocking(move || {
            let Some(cgroup) = &container.cgroup else {
                return Err(Status::failed_precondition("the container was prepared for its files only"));
            };
            metrics::top(cgroup.path(), Some(&container.root.path()), &request.args)
                .map_err(|e| Status::invalid_argument(e.to_string()))
        });
        answer(top.await?)
    }

    type ArchiveGetStream = files::Responses<ArchiveGetResponse>;

    async fn archive_get(&self, request: Request<ArchiveGetRequest>) -> Answer<Self::ArchiveGetStream> {
        let request = request.into_inner();
        answer(files::get(self.container(&request.container_id)?, request.path).await?)
    }

    async fn archive_put(
        &self,
        request: Request<Streaming<ArchivePutRequest>>,
    ) -> Answer<ArchivePutResponse> {
        let mut requests = request.into_inner();
        let Some(ArchivePutRequest { open: Some(open), data }) = requests.next().await.transpose()? else {
            return Err(Status::invalid_argument("the first message of ArchivePut has open"));
        };
        let container = self.container(&open.container_id)?;
        files::put(container, open, data, requests).await?;
        answer(ArchivePutResponse {})
    }

    async fn archive_stat(&self, request: Request<ArchiveStatRequest>) -> Answer<ArchiveStatResponse> {
        let request = request.into_inner();
        let root = self.container(&request.container_id)?.root.path();
        let stat = files::blocking(move || crate::files::stat(&root, &request.path)).await?;
        answer(ArchiveStatResponse { stat: Some(stat) })
    }

    type ChangesStream = files::Responses<ChangesResponse>;

    async fn changes(&self, request: Request<ChangesRequest>) -> Answer<Self::ChangesStream> {
        answer(files::changes(self.container(&request.into_inner().container_id)?).await?)
    }

    async fn sync(&self, _: Request<SyncRequest>) -> Answer<SyncResponse> {
        blocking(|| {
            nix::unistd::sync();
            Ok(())
        })
        .await?;
        answer(SyncResponse {})
    }

    async fn power_off(&self, _: Request<PowerOffRequest>) -> Answer<PowerOffResponse> {
        let registry = Arc::clone(&self.registry);
        finish(async move {
            for id in registry.ids() {
                registry.release(&id).await;
            }
            Ok(())
        })
        .await?;
        self.power.notify_one();
        answer(PowerOffResponse {})
    }
}
