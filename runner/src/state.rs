//! Where a VM is in its life, and who waits for it.

use proto::runner::{GetStatusResponse, Stage};
use tokio::sync::watch;
use tonic::Status;

use crate::ExitRecord;

/// What [`Stage`] a runner is in, with what belongs to it.
///
/// ```text
/// Starting -> Booting -> Ready -> Running -> Exited
///     \__________\_________\________\-> Failed (VM lost or shut down before it ran a process)
/// ```
/// A VM that is lost while its process runs is `Exited`, with a record that says why. `Exited` and `Failed` are final.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub(crate) stage: Stage,
    pub(crate) reason: String,
    pub(crate) hypervisor_pid: u32,
    pub(crate) boot_ms: u64,
    pub(crate) main_pid: u32,
    pub(crate) started_at: String,
    pub(crate) exit: Option<ExitRecord>,
}

/// What moves a VM from stage to stage.
#[derive(Debug)]
pub(crate) enum Event {
    /// The hypervisor runs.
    Booting { hypervisor_pid: u32 },
    /// The guest answered.
    Ready { boot_ms: u64 },
    /// The main process runs.
    Running { pid: u32, started_at: String },
    /// The main process ended; its record is durable.
    Exited(ExitRecord),
    /// The VM is lost.
    Failed(String),
}

/// The state machine; cheap to watch.
#[derive(Debug)]
pub(crate) struct Machine(watch::Sender<State>);

impl Machine {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(State::default()))
    }

    /// Takes a step; one that the present stage does not allow is refused (false) and changes nothing.
    pub(crate) fn advance(&self, event: Event) -> bool {
        self.0.send_if_modified(|state| {
            let allowed = matches!(
                (state.stage, &event),
                (Stage::Starting, Event::Booting { .. })
                    | (Stage::Booting, Event::Ready { .. })
                    | (Stage::Ready, Event::Running { .. })
                    | (Stage::Running, Event::Exited(_))
                    | (Stage::Starting | Stage::Booting | Stage::Ready, Event::Failed(_))
            );
            if !allowed {
                tracing::debug!(stage = ?state.stage, ?event, "step refused");
                return false;
            }
            match event {
                Event::Booting { hypervisor_pid } => {
                    state.stage = Stage::Booting;
                    state.hypervisor_pid = hypervisor_pid;
                }
                Event::Ready { boot_ms } => {
                    state.stage = Stage::Ready;
                    state.boot_ms = boot_ms;
                }
                Event::Running { pid, started_at } => {
                    state.stage = Stage::Running;
                    state.main_pid = pid;
                    state.started_at = started_at;
                }
                Event::Exited(record) => {
                    state.stage = Stage::Exited;
                    state.exit = Some(record);
                }
                Event::Failed(reason) => {
                    state.stage = Stage::Failed;
                    state.reason = reason;
                }
            }
            true
        })
    }

    pub(crate) fn get(&self) -> State {
        self.0.borrow().clone()
    }

    /// Waits for a stage (or a later one).
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` with the reason once the stage can no longer come.
    pub(crate) async fn wait(&self, stage: Stage) -> Result<State, Status> {
        let mut watch = self.0.subscribe();
        let state = watch
            .wait_for(|state| state.stage >= stage || state.is_final())
            .await
            .map_err(|_| Status::unavailable("the runner ends"))?
            .clone();
        match state.stage {
            Stage::Failed if stage != Stage::Failed => Err(Status::failed_precondition(state.reason)),
            Stage::Exited if stage < Stage::Exited => {
                Err(Status::failed_precondition("the main process has ended"))
            }
            _ => Ok(state),
        }
    }
}

impl State {
    pub(crate) fn is_final(&self) -> bool {
        matches!(self.stage, Stage::Exited | Stage::Failed)
    }

    /// As an answer; `vm_id` and `accelerator` never change.
    pub(crate) fn answer(self, vm_id: &str, accelerator: &str) -> GetStatusResponse {
        GetStatusResponse {
            vm_id: vm_id.to_owned(),
            stage: self.stage.into(),
            reason: self.reason,
            runner_pid: std::process::id(),
            hypervisor_pid: self.hypervisor_pid,
            accelerator: accelerator.to_owned(),
            exit: self.exit.map(Into::into),
            main_pid: self.main_pid,
            started_at: self.started_at,
            boot_ms: self.boot_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Machine {
        let machine = Machine::new();
        assert!(machine.advance(Event::Booting { hypervisor_pid: 7 }));
        assert!(machine.advance(Event::Ready { boot_ms: 9 }));
        assert!(machine.advance(Event::Running { pid: 3, started_at: "t".into() }));
        machine
    }

    #[test]
    fn steps_out_of_order_are_refused() {
        let machine = Machine::new();
        assert!(!machine.advance(Event::Ready { boot_ms: 1 }));
        assert_eq!(machine.get().stage, Stage::Starting);
        let machine = running();
        // A lost VM with a process is an exit.
        assert!(!machine.advance(Event::Failed("x".into())));
        assert!(machine.advance(Event::Exited(ExitRecord::default())));
        assert!(!machine.advance(Event::Exited(ExitRecord { exit_code: 5, ..ExitRecord::default() })));
        assert_eq!(machine.get().exit.unwrap().exit_code, 0);
        assert_eq!((machine.get().main_pid, machine.get().hypervisor_pid), (3, 7));
    }

    #[tokio::test]
    async fn waiting_ends_with_the_stage_or_when_it_cannot_come() {
        let machine = running();
        assert_eq!(machine.wait(Stage::Ready).await.unwrap().stage, Stage::Running);
        machine.advance(Event::Exited(ExitRecord::default()));
        assert!(machine.wait(Stage::Exited).await.is_ok());
        assert!(machine.wait(Stage::Ready).await.is_err());
        let machine = Machine::new();
        machine.advance(Event::Failed("no kernel".into()));
        assert_eq!(machine.wait(Stage::Ready).await.unwrap_err().message(), "no kernel");
        assert_eq!(machine.wait(Stage::Failed).await.unwrap().reason, "no kernel");
    }
}
