//! `rm`.

use std::sync::Arc;

use super::{
    Engine,
    archive::{close, lock_files},
    container::Container,
    create::remove_dir,
    record::Status,
    stop::ending,
};
use crate::error::{Error, Result};

/// How to remove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removal {
    /// Kill it first if it runs.
    pub force: bool,
    /// Its anonymous volumes as well (there are none yet).
    pub volumes: bool,
}

impl Engine {
    /// Removes a container.
    ///
    /// # Errors
    /// 409 when it runs and `force` was not asked, or is being removed.
    pub async fn remove(self: &Arc<Self>, container: &Arc<Container>, how: Removal) -> Result<()> {
        // Before the lock: a `stop` may hold it for its whole grace.
        if let Some(run) = container.run().filter(|_| how.force) {
            self.kill_hard(container, &run).await?;
        }
        let _life = container.life.lock().await;
        if let Some(run) = container.run().filter(|_| how.force) {
            self.kill_hard(container, &run).await?;
        }
        // One that ends at this moment has no VM that could be asked, and is not recorded as ended yet.
        ending(container).await;
        let (id, name) = (container.id.clone(), container.record().name.clone());
        match container.status() {
            Status::Running | Status::Restarting => {
                return Err(Error::conflict(format!(
                    "cannot remove container \"/{name}\": container is running: stop the container before removing or force \
                     remove"
                )));
            }
            Status::Paused => {
                return Err(Error::conflict(format!(
                    "cannot remove container \"/{name}\": container is paused and must be unpaused first"
                )));
            }
            Status::Created | Status::Exited | Status::Removing | Status::Dead => {}
        }
        if container.seen.borrow().removed {
            return Err(Error::not_found(format!("No such container: {id}")));
        }
        // Before the state changes: while somebody copies files, nothing has happened to the container.
        let mut files = lock_files(container).await?;
        // Durable before anything is gone: a crash in between is finished at the next start.
        self.change(container, |record| {
            record.state.status = Status::Removing;
            Ok(())
        })
        .await?;
        self.wait_idle(container).await?;
        close(&mut files).await;
        drop(files);
        drop(container.take_waiting());
        let (dir, run_dir) = (self.home.container(&id), self.home.vm_run(&id));
        tokio::task::spawn_blocking(move || {
            remove_dir(&run_dir);
            remove_dir(&dir);
        })
        .await
        .map_err(|error| Error::system("the task that removes files was lost").because(error))?;
        let gone = (id.clone(), name);
        self.in_store(move |store| store.remove(&gone.0, &gone.1)).await?;
        self.forget(&id);
        self.events.publish(container.event("destroy"));
        container.seen.send_modify(|seen| seen.removed = true);
        Ok(())
    }
}
