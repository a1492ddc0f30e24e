//! `stop`, `kill` and `restart`.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use proto::sandbox::{ResumeRequest, SignalProcessRequest};
use tokio::time::Instant;

use super::{
    Engine,
    container::{Container, Run},
    record::Status,
    signal, vm,
};
use crate::error::{Error, Kind, Result};

/// Grace before the kill, unless the container or the request says otherwise.
const GRACE: i64 = 10;
/// A guest takes a signal within this time, or it is asked again; SIGKILL within it, or its VM is ended.
const SIGNAL: Duration = Duration::from_secs(10);
/// A killed process is gone within this time, or its VM is killed.
const KILLED: Duration = Duration::from_secs(10);
/// Pause before a signal is sent again that the guest did not take.
const AGAIN: Duration = Duration::from_secs(1);
/// Time to take a signal at the end of the grace.
const SLACK: Duration = Duration::from_secs(2);
/// What is left at least of a grace of that length to a process whose guest took the signal late.
const LATE: Duration = Duration::from_secs(5);

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
            let left = insist(container, grace, || self.send_signal(container, &run, signal)).await?;
            if !exited(container, left).await {
                self.kill_hard(container, &run).await?;
            }
        } else if !ending(container).await {
            return Err(Error::system(format!(
                "the exit of container {} was not recorded within {KILLED:?}",
                container.id
            )));
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

/// Sends a signal until it is taken, the container has exited, or the grace is over: a guest that is starved answers again, and
/// one that is dead is ended by [`vm::watch`]. Returns what is left of the grace.
async fn insist<F>(
    container: &Container,
    grace: Option<Duration>,
    mut send: impl FnMut() -> F,
) -> Result<Option<Duration>>
where
    F: Future<Output = Result<()>>,
{
    // A grace too long for a clock is for ever.
    let deadline = grace.and_then(|grace| Instant::now().checked_add(grace));
    let left = || deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    loop {
        let within = left().map_or(SIGNAL, |left| left.saturating_add(SLACK).min(SIGNAL));
        let sent = tokio::time::timeout(within, send()).await;
        match sent.unwrap_or_else(|_| Err(Error::system(format!("signal: no answer within {within:?}")))) {
            Err(error) if error.kind == Kind::InvalidParameter => return Err(error),
            Err(error) if error.kind == Kind::System => {
                tracing::warn!(id = container.id, %error, "the guest does not take a signal");
            }
            // An error otherwise: the process ends at this moment.
            _ => return Ok(left().map(|left| left.max(grace.unwrap_or_default().min(LATE)))),
        }
        let pause = left().map_or(AGAIN, |left| left.min(AGAIN));
        if exited(container, Some(pause)).await || left() == Some(Duration::ZERO) {
            return Ok(Some(Duration::ZERO));
        }
    }
}

/// Waits for the exit of a container that is recorded as running and has no VM any more: it is being recorded. Whether it is.
pub(crate) async fn ending(container: &Container) -> bool {
    let ends = container.run().is_none() && container.status().is_running();
    !ends || exited(container, Some(KILLED)).await
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

#[cfg(test)]
mod tests {
    use std::{cell::Cell, sync::PoisonError};

    use super::*;
    use crate::{
        api::tests::engine,
        engine::{
            record::{Record, tests::record},
            remove::Removal,
        },
    };

    const MOMENT: Duration = Duration::from_millis(100);

    fn running() -> Arc<Container> {
        let mut record = record("a", "web");
        record.state.started(1, "2026-01-01T00:00:00Z".into());
        let container = Container::new(record);
        container.seen.send_modify(|seen| seen.running = true);
        container
    }

    /// Its VM is gone, and its exit takes a moment to be recorded.
    fn ends_in_a_moment(container: &Arc<Container>) {
        let container = container.clone();
        tokio::spawn(async move {
            tokio::time::sleep(MOMENT).await;
            let mut record = Record::clone(&container.record());
            record.state.status = Status::Exited;
            *container.record.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(record);
            container.seen.send_modify(|seen| seen.running = false);
        });
    }

    #[tokio::test]
    async fn who_comes_while_an_exit_is_being_recorded_waits_for_it() {
        let (_dir, engine) = engine().await;
        let container = running();
        engine.insert(container.clone());
        ends_in_a_moment(&container);
        engine.stop(&container, None, None).await.unwrap();
        assert_eq!(container.status(), Status::Exited);

        let container = running();
        let copy = container.record();
        engine.in_store(move |store| store.insert(&copy)).await.unwrap();
        engine.insert(container.clone());
        ends_in_a_moment(&container);
        engine.remove(&container, Removal { force: true, ..Removal::default() }).await.unwrap();
        assert!(container.seen().removed);
    }

    #[tokio::test]
    async fn a_signal_is_sent_again_until_the_grace_is_over() {
        let tries = Cell::new(0);
        let send = |taken_at: u32| {
            tries.set(tries.get() + 1);
            let taken = tries.get() >= taken_at;
            async move { if taken { Ok(()) } else { Err(Error::system("signal: unavailable")) } }
        };
        let container = running();
        // Taken in the end: nobody kills, and the process has the rest of its grace.
        let left = insist(&container, Some(Duration::from_secs(300)), || send(2)).await.unwrap();
        assert!(left > Some(Duration::from_secs(280)) && tries.get() == 2, "{left:?}");
        // Never taken: nothing is left, and not before.
        let begun = Instant::now();
        let left = insist(&container, Some(Duration::from_millis(1200)), || send(99)).await.unwrap();
        assert_eq!(left, Some(Duration::ZERO));
        assert!(begun.elapsed() >= Duration::from_millis(1200) && tries.get() >= 4);
        // The process ends all the same.
        ends_in_a_moment(&container);
        let begun = Instant::now();
        insist(&container, None, || send(99)).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(60));
        let error = insist(&container, None, || async { Err(Error::invalid("x")) }).await.unwrap_err();
        assert_eq!(error.kind, Kind::InvalidParameter);
    }
}
