//! `pause` and `unpause`.

use std::sync::Arc;

use proto::sandbox::{PauseRequest, ResumeRequest};

use super::{Engine, container::Container, record::Status, vm};
use crate::error::{Error, Result};

impl Engine {
    /// Freezes a container.
    ///
    /// # Errors
    /// 409 when it does not run or is frozen already.
    pub async fn pause(&self, container: &Arc<Container>) -> Result<()> {
        let _life = container.life.lock().await;
        let id = &container.id;
        let run = container.run().ok_or_else(|| Error::conflict(format!("container {id} is not running")))?;
        if container.status() == Status::Paused {
            return Err(Error::conflict(format!("container {id} is already paused")));
        }
        vm::call("pause", vm::QUICK, run.vm.sandbox().pause(PauseRequest { container_id: id.clone() }))
            .await?;
        self.set_status(container, Status::Running, Status::Paused).await?;
        self.events.publish(container.event("pause"));
        Ok(())
    }

    /// Thaws a container.
    ///
    /// # Errors
    /// 500 when it is not frozen, as dockerd.
    pub async fn unpause(&self, container: &Arc<Container>) -> Result<()> {
        let _life = container.life.lock().await;
        let id = &container.id;
        let run = container.run().filter(|_| container.status() == Status::Paused);
        let run = run.ok_or_else(|| Error::system(format!("Container {id} is not paused")))?;
        vm::call("unpause", vm::QUICK, run.vm.sandbox().resume(ResumeRequest { container_id: id.clone() }))
            .await?;
        self.set_status(container, Status::Paused, Status::Running).await?;
        self.events.publish(container.event("unpause"));
        Ok(())
    }

    /// From one state to another, unless it exited meanwhile.
    async fn set_status(&self, container: &Container, from: Status, to: Status) -> Result<()> {
        self.change(container, |record| {
            if record.state.status == from {
                record.state.status = to;
            }
            Ok(())
        })
        .await
    }
}
