//! At the daemon's start: the store and the VMs that live are made to agree.
//!
//! What a daemon that was killed leaves, and what becomes of it:
//!
//! | killed while | is left | the next daemon |
//! |---|---|---|
//! | creating | a folder no record names, with a disk in it | removes it |
//! | booting, preparing the root | a runner without a process | ends it: the container never ran |
//! | starting, the process runs, the record does not say so | a runner with a process | adopts it: what ran is not undone |
//! | the same, and the process has ended | an exit record of an unknown start | records that run and its exit |
//! | running | a runner with a process | adopts it |
//! | an exit was not recorded | the runner's exit record | records it, then removes what `--rm` asked for |
//! | pausing, unpausing, updating | a guest ahead of the record | makes the guest what the record says |
//! | removing | status *removing* | removes the rest |
//! | copying files of a stopped container | a runner without a process | ends it |
//! | (an older database was put back) | a folder no record names, of a container that had a VM | puts it aside |

use std::{sync::Arc, time::Duration};

use proto::{
    runner::{GetStatusRequest, GetStatusResponse, Stage},
    sandbox::{PauseRequest, ResumeRequest, UpdateResourcesRequest},
};
use runner::{ExitRecord, Handle};
use tokio::{sync::watch, time::Instant};
use tokio_util::task::TaskTracker;

use super::{
    Engine,
    container::{Container, Run},
    leftovers::remove_free,
    prepare,
    record::{Status, short},
    remove::Removal,
    vm,
};
use crate::error::{Error, Result};

/// A runner that says within this time what it is doing is settled at once.
const ANSWER: Duration = Duration::from_secs(3);
/// A runner whose container should not run is asked so often before it is killed. One whose container runs is adopted first,
/// and its monitor has the same patience.
const TRIES: u32 = 10;
/// A request waits so long for its container to be settled: longer than the tries take.
const SETTLED: Duration = Duration::from_secs(45);
/// Pause before looking again whether a runner that does not die is gone.
const GONE: Duration = Duration::from_millis(200);

/// A run of a container that its record does not know.
struct Unknown {
    started_at: String,
    pid: u32,
}

/// What lives in a container's run folder.
enum Found {
    /// Nothing.
    Nobody,
    /// A runner, and what it does.
    Runner(Handle, Box<GetStatusResponse>),
    /// A runner that does not answer: it hangs, or the host is starved.
    Silent(Handle),
}

/// Requests need not wait any more, whatever became of the settling.
struct Settled<'a>(&'a Container);

impl Drop for Settled<'_> {
    fn drop(&mut self) {
        self.0.settled.send_replace(true);
    }
}

impl Engine {
    /// Settles all containers at once, and clears away what is none's, until `deadline`; what takes longer goes on behind the API,
    /// and requests for that container wait. Errors go to the log: one container must not keep the others from being served.
    pub(crate) async fn reconcile(self: &Arc<Self>, deadline: Instant) {
        let settling = TaskTracker::new();
        settling.spawn(self.clone().clear_leftovers(self.leftovers()));
        for container in self.all() {
            container.settled.send_replace(false);
            container.seen.send_modify(|seen| {
                seen.running = container.status().is_running();
                seen.busy = true;
            });
            let engine = self.clone();
            settling.spawn(async move { engine.settle(&container).await });
        }
        settling.close();
        if tokio::time::timeout_at(deadline, settling.wait()).await.is_err() {
            tracing::warn!(left = settling.len(), "some containers are still being settled");
        }
    }

    /// Waits until it is known whether a container's VM lives: before, one that runs looks as if it did not.
    ///
    /// # Errors
    /// When that takes too long.
    pub(crate) async fn settled(&self, container: &Container) -> Result<()> {
        let mut settled = container.settled.subscribe();
        let known = settled.wait_for(|settled| *settled);
        match tokio::time::timeout(SETTLED, known).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::system(format!(
                "the daemon has started and does not know yet whether container {} runs: its VM did not tell within {SETTLED:?}",
                short(&container.id)
            ))),
        }
    }

    async fn settle(self: &Arc<Self>, container: &Arc<Container>) {
        let life = container.life.lock().await;
        let settled = Settled(container);
        let found = self.patiently(container).await;
        let record = container.record();
        let state = &record.state;
        // An exit or a start with another time than the recorded one is of a run that the record does not know.
        let unknown = |started_at: &str, pid: u32| {
            let is_new =
                !state.status.is_running() && !started_at.is_empty() && started_at != state.started_at;
            is_new.then(|| Unknown { started_at: started_at.to_owned(), pid })
        };
        match found {
            Found::Silent(handle) => {
                self.readopt(container, handle).await;
                return;
            }
            Found::Runner(handle, status) if status.stage() == Stage::Running => {
                self.run_took_place(container, unknown(&status.started_at, status.main_pid)).await;
                if container.status().is_running() {
                    self.readopt(container, handle).await;
                    return;
                }
                // Being removed, or dead.
                vm::retire(&handle).await;
            }
            Found::Runner(handle, _) => {
                // Its exit is recorded by the runner before anything else happens.
                self.settle_exit(container, unknown).await;
                container.settled.send_replace(true);
                vm::retire(&handle).await;
            }
            Found::Nobody => self.settle_exit(container, unknown).await,
        }
        drop((life, settled));
        self.gone(container).await;
        container.seen.send_modify(|seen| seen.busy = false);
        self.finish_removal(container).await;
    }

    /// Waits until no runner has the disks, then removes its folder. One that SIGKILL does not end (it hangs in the kernel) has them
    /// for as long as it lives: the container stays busy.
    pub(crate) async fn gone(&self, container: &Container) {
        let run_dir = self.home.vm_run(&container.id);
        let mut told = false;
        while !remove_free(&run_dir) {
            if !std::mem::replace(&mut told, true) {
                tracing::error!(
                    id = short(&container.id),
                    "its last VM does not end: it cannot be started meanwhile"
                );
            }
            tokio::time::sleep(GONE).await;
        }
    }

    /// A container without a living process: its last exit is recorded.
    async fn settle_exit(&self, container: &Arc<Container>, unknown: impl Fn(&str, u32) -> Option<Unknown>) {
        if container.status().is_running() {
            let exit = self.missed_exit(container);
            self.ended(container, &exit).await;
            return;
        }
        let exit = match runner::read_exit(&self.home.container(&container.id)) {
            Ok(exit) => exit.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(id = short(&container.id), %error, "an exit record is ignored");
                ExitRecord::default()
            }
        };
        self.run_took_place(container, unknown(&exit.started_at, exit.pid)).await;
        if container.status().is_running() {
            self.ended(container, &exit).await;
        }
    }

    /// The record learns of a start whose daemon was killed before it could write it down.
    async fn run_took_place(&self, container: &Arc<Container>, unknown: Option<Unknown>) {
        let Some(Unknown { started_at, pid }) = unknown else { return };
        tracing::warn!(id = short(&container.id), started_at, "a start that was not recorded");
        let recorded = self.change(container, |record| {
            if record.state.status.can_become(Status::Running) {
                record.state.started(pid, started_at);
                record.manually_stopped = false;
            }
            Ok(())
        });
        match recorded.await {
            Ok(()) => container.seen.send_modify(|seen| seen.running = true),
            Err(error) => tracing::error!(id = short(&container.id), %error, "cannot record a start"),
        }
    }

    async fn readopt(self: &Arc<Self>, container: &Arc<Container>, handle: Handle) {
        let run =
            Arc::new(Run { vm: handle, ended: watch::Sender::new(false), attached: TaskTracker::new() });
        drop(container.set_run(Some(run.clone())));
        container.settled.send_replace(true);
        tracing::info!(id = short(&container.id), "adopted a running container");
        // The monitor sees an exit that happens meanwhile.
        self.monitor(container.clone(), run.clone());
        if let Err(error) = redo(container, &run).await {
            tracing::warn!(id = short(&container.id), %error, "cannot make the guest what its record says");
        }
    }

    /// What a removal that was cut, or `--rm`, still has to do.
    async fn finish_removal(self: &Arc<Self>, container: &Arc<Container>) {
        let cut = container.status() == Status::Removing;
        let unwanted = container.status() == Status::Exited && container.record().host.auto_remove;
        if (cut || unwanted)
            && let Err(error) = self.remove(container, Removal { volumes: true, ..Removal::default() }).await
        {
            tracing::warn!(id = container.id, %error, "cannot finish a removal");
        }
    }

    /// Who lives for a container. Silent is only one whose container runs; any other is killed in the end.
    async fn patiently(&self, container: &Container) -> Found {
        let mut tries = 1..TRIES;
        loop {
            match self.living(container).await {
                Found::Silent(handle) if !container.status().is_running() => {
                    if tries.next().is_none() {
                        handle.kill_because("a runner that should have nothing to do does not answer").await;
                        return Found::Nobody;
                    }
                }
                found => return found,
            }
        }
    }

    async fn living(&self, container: &Container) -> Found {
        let run_dir = self.home.vm_run(&container.id);
        let look = async {
            let Some(handle) = runner::adopt(&run_dir, &container.id).await.map_err(|e| e.to_string())?
            else {
                return Ok(Found::Nobody);
            };
            let status = handle.client().get_status(GetStatusRequest {}).await;
            let status = status.map_err(|status| status.message().to_owned())?.into_inner();
            Ok::<_, String>(Found::Runner(handle, Box::new(status)))
        };
        let error = match tokio::time::timeout(ANSWER, look).await {
            Ok(Ok(found)) => return found,
            Ok(Err(error)) => error,
            Err(_) => format!("nothing within {ANSWER:?}"),
        };
        let handle = Handle::unverified(&run_dir, &container.id);
        if !handle.is_alive() {
            return Found::Nobody;
        }
        tracing::warn!(id = short(&container.id), error, "a runner does not answer");
        Found::Silent(handle)
    }
}

/// A pause, unpause or update that was cut may have reached the guest and not the record, or nobody knows: the record holds.
async fn redo(container: &Container, run: &Run) -> Result<()> {
    let (container_id, record) = (container.id.clone(), container.record());
    let resources = Some(prepare::resources(&record.host));
    let update = UpdateResourcesRequest { container_id: container_id.clone(), resources };
    vm::call("update", vm::QUICK, run.vm.sandbox().update_resources(update)).await?;
    if record.state.status == Status::Paused {
        vm::call("pause", vm::QUICK, run.vm.sandbox().pause(PauseRequest { container_id })).await?;
    } else {
        vm::call("resume", vm::QUICK, run.vm.sandbox().resume(ResumeRequest { container_id })).await?;
    }
    Ok(())
}
