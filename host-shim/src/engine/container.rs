//! One container in memory: its record, its locks, its running VM and those who wait for it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, atomic::AtomicBool},
};

use tokio::sync::{oneshot, watch};
use tokio_util::task::TaskTracker;

use super::{
    archive::Files,
    attach::{Streams, Wanted},
    events::{Event, Kind},
    exec::Exec,
    record::{Record, Status},
};

/// A container. Locks, each with its owner, in the order in which they may be taken:
///
/// 1. `life`: whoever changes the state by request (start, stop, restart, pause, rename, remove), for the whole change.
///    The monitor of a running container does *not* take it, so that an exit is seen while a `stop` waits for it.
/// 2. `files`: whoever uses or ends the unseen VM of a stopped container.
/// 3. `writing`: held while a changed record goes to the store, so that the store sees changes in the order of memory.
/// 4. `record`, `gate`, `execs`: plain data, never held across an await.
#[derive(Debug)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    pub(crate) life: tokio::sync::Mutex<()>,
    pub(crate) files: tokio::sync::Mutex<Files>,
    pub(crate) writing: tokio::sync::Mutex<()>,
    pub(crate) record: RwLock<Arc<Record>>,
    gate: Mutex<Gate>,
    execs: Mutex<BTreeMap<String, Arc<Exec>>>,
    pub(crate) seen: watch::Sender<Seen>,
    /// It is known whether its VM lives; false for a moment after the daemon's start.
    pub(crate) settled: watch::Sender<bool>,
    /// A restart is under way: `AutoRemove` must not take the container away between stop and start.
    pub(crate) restarting: AtomicBool,
}

/// What those who wait for a container are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Grows with every exit of the main process.
    pub exits: u64,
    /// Of the last exit.
    pub exit_code: i32,
    /// Why the VM was lost, else empty.
    pub error: String,
    /// The main process runs.
    pub running: bool,
    /// A VM has the disks: it boots, runs or is being powered off.
    pub busy: bool,
    /// The container is gone.
    pub removed: bool,
}

/// One run of the main process: from the start of its VM to its exit.
#[derive(Debug)]
pub struct Run {
    /// The VM.
    pub vm: runner::Handle,
    /// Becomes true when the main process has ended and its log is complete.
    pub ended: watch::Sender<bool>,
    /// Tasks that carry output to attached clients: the VM stays until they are done.
    pub(crate) attached: TaskTracker,
}

/// Who wants the stdio of a container: handed streams at once while it runs, else when it starts.
#[derive(Debug, Default)]
struct Gate {
    live: Option<Arc<Run>>,
    waiting: Vec<Waiting>,
}

/// A client that attached before the start.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) wanted: Wanted,
    pub(crate) give: oneshot::Sender<Streams>,
}

impl Container {
    /// A container as recorded, not running.
    #[must_use]
    pub fn new(record: Record) -> Arc<Self> {
        let seen = Seen { exit_code: record.state.exit_code, ..Seen::default() };
        Arc::new(Self {
            id: record.id.clone(),
            life: tokio::sync::Mutex::default(),
            files: tokio::sync::Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            record: RwLock::new(Arc::new(record)),
            gate: Mutex::default(),
            execs: Mutex::default(),
            seen: watch::Sender::new(seen),
            settled: watch::Sender::new(true),
            restarting: AtomicBool::new(false),
        })
    }

    /// The record of this moment.
    #[must_use]
    pub fn record(&self) -> Arc<Record> {
        self.record.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The state of this moment.
    #[must_use]
    pub fn status(&self) -> Status {
        self.record().state.status
    }

    /// What those who wait for it are told at this moment.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// The running VM, if there is one.
    #[must_use]
    pub fn run(&self) -> Option<Arc<Run>> {
        self.gate().live.clone()
    }

    /// The streams of the present run, or a place in the queue for the next.
    pub(crate) fn run_or_wait(&self, wanted: Wanted) -> Result<Arc<Run>, oneshot::Receiver<Streams>> {
        let mut gate = self.gate();
        if let Some(run) = &gate.live {
            return Ok(run.clone());
        }
        let (give, take) = oneshot::channel();
        gate.waiting.retain(|waiting| !waiting.give.is_closed());
        gate.waiting.push(Waiting { wanted, give });
        Err(take)
    }

    /// Takes those who wait for the next start.
    pub(crate) fn take_waiting(&self) -> Vec<Waiting> {
        std::mem::take(&mut self.gate().waiting)
    }

    /// Opens or closes the gate; answers those who came while the run was being started.
    pub(crate) fn set_run(&self, run: Option<Arc<Run>>) -> Vec<Waiting> {
        let mut gate = self.gate();
        let opened = run.is_some();
        gate.live = run;
        if opened { std::mem::take(&mut gate.waiting) } else { Vec::new() }
    }

    /// Its exec instances.
    pub(crate) fn execs(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Exec>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event about it, with the attributes that all its events have.
    #[must_use]
    pub fn event(&self, action: impl Into<String>) -> Event {
        let record = self.record();
        let event =
            Event::new(Kind::Container, action, self.id.clone()).labelled(record.config.labels.as_ref());
        event.with("image", record.config.image.clone()).with("name", record.name.clone())
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
