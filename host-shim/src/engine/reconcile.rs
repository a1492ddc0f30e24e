//! At the daemon's start: the store and the VMs that live are made to agree.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use proto::runner::{GetStatusRequest, Stage};
use runner::Handle;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::{
    Engine,
    container::{Container, Run},
    create::remove_dir,
    record::{Status, short},
    remove::Removal,
    vm,
};

impl Engine {
    /// Adopts living VMs, records exits nobody heard of, finishes removals, clears what a crash left half-made. Errors go to
    /// the log: one damaged container must not keep the others from being served.
    pub(crate) async fn reconcile(self: &Arc<Self>) {
        self.remove_strays();
        for container in self.all() {
            match container.status() {
                Status::Running | Status::Paused | Status::Restarting => self.readopt(&container).await,
                status => {
                    // The unseen VM of a `docker cp`, or one that was being powered off.
                    if let Some(handle) = self.living(&container).await {
                        vm::retire(&handle).await;
                    }
                    let unfinished = status == Status::Removing
                        || (status == Status::Exited && container.record().host.auto_remove);
                    if unfinished && let Err(error) = self.remove(&container, Removal::default()).await {
                        tracing::warn!(id = container.id, %error, "cannot finish a removal");
                    }
                }
            }
        }
    }

    /// A container that was running when the last daemon ended.
    async fn readopt(self: &Arc<Self>, container: &Arc<Container>) {
        container.seen.send_modify(|seen| seen.running = true);
        let Some(handle) = self.living(container).await else {
            let exit = self.missed_exit(container);
            self.ended(container, &exit).await;
            self.auto_remove(container).await;
            return;
        };
        let status = vm::call("status", vm::QUICK, handle.client().get_status(GetStatusRequest {})).await;
        let never_ran = matches!(&status, Ok(status) if matches!(status.stage(), Stage::Starting | Stage::Booting | Stage::Ready));
        let run =
            Arc::new(Run { vm: handle, ended: watch::Sender::new(false), attached: TaskTracker::new() });
        container.seen.send_modify(|seen| seen.busy = true);
        if never_ran {
            vm::retire(&run.vm).await;
        } else {
            tracing::info!(id = short(&container.id), "adopted a running container");
        }
        drop(container.set_run(Some(run.clone())));
        // The monitor sees an exit that happened meanwhile at once.
        self.monitor(container.clone(), run);
    }

    /// The runner of a container, if one lives. One that does not answer is killed.
    async fn living(&self, container: &Container) -> Option<Handle> {
        let run_dir = self.home.vm_run(&container.id);
        match runner::adopt(&run_dir, &container.id).await {
            Ok(handle) => handle,
            Err(error) => {
                tracing::warn!(id = short(&container.id), %error, "a runner does not answer: killed");
                Handle::unverified(&run_dir, &container.id).kill().await;
                None
            }
        }
    }

    /// Folders of containers that no record names: a create that a crash cut, or a removal's rest.
    fn remove_strays(&self) {
        let known: BTreeSet<String> = self.all().iter().map(|container| container.id.clone()).collect();
        for name in names_in(&self.home.containers()) {
            if !known.contains(&name) {
                remove_dir(&self.home.containers().join(name));
            }
        }
        let runs: BTreeSet<&str> = known.iter().map(|id| short(id)).collect();
        for name in names_in(self.home.run()) {
            let dir = self.home.run().join(&name);
            // Only what looks like a VM's folder, and only if nobody lives in it.
            if name.len() == 12
                && name.bytes().all(|b| b.is_ascii_hexdigit())
                && !runs.contains(name.as_str())
            {
                remove_dir(&dir);
            }
        }
    }
}

fn names_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}
