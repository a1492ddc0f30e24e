//! Processes of containers: made, started, waited for.

mod input;
mod output;
mod pump;
pub(crate) mod reaper;
pub(crate) mod stdio;

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::errno::Errno;
use proto::sandbox::ProcessSpec;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::sync::{oneshot, watch};

use self::{
    reaper::{Exit, Reaper},
    stdio::{Output, Stdio},
};
use crate::{
    launch::{config::FdRole, failure::Failure, spawn},
    sys::tty,
};

pub(crate) use input::InputError;

/// How long the pipes of an ended process may stay open. All processes of a container die with its init, so theirs end by
/// themselves; a process in the background may hold an exec's.
const INIT_GRACE: Duration = Duration::from_secs(2);
const EXEC_GRACE: Duration = Duration::from_millis(100);

/// The life of a process: Created -> Running -> Ended. A failed start leaves it Created.
#[derive(Debug)]
enum State {
    /// Known, with buffers; nothing runs.
    Created,
    /// The command runs.
    Running { pid: i32, master: Option<Arc<OwnedFd>> },
    /// It was reaped; its last output may still be on its way.
    Ended { pid: i32 },
}

/// The end of a process, once all its output was taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    /// How and when.
    pub(crate) exit: Exit,
    /// The OOM killer had been in its cgroup.
    pub(crate) oom_killed: bool,
}

/// One process of a container.
pub(crate) struct Process {
    /// As the host asked.
    pub(crate) spec: ProcessSpec,
    /// Whether it is the container's init.
    pub(crate) first: bool,
    /// Its streams.
    pub(crate) stdio: Arc<Stdio>,
    state: Mutex<State>,
    ended: watch::Sender<Option<Ended>>,
    /// Held while it is being started.
    pub(crate) starting: tokio::sync::Mutex<()>,
}

/// The process's side and ours of its streams.
pub(crate) struct Streams {
    theirs: Vec<(FdRole, Arc<OwnedFd>)>,
    stdin: Option<OwnedFd>,
    outputs: Vec<(Output, OwnedFd)>,
}

impl Process {
    /// A process that was asked for.
    pub(crate) fn new(spec: ProcessSpec, first: bool) -> Self {
        let stderr = spec.stderr && !spec.terminal;
        let stdio = Stdio::new(spec.stdin, spec.stdout, stderr, spec.discard_when_detached);
        Self {
            spec,
            first,
            stdio: Arc::new(stdio),
            state: Mutex::new(State::Created),
            ended: watch::Sender::new(None),
            starting: tokio::sync::Mutex::new(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pid of a process that was started, and whether it still runs.
    pub(crate) fn pid(&self) -> Option<(i32, bool)> {
        match &*self.lock() {
            State::Created => None,
            State::Running { pid, .. } => Some((*pid, true)),
            State::Ended { pid } => Some((*pid, false)),
        }
    }

    /// Pipes for a process without a terminal; `/dev/null` for what it does not have.
    pub(crate) fn streams(&self) -> io::Result<Streams> {
        let mut streams = Streams { theirs: Vec::new(), stdin: None, outputs: Vec::new() };
        if self.spec.terminal {
            return Ok(streams);
        }
        let null = || -> io::Result<OwnedFd> {
            Ok(std::fs::File::options().read(true).write(true).open("/dev/null")?.into())
        };
        let mut theirs = |number, fd| streams.theirs.push((FdRole::Stdio(number), Arc::new(fd)));
        if self.spec.stdin {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            theirs(0, read);
            streams.stdin = Some(write);
        } else {
            theirs(0, null()?);
        }
        for (number, wanted, output) in
            [(1, self.spec.stdout, Output::Out), (2, self.spec.stderr, Output::Err)]
        {
            if wanted {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                theirs(number, write);
                streams.outputs.push((output, read));
            } else {
                theirs(number, null()?);
            }
        }
        Ok(streams)
    }

    /// The process runs: moves its bytes and waits for its end. `at_end` runs when it was reaped (on a blocking thread)
    /// and answers whether the OOM killer came.
    pub(crate) fn run(
        self: &Arc<Self>,
        launched: spawn::Launched,
        streams: Streams,
        at_end: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<i32, Failure> {
        let spawn::Launched { pid, master, exit } = launched;
        let Streams { theirs, mut stdin, mut outputs } = streams;
        // An output pipe ends when its last writer is gone: we must not be one.
        drop(theirs);
        let master = master.map(Arc::new);
        if let Some(master) = &master {
            let copy = || master.try_clone().map_err(|e| Failure::setup("duplicate terminal", e));
            outputs.push((Output::Out, copy()?));
            if self.spec.stdin {
                stdin = Some(copy()?);
            }
        }
        *self.lock() = State::Running { pid, master };
        let (end, grace) = watch::channel(None);
        let mut pumps = Vec::new();
        for (output, fd) in outputs {
            pumps.push(tokio::spawn(pump::output(Arc::clone(&self.stdio), output, fd, grace.clone())));
        }
        if let Some(fd) = stdin {
            tokio::spawn(pump::input(Arc::clone(&self.stdio), fd, self.spec.terminal, grace));
        }
        tokio::spawn(Arc::clone(self).supervise(pid, exit, end, pumps, at_end));
        Ok(pid)
    }

    async fn supervise(
        self: Arc<Self>,
        pid: i32,
        exit: oneshot::Receiver<Exit>,
        end: watch::Sender<Option<Duration>>,
        pumps: Vec<tokio::task::JoinHandle<io::Result<()>>>,
        at_end: impl FnOnce() -> bool + Send + 'static,
    ) {
        // The reaper never drops a waiter without an answer.
        let Ok(exit) = exit.await else { return };
        *self.lock() = State::Ended { pid };
        let oom_killed = tokio::task::spawn_blocking(at_end).await.unwrap_or(false);
        end.send_replace(Some(if self.first { INIT_GRACE } else { EXEC_GRACE }));
        for pump in pumps {
            let _ = pump.await;
        }
        self.stdio.finish_all();
        self.ended.send_replace(Some(Ended { exit, oom_killed }));
    }

    /// Waits for the end.
    pub(crate) async fn wait(&self) -> Option<Ended> {
        let mut ended = self.ended.subscribe();
        ended.wait_for(Option::is_some).await.ok().and_then(|ended| *ended)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// `ESRCH` when it does not run.
    pub(crate) fn signal(&self, reaper: &Reaper, number: i32) -> Result<(), Errno> {
        match self.pid() {
            Some((pid, true)) => reaper.signal(pid, number),
            _ => Err(Errno::ESRCH),
        }
    }

    /// Resizes its terminal; a process without one, or that does not run, is left alone.
    pub(crate) fn resize(&self, width: u16, height: u16) -> io::Result<()> {
        match &*self.lock() {
            State::Running { master: Some(master), .. } => tty::resize(master, width, height),
            _ => Ok(()),
        }
    }
}

impl Streams {
    /// What to pass to the launcher.
    pub(crate) fn theirs(&self) -> Vec<(FdRole, Arc<OwnedFd>)> {
        self.theirs.clone()
    }
}
