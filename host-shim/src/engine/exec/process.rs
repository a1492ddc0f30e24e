//! The process of an exec: from `CreateProcess` to `DeleteProcess`.

use std::{sync::Arc, time::Duration};

use proto::sandbox::{
    CreateProcessRequest, DeleteProcessRequest, ProcessSpec, ResizeProcessRequest, StartProcessRequest,
    WaitProcessRequest,
};
use tokio::sync::oneshot;

use super::{Exec, Phase, can_exec, stdio};
use crate::{
    engine::{
        Engine,
        attach::Streams,
        container::{Container, Run},
        create::env::replace_or_append,
        prepare, vm,
    },
    error::{Error, Result},
};

/// Running a command in a guest that is busy.
const START: Duration = Duration::from_secs(60);
/// A wait for an exit is asked anew after this time.
const WAIT: Duration = Duration::from_secs(300);
/// Pause after a wait that was cut.
const RETRY: Duration = Duration::from_millis(100);
/// An ended exec can be inspected this long (as in moby).
const KEEP: Duration = Duration::from_secs(300);
/// Exit code where the guest was lost.
const LOST: i32 = 137;
/// Time a resize waits for its process to start, as in dockerd.
const READY: Duration = Duration::from_secs(10);

impl Engine {
    /// Starts an exec. Without `detach`: its stdio, opened before the process runs.
    ///
    /// # Errors
    /// 400 for a command that cannot be run (the exit code is in the exec then), 409 when it ran already or cannot now.
    pub async fn start_exec(
        self: &Arc<Self>,
        container: &Arc<Container>,
        exec: &Arc<Exec>,
        detach: bool,
        console_size: Option<[u32; 2]>,
    ) -> Result<Option<Streams>> {
        let run = can_exec(container)?;
        exec.begin()?;
        let event = container.event(format!("exec_start: {}", exec.command()));
        self.events.publish(event.with("execID", exec.id.clone()));
        match self.launch_exec(container, exec, &run, detach, console_size).await {
            Ok((streams, pid, carried)) => {
                exec.set(Phase::Running { pid });
                let (engine, container, exec) = (self.clone(), container.clone(), exec.clone());
                tokio::spawn(async move { engine.follow(&container, &exec, &run, pid, carried).await });
                Ok(streams)
            }
            Err(error) => {
                let status = error.source.as_ref().and_then(|source| source.downcast_ref::<tonic::Status>());
                let code = status.map(|status| proto::detail::of(status).exit_code).filter(|code| *code != 0);
                self.exec_ended(container, exec, 0, code.unwrap_or(126));
                forget(&run, container, exec).await;
                Err(error)
            }
        }
    }

    async fn launch_exec(
        &self,
        container: &Container,
        exec: &Arc<Exec>,
        run: &Run,
        detach: bool,
        console_size: Option<[u32; 2]>,
    ) -> Result<(Option<Streams>, u32, Option<oneshot::Receiver<()>>)> {
        let spec = spec(container, exec, detach, console_size)?;
        let (container_id, process_id) = (container.id.clone(), exec.id.clone());
        let mut guest = run.vm.sandbox();
        let create = CreateProcessRequest {
            container_id: container_id.clone(),
            process_id: process_id.clone(),
            spec: Some(spec),
        };
        vm::call("create the process", START, guest.create_process(create)).await?;
        let (streams, carried) = if detach {
            (None, None)
        } else {
            let (streams, carried) = stdio::open(run, container, exec.clone()).await?;
            (Some(streams), Some(carried))
        };
        let start = StartProcessRequest { container_id, process_id };
        let started = vm::call("start the process", START, guest.start_process(start)).await?;
        Ok((streams, started.pid, carried))
    }

    /// Waits for the exit, tells it, and frees what the guest holds once the output was carried.
    async fn follow(
        &self,
        container: &Arc<Container>,
        exec: &Arc<Exec>,
        run: &Run,
        pid: u32,
        carried: Option<oneshot::Receiver<()>>,
    ) {
        let code = exit_code(container, exec, run).await;
        self.exec_ended(container, exec, pid, code);
        if let Some(carried) = carried {
            // An error is as good as the message: the task is done.
            let _ = carried.await;
        }
        forget(run, container, exec).await;
        tokio::time::sleep(KEEP).await;
        container.execs().remove(&exec.id);
    }

    fn exec_ended(&self, container: &Container, exec: &Exec, pid: u32, code: i32) {
        exec.set(Phase::Exited { pid, code });
        let event = container.event("exec_die").with("execID", exec.id.clone());
        self.events.publish(event.with("exitCode", code.to_string()));
    }

    /// Sets the size of an exec's terminal.
    ///
    /// # Errors
    /// 409 when the container does not run, 500 when the process does not.
    pub async fn resize_exec(
        &self,
        container: &Container,
        exec: &Exec,
        width: u32,
        height: u32,
    ) -> Result<()> {
        let run = can_exec(container)?;
        // As dockerd: a client may ask before the process has started.
        let started = exec.reaches(|phase| !matches!(phase, Phase::Created | Phase::Running { pid: 0 }));
        if tokio::time::timeout(READY, started).await.is_err() {
            return Err(Error::system("timeout waiting for exec session ready"));
        }
        if !matches!(exec.phase(), Phase::Running { .. }) {
            return Err(Error::conflict(format!(
                "cannot resize a stopped container: exec {} is not running",
                exec.id
            )));
        }
        let (container_id, process_id) = (container.id.clone(), exec.id.clone());
        let request = ResizeProcessRequest { container_id, process_id, width, height };
        vm::call("resize", vm::QUICK, run.vm.sandbox().resize_process(request)).await?;
        Ok(())
    }
}

fn spec(
    container: &Container,
    exec: &Exec,
    detach: bool,
    console_size: Option<[u32; 2]>,
) -> Result<ProcessSpec> {
    let record = container.record();
    let config = &exec.config;
    let mut spec = prepare::process(&record, config.tty, config.privileged)?;
    spec.args = config.cmd.clone().unwrap_or_default();
    spec.env = prepare::environment(&record, config.tty);
    replace_or_append(&mut spec.env, config.env.iter().flatten());
    let or = |own: &String, inherited: &String| if own.is_empty() { inherited.clone() } else { own.clone() };
    spec.cwd = or(&config.working_dir, &record.config.working_dir);
    spec.user = or(&config.user, &record.config.user);
    if let Some([height, width]) = console_size.or(config.console_size) {
        (spec.console_height, spec.console_width) = (height, width);
    }
    spec.stdin = config.attach_stdin && !detach;
    spec.stdout = (config.attach_stdout || config.tty) && !detach;
    spec.stderr = config.attach_stderr && !detach && !config.tty;
    spec.discard_when_detached = true;
    Ok(spec)
}

/// The exit code, or [`LOST`] once the container does not run any more.
async fn exit_code(container: &Container, exec: &Exec, run: &Run) -> i32 {
    let mut ended = run.ended.subscribe();
    loop {
        let request = WaitProcessRequest { container_id: container.id.clone(), process_id: exec.id.clone() };
        let mut guest = run.vm.sandbox();
        let answer = tokio::select! {
            answer = tokio::time::timeout(WAIT, guest.wait_process(request)) => answer,
            _ = ended.wait_for(|ended| *ended) => return LOST,
        };
        match answer {
            Ok(Ok(exit)) => return exit.into_inner().exit_code & 0xff,
            Ok(Err(status)) if status.code() == tonic::Code::NotFound => return LOST,
            Ok(Err(status)) => {
                tracing::debug!(exec = exec.id, %status, "wait for an exec was cut");
                tokio::time::sleep(RETRY).await;
            }
            Err(_) => {}
        }
    }
}

/// Frees the process's record in the guest.
async fn forget(run: &Run, container: &Container, exec: &Exec) {
    if *run.ended.borrow() {
        return;
    }
    let request = DeleteProcessRequest { container_id: container.id.clone(), process_id: exec.id.clone() };
    if let Err(error) =
        vm::call("delete the process", vm::QUICK, run.vm.sandbox().delete_process(request)).await
    {
        tracing::debug!(exec = exec.id, %error, "cannot delete an exec in the guest");
    }
}
