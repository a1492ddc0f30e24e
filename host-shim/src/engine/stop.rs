//! `stop`, `kill` and `restart`.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use proto::sandbox::{ResumeRequest, SignalProcessRequest};

use super::{
    Engine,
    container::{Container, Run},
    record::Status,
    signal, vm,
};
use crate::error::{Error, Kind, Result};

/// Grace before the kill, unless the container or the request says otherwise.
const GRACE: i64 = 10;
/// A guest takes a signal within this time, or is ended.
const SIGNAL: Duration = Duration::from_secs(10);
/// A killed process is gone within this time, or its VM is killed.
const KILLED: Duration = Duration::from_secs(10);

impl Engine {
    /// Stops a container: signal, grace, kill. `timeout` in seconds, negative: for ever.
    ///
    /// # Errors
    /// 304 when it does not run, 400 for a bad signal.
    pub async fn stop(
        self: &Arc<Self>,
        container: &Arc<Container>,
        signal: Option<&str>,
        timeout: Option<i64>,
    ) -> Result<()> {
        let signal = signal.map(signal::parse).transpose()?;
        let _life = container.life.lock().await;
        if !container.status().is_running() {
            return Err(Error::not_modified());
        }
        self.stop_locked(container, signal, timeout).await
    }

    /// With `life` held and the container running.
    async fn stop_locked(
        &self,
        container: &Arc<Container>,
        signal: Option<u32>,
        timeout: Option<i64>,
    ) -> Result<()> {
        let record = container.record();
        let own = Some(&record.config.stop_signal)
            .filter(|text| !text.is_empty())
            .and_then(|text| signal::parse(text).ok());
        let signal = signal.or(own).unwrap_or(signal::TERM);
        let timeout = timeout.or(record.config.stop_timeout).unwrap_or(GRACE);
        if let Some(run) = container.run() {
            let grace = u64::try_from(timeout).ok().map(Duration::from_secs);
            match self.send_signal(container, &run, signal).await {
                Err(error) if error.kind == Kind::System => {
                    self.kill_vm(container, &run, &error.message).await?;
                }
                Err(error) if error.kind == Kind::InvalidParameter => return Err(error),
                // An error otherwise: the process ends at this moment.
                _ => {
                    if !exited(container, grace).await {
                        self.kill_hard(container, &run).await?;
                    }
                }
            }
        }
        self.events.publish(container.event("stop"));
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// 400 for a bad signal, 409 when it does not run.
    pub async fn kill(&self, container: &Arc<Container>, name: &str, signal: &str) -> Result<()> {
        let signal = if signal.is_empty() { signal::KILL } else { signal::parse(signal)? };
        let not_running = || {
            Error::conflict(format!(
                "cannot kill container: {name}: container {} is not running",
                container.id
            ))
        };
        self.settled(container).await?;
        let run = container.run().ok_or_else(not_running)?;
        if signal == signal::KILL {
            return self.kill_hard(container, &run).await;
        }
        self.send_signal(container, &run, signal).await
    }

    /// Stops and starts.
    ///
    /// # Errors
    /// As stop and start.
    pub async fn restart(
        self: &Arc<Self>,
        container: &Arc<Container>,
        signal: Option<&str>,
        timeout: Option<i64>,
    ) -> Result<()> {
        let signal = signal.map(signal::parse).transpose()?;
        let _life = container.life.lock().await;
        container.restarting.store(true, Ordering::Release);
        let result = self.restart_locked(container, signal, timeout).await;
        container.restarting.store(false, Ordering::Release);
        result
    }

    async fn restart_locked(
        self: &Arc<Self>,
        container: &Arc<Container>,
        signal: Option<u32>,
        timeout: Option<i64>,
    ) -> Result<()> {
        if container.status().is_running() {
            self.stop_locked(container, signal, timeout).await?;
        }
        self.start_locked(container).await?;
        self.events.publish(container.event("restart"));
        Ok(())
    }

    /// SIGKILL, and the VM with it if the guest does not do it.
    pub(crate) async fn kill_hard(&self, container: &Arc<Container>, run: &Arc<Run>) -> Result<()> {
        match self.send_signal(container, run, signal::KILL).await {
            Err(error) if error.kind == Kind::System => {
                return self.kill_vm(container, run, &error.message).await;
            }
            // The process may end at this moment.
            Err(error) => tracing::warn!(id = container.id, %error, "the guest does not take SIGKILL"),
            Ok(()) => {}
        }
        if exited(container, Some(KILLED)).await {
            return Ok(());
        }
        self.kill_vm(container, run, &format!("it did not end within {KILLED:?} of SIGKILL")).await
    }

    /// Ends a VM whose guest is of no use any more.
    async fn kill_vm(&self, container: &Arc<Container>, run: &Arc<Run>, why: &str) -> Result<()> {
        run.vm.kill_because(why).await;
        if exited(container, Some(KILLED)).await {
            return Ok(());
        }
        Err(Error::system(format!("container {} did not exit after its VM was killed", container.id)))
    }

    async fn send_signal(&self, container: &Arc<Container>, run: &Run, signal: u32) -> Result<()> {
        let (container_id, process_id) = (container.id.clone(), container.id.clone());
        let request = SignalProcessRequest { container_id, process_id, signal, all: false };
        let sent = vm::call("signal", SIGNAL, run.vm.sandbox().signal_process(request)).await;
        // A process that exits this moment is no error: the exit is what was wanted.
        if sent.is_err() && container.run().is_none() {
            return Ok(());
        }
        sent?;
        self.events.publish(container.event("kill").with("signal", signal.to_string()));
        if container.status() == Status::Paused {
            // A frozen process sees its signal only when thawed.
            let thaw = ResumeRequest { container_id: container.id.clone() };
            vm::call("resume", SIGNAL, run.vm.sandbox().resume(thaw)).await?;
            if signal != signal::KILL {
                self.change(container, |record| {
                    if record.state.status == Status::Paused {
                        record.state.status = Status::Running;
                    }
                    Ok(())
                })
                .await?;
            }
        }
        Ok(())
    }
}

/// Waits for the exit; `None` is for ever.
async fn exited(container: &Container, within: Option<Duration>) -> bool {
    let mut seen = container.seen.subscribe();
    let exit = seen.wait_for(|seen| !seen.running);
    match within {
        Some(within) => tokio::time::timeout(within, exit).await.is_ok(),
        None => exit.await.is_ok(),
    }
}
