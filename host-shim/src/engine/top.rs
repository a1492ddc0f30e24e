//! `top`, `resize`.

use std::sync::Arc;

use proto::{
    detail::words,
    sandbox::{ResizeProcessRequest, TopRequest},
};
use serde_json::{Value, json};

use super::{Engine, container::Container, exec::can_exec, vm};
use crate::error::{Error, Result};

impl Engine {
    /// The processes of a container, as `ps` shows them.
    ///
    /// # Errors
    /// 409 when it does not run, 400 for arguments that `ps` does not take.
    pub async fn top(&self, container: &Arc<Container>, ps_args: &str) -> Result<Value> {
        self.settled(container).await?;
        let id = &container.id;
        let run = container.run().ok_or_else(|| Error::conflict(format!("container {id} is not running")))?;
        let args = ps_args.split_whitespace().map(str::to_owned).collect();
        let request = TopRequest { container_id: id.clone(), args };
        let top = vm::call("top", vm::QUICK, run.vm.sandbox().top(request)).await?;
        // A guest's words, which a terminal will show.
        let cells = |cells: Vec<String>| cells.iter().map(|cell| words(cell)).collect::<Vec<_>>();
        let rows: Vec<Vec<String>> = top.rows.into_iter().map(|row| cells(row.columns)).collect();
        self.events.publish(container.event("top"));
        Ok(json!({ "Processes": rows, "Titles": cells(top.titles) }))
    }

    /// Sets the size of the main process's terminal.
    ///
    /// # Errors
    /// 409 when the container does not run.
    pub async fn resize(&self, container: &Arc<Container>, width: u32, height: u32) -> Result<()> {
        self.settled(container).await?;
        let run = can_exec(container)?;
        let (container_id, process_id) = (container.id.clone(), container.id.clone());
        let request = ResizeProcessRequest { container_id, process_id, width, height };
        vm::call("resize", vm::QUICK, run.vm.sandbox().resize_process(request)).await?;
        let event = container.event("resize").with("height", height.to_string());
        self.events.publish(event.with("width", width.to_string()));
        Ok(())
    }
}
