//! The monitor of a running container: its exit, durable before anybody is told.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use proto::runner::WaitExitRequest;
use runner::ExitRecord;

use super::{
    Engine, clock,
    container::{Container, Run},
    record::{Record, State, Status},
    remove::Removal,
    start::run_seconds,
    vm,
};

/// A wait for an exit is asked anew after this time. A runner that hangs is noticed earlier, by [`vm::watch`].
const WAIT: Duration = Duration::from_secs(300);
/// Pause before asking a runner again that lives but did not answer.
const RETRY: Duration = Duration::from_millis(100);
/// Attached clients may take this long to read the last output before the VM goes.
const DRAIN: Duration = Duration::from_secs(30);
/// Why a container ended whose runner left nothing.
const UNKNOWN: &str =
    "the container's VM was lost: its runner ended without an exit record (was it killed? see runner.log)";
/// Exit code when nobody could see the true one: as of a kill.
const LOST: i32 = 137;

impl Engine {
    /// Watches a run until its end, then records it, tells everybody, ends the VM and removes what `--rm` asked for.
    pub(crate) fn monitor(self: &Arc<Self>, container: Arc<Container>, run: Arc<Run>) {
        let engine = self.clone();
        vm::watch(&run.vm);
        tokio::spawn(async move {
            let exit = tokio::select! {
                exit = engine.exit_of(&container, &run) => exit,
                () = engine.stopping.cancelled() => return,
            };
            engine.ended(&container, &exit).await;
            let _ = run.ended.send(true);
            run.attached.close();
            if tokio::time::timeout(DRAIN, run.attached.wait()).await.is_err() {
                tracing::warn!(id = container.id, "attached clients did not read the last output");
            }
            vm::retire(&run.vm).await;
            container.seen.send_modify(|seen| seen.busy = false);
            engine.auto_remove(&container).await;
        });
    }

    async fn exit_of(&self, container: &Container, run: &Run) -> ExitRecord {
        loop {
            let answer = tokio::time::timeout(WAIT, run.vm.client().wait_exit(WaitExitRequest {})).await;
            match answer {
                Ok(Ok(exit)) => return exit.into_inner().into(),
                Ok(Err(status)) => tracing::debug!(id = container.id, %status, "wait for the exit was cut"),
                Err(_) => {}
            }
            if !run.vm.is_alive() {
                let mut exit = self.missed_exit(container);
                if exit.error == UNKNOWN
                    && let Some(why) = run.vm.killed()
                {
                    exit.error = format!("the container's VM was killed: {why}");
                }
                return exit;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// The exit that a runner wrote and nobody heard of.
    pub(crate) fn missed_exit(&self, container: &Container) -> ExitRecord {
        match runner::read_exit(&self.home.container(&container.id)) {
            Ok(Some(exit)) => return exit,
            Ok(None) => {}
            Err(error) => tracing::error!(id = container.id, %error, "cannot read an exit record"),
        }
        ExitRecord {
            exit_code: LOST,
            oom_killed: false,
            started_at: container.record().state.started_at.clone(),
            finished_at: clock::now(),
            error: UNKNOWN.into(),
            pid: 0,
        }
    }

    /// Records an exit and tells everybody.
    pub(crate) async fn ended(&self, container: &Arc<Container>, exit: &ExitRecord) {
        drop(container.set_run(None));
        let recorded = self.change(container, |record| {
            let state = &mut record.state;
            debug_assert!(state.status.can_become(Status::Exited), "{:?}", state.status);
            note(state, exit);
            Ok(())
        });
        if let Err(error) = recorded.await {
            // The runner's exit.json still has it: the next daemon reads it from there. In memory it is true at once, and the
            // next change stores it.
            tracing::error!(id = container.id, %error, "cannot record an exit");
            let _writing = container.writing.lock().await;
            let mut record = Record::clone(&container.record());
            note(&mut record.state, exit);
            *container.record.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(record);
        }
        container.execs().clear();
        if exit.oom_killed {
            self.events.publish(container.event("oom"));
        }
        let seconds = run_seconds(&container.record().state.started_at, &exit.finished_at);
        self.events.publish(
            container
                .event("die")
                .with("exitCode", exit.exit_code.to_string())
                .with("execDuration", seconds.to_string()),
        );
        container.seen.send_modify(|seen| {
            seen.exits += 1;
            seen.exit_code = exit.exit_code;
            seen.error.clone_from(&exit.error);
            seen.running = false;
        });
    }

    /// `--rm`, unless a restart is under way.
    pub(crate) async fn auto_remove(self: &Arc<Self>, container: &Arc<Container>) {
        if !container.record().host.auto_remove || container.restarting.load(Ordering::Acquire) {
            return;
        }
        let removal = Removal { volumes: true, ..Removal::default() };
        if let Err(error) = self.remove(container, removal).await {
            // Somebody else's `rm` may have come first.
            tracing::debug!(id = container.id, %error, "automatic removal");
        }
    }
}

/// What an exit makes of a container's state.
fn note(state: &mut State, exit: &ExitRecord) {
    state.status = Status::Exited;
    state.pid = 0;
    state.exit_code = exit.exit_code;
    state.oom_killed = exit.oom_killed;
    state.finished_at.clone_from(&exit.finished_at);
    state.error.clone_from(&exit.error);
}
