//! The runner's gRPC service.

use std::{pin::Pin, sync::Arc};

use futures::Stream;
use proto::runner::{
    AttachRequest, AttachResponse, ExitRecord, GetStatusRequest, GetStatusResponse, ShutdownRequest,
    ShutdownResponse, Stage, StartContainerRequest, StartContainerResponse, WaitExitRequest,
    WaitStageRequest, attach_request, runner_server,
};
use tonic::{Request, Response, Status, Streaming};

use crate::{container, runner::Runner, state::State, stdio::Input};

/// Grace of a shutdown that names none, in milliseconds.
const DEFAULT_GRACE_MS: u32 = 10_000;

/// Serves one runner.
#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Runner>);

impl Service {
    fn answer(&self, state: State) -> GetStatusResponse {
        state.answer(&self.0.spec.vm_id, self.0.spec.accelerator.as_str())
    }
}

#[tonic::async_trait]
impl runner_server::Runner for Service {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(self.answer(self.0.machine.get())))
    }

    async fn wait_stage(
        &self,
        request: Request<WaitStageRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let state = self.0.machine.wait(request.into_inner().stage()).await?;
        Ok(Response::new(self.answer(state)))
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Result<Response<StartContainerResponse>, Status> {
        Ok(Response::new(container::start(&self.0, request.into_inner()).await?))
    }

    type AttachStream = Pin<Box<dyn Stream<Item = Result<AttachResponse, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut requests = request.into_inner();
        let Some(AttachRequest { kind: Some(attach_request::Kind::Open(open)) }) = requests.message().await?
        else {
            return Err(Status::invalid_argument("the first message of Attach is open"));
        };
        let output = self.0.hub.subscribe(open.stdout, open.stderr);
        let runner = Arc::clone(&self.0);
        tokio::spawn(async move { take_input(&runner, requests, open.stdin).await });
        Ok(Response::new(output))
    }

    async fn wait_exit(&self, _: Request<WaitExitRequest>) -> Result<Response<ExitRecord>, Status> {
        let state = self.0.machine.wait(Stage::Exited).await?;
        let record = state.exit.ok_or_else(|| Status::internal("no exit record"))?;
        Ok(Response::new(record.into()))
    }

    async fn shutdown(
        &self,
        request: Request<ShutdownRequest>,
    ) -> Result<Response<ShutdownResponse>, Status> {
        let grace = match request.into_inner().grace_ms {
            0 => DEFAULT_GRACE_MS,
            grace => grace,
        };
        self.0.request_shutdown(grace);
        let mut gone = self.0.gone.subscribe();
        gone.wait_for(|gone| *gone).await.map_err(|_| Status::unavailable("the runner ends"))?;
        Ok(Response::new(ShutdownResponse {}))
    }
}

/// Takes a client's input until it ends its half or leaves.
async fn take_input(runner: &Runner, mut requests: Streaming<AttachRequest>, stdin: bool) {
    while let Ok(Some(request)) = requests.message().await {
        let data = match request.kind {
            Some(attach_request::Kind::Stdin(data)) if stdin => data,
            Some(attach_request::Kind::StdinEof(true)) => break,
            _ => continue,
        };
        if runner.stdin.send(Input::Data(data)).await.is_err() {
            return;
        }
    }
    if stdin {
        // Nobody takes input any more: the process has ended.
        let _ = runner.stdin.send(Input::Left).await;
    }
}
