//! What the parts of a runner process share.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, atomic::AtomicBool};

use proto::{ports, runner::StartContainerResponse, sandbox::sandbox_client::SandboxClient};
use tokio::sync::{mpsc, watch};
use tonic::{Status, transport::Channel};

use crate::{
    VmSpec,
    state::Machine,
    stdio::{Hub, Input},
    vmm::Vm,
};

/// Messages of attached clients that may wait for the process to read.
const INPUT_SLOTS: usize = 4;

/// Outcome of `StartContainer`: the answer every repeat of it gets.
pub(crate) type Started = Option<Result<StartContainerResponse, Status>>;

/// The runner of one VM.
pub(crate) struct Runner {
    pub(crate) spec: VmSpec,
    pub(crate) machine: Machine,
    pub(crate) hub: Arc<Hub>,
    /// Input of attached clients, for the process.
    pub(crate) stdin: mpsc::Sender<Input>,
    /// The other end, taken when the process starts.
    pub(crate) stdin_source: Mutex<Option<mpsc::Receiver<Input>>>,
    /// The VM, once its hypervisor runs.
    vm: OnceLock<Arc<dyn Vm>>,
    /// The container that was started (or is being), with the outcome.
    pub(crate) container: Mutex<Option<(String, watch::Receiver<Started>)>>,
    /// Somebody records the exit: the first one's word counts.
    pub(crate) recording: AtomicBool,
    /// Somebody wants the VM to end; the time it has for that in milliseconds.
    pub(crate) shutdown: watch::Sender<Option<u32>>,
    /// The VM is gone.
    pub(crate) gone: watch::Sender<bool>,
}

impl Runner {
    pub(crate) fn new(spec: VmSpec) -> Arc<Self> {
        let (stdin, source) = mpsc::channel(INPUT_SLOTS);
        Arc::new(Self {
            spec,
            machine: Machine::new(),
            hub: Arc::new(Hub::new()),
            stdin,
            stdin_source: Mutex::new(Some(source)),
            vm: OnceLock::new(),
            container: Mutex::new(None),
            recording: AtomicBool::new(false),
            shutdown: watch::Sender::new(None),
            gone: watch::Sender::new(false),
        })
    }

    pub(crate) fn set_vm(&self, vm: Arc<dyn Vm>) {
        // Set once, by the one boot there is.
        let _ = self.vm.set(vm);
    }

    pub(crate) fn vm(&self) -> Option<&Arc<dyn Vm>> {
        self.vm.get()
    }

    /// The guest's service; `None` before the hypervisor runs.
    pub(crate) fn guest(&self) -> Option<SandboxClient<Channel>> {
        self.vm().map(|vm| SandboxClient::new(vm.channel(ports::GUEST_CONTROL)))
    }

    /// Id of the container that was started.
    pub(crate) fn container_id(&self) -> Option<String> {
        let container = self.container.lock().unwrap_or_else(PoisonError::into_inner);
        container.as_ref().map(|(id, _)| id.clone())
    }

    /// Asks for the end. The first one's grace counts, unless a later one is shorter.
    pub(crate) fn request_shutdown(&self, grace_ms: u32) {
        self.shutdown.send_if_modified(|wanted| {
            let sooner = wanted.is_none_or(|present| grace_ms < present);
            if sooner {
                *wanted = Some(grace_ms);
            }
            sooner
        });
    }

    /// Answers once somebody wants the end.
    pub(crate) async fn shutdown_requested(&self) -> u32 {
        let mut watch = self.shutdown.subscribe();
        match watch.wait_for(Option::is_some).await {
            Ok(grace) => grace.unwrap_or_default(),
            Err(_) => 0,
        }
    }
}
