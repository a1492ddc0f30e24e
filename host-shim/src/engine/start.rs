//! `start`: boot, connect those who wait, run.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use runner::Handle;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::{
    Engine, archive, attach, clock,
    container::{Container, Run},
    prepare,
    record::Status,
    remove::Removal,
    vm,
};
use crate::error::{Error, Kind, Result};

/// Mounting the root and running the main process.
const START: Duration = Duration::from_secs(60);
/// Exit code of a container that could not be started, where nothing better is known (moby's `exitUnknown`).
const UNKNOWN: i32 = 128;

impl Engine {
    /// Starts a container.
    ///
    /// # Errors
    /// 304 when it runs, 400 for a command that cannot be run, 409 in a wrong state.
    pub async fn start_container(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let life = container.life.lock().await;
        let result = self.start_locked(container).await;
        drop(life);
        if let Err(error) = &result
            && error.kind != Kind::NotModified
            && container.record().host.auto_remove
            && !container.status().is_running()
            && !container.restarting.load(Ordering::Acquire)
        {
            let removal = Removal { force: true, ..Removal::default() };
            if let Err(error) = self.remove(container, removal).await {
                tracing::warn!(id = container.id, %error, "cannot remove a container that failed to start");
            }
        }
        result
    }

    /// With `life` held.
    pub(crate) async fn start_locked(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        match container.status() {
            Status::Running | Status::Restarting => return Err(Error::not_modified()),
            Status::Paused => {
                return Err(Error::conflict("cannot start a paused container, try unpause instead"));
            }
            Status::Removing | Status::Dead => {
                return Err(Error::conflict("container is marked for removal and cannot be started"));
            }
            Status::Created | Status::Exited => {}
        }
        // Held until the container runs or not: nobody may boot an unseen VM on its disks meanwhile.
        let mut files = container.files.lock().await;
        archive::close(&mut files).await;
        self.wait_idle(container).await?;
        let failure = match self.run(container).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        drop(files);
        // Nobody who waited for this start gets anything.
        drop(container.take_waiting());
        let exit_code = failure
            .source
            .as_ref()
            .and_then(|source| source.downcast_ref::<tonic::Status>())
            .map(|status| proto::detail::of(status).exit_code)
            .filter(|code| *code != 0)
            .unwrap_or(UNKNOWN);
        let note = failure.message.clone();
        let noted = self.change(container, |record| {
            record.state.exit_code = exit_code;
            record.state.error = note;
            Ok(())
        });
        if let Err(error) = noted.await {
            tracing::error!(id = container.id, %error, "cannot record why a container failed to start");
        }
        Err(failure)
    }

    async fn run(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let record = container.record();
        check_networks(&record)?;
        let dir = self.home.container(&record.id);
        let lowers: Vec<PathBuf> = self.images.disks(&record.image_id).await?;
        let log = prepare::log_config(&record, &self.log_path(&record.id))?;
        let request = prepare::start_request(&record, lowers.len(), log)?;
        // From here on a VM may have the disks; `busy` ends when it is gone.
        container.seen.send_modify(|seen| seen.busy = true);
        let handle = match self.boot(&record, &lowers, dir).await {
            Ok(handle) => handle,
            Err(error) => {
                container.seen.send_modify(|seen| seen.busy = false);
                return Err(error);
            }
        };
        let run =
            Arc::new(Run { vm: handle, ended: watch::Sender::new(false), attached: TaskTracker::new() });
        match self.run_in(container, &run, request).await {
            Ok(()) => Ok(()),
            Err(error) => {
                drop(container.set_run(None));
                // The answer need not wait for the power-off; the next start does.
                let (engine, container) = (self.clone(), container.clone());
                tokio::spawn(async move { engine.undo(&container, &run.vm).await });
                Err(error)
            }
        }
    }

    /// Ends the VM of a start that failed. What its runner wrote down of a process goes with it: the answer was that there is none,
    /// and a later daemon would take it for a run that was not recorded.
    pub(crate) async fn undo(&self, container: &Container, vm: &Handle) {
        vm::retire(vm).await;
        self.gone(container).await;
        if let Err(error) = runner::clear_exit(&self.home.container(&container.id)) {
            tracing::warn!(id = container.id, %error, "the exit of a start that failed cannot be forgotten");
        }
        container.seen.send_modify(|seen| seen.busy = false);
    }

    async fn run_in(
        self: &Arc<Self>,
        container: &Arc<Container>,
        run: &Arc<Run>,
        request: proto::runner::StartContainerRequest,
    ) -> Result<()> {
        connect(run, container.take_waiting()).await;
        let started =
            vm::call("start the main process", START, run.vm.client().start_container(request)).await?;
        self.change(container, |record| {
            record.state.started(started.pid, started.started_at.clone());
            record.manually_stopped = false;
            Ok(())
        })
        .await?;
        let late = container.set_run(Some(run.clone()));
        container.seen.send_modify(|seen| {
            seen.running = true;
            seen.error.clear();
        });
        self.events.publish(container.event("start"));
        self.monitor(container.clone(), run.clone());
        connect(run, late).await;
        Ok(())
    }

    /// Waits until no VM of an earlier run has the disks any more.
    pub(crate) async fn wait_idle(&self, container: &Container) -> Result<()> {
        let mut seen = container.seen.subscribe();
        let idle = seen.wait_for(|seen| !seen.busy);
        match tokio::time::timeout(START, idle).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::system(format!("the VM of the last run did not end within {START:?}"))),
        }
    }

    /// The log of a container.
    pub(crate) fn log_path(&self, id: &str) -> PathBuf {
        self.home.container(id).join(format!("{id}-json.log"))
    }
}

/// Every container runs without a network until there are some. Names of networks that do not exist are refused here and not
/// at create, as in moby: the CLI takes a 404 of create for a missing image.
fn check_networks(record: &super::record::Record) -> Result<()> {
    let endpoints = record.networking["EndpointsConfig"].as_object();
    let names = endpoints.into_iter().flat_map(|map| map.keys()).chain([&record.host.network_mode]);
    for name in names {
        if !matches!(name.as_str(), "" | "default" | "bridge" | "none" | "host") {
            let text = format!("failed to set up container networking: network {name} not found");
            return Err(Error::not_found(text));
        }
    }
    Ok(())
}

/// Hands streams to clients that attached before the start.
async fn connect(run: &Arc<Run>, waiting: Vec<super::container::Waiting>) {
    for waiting in waiting {
        match attach::open(run, waiting.wanted).await {
            // A client that left meanwhile drops them.
            Ok(streams) => drop(waiting.give.send(streams)),
            Err(error) => tracing::warn!(vm = run.vm.vm_id(), %error, "cannot attach a waiting client"),
        }
    }
}

/// How long a container ran, in whole seconds, for `die`.
pub(crate) fn run_seconds(started: &str, finished: &str) -> i128 {
    match (clock::parse(started), clock::parse(finished)) {
        (Some(from), Some(to)) => ((to - from) / 1_000_000_000).max(0),
        _ => 0,
    }
}
