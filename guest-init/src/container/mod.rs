//! Containers: a root, a cgroup, namespaces and processes.

pub(crate) mod cgroup;
mod devices;
pub(crate) mod disks;
pub(crate) mod registry;
mod rootfs;
mod spare;
mod specification;

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::sched::CloneFlags;
use proto::sandbox::{PrepareRequest, ProcessSpec};

use self::{
    cgroup::{Cgroup, CgroupError},
    rootfs::Root,
};
use crate::{
    launch::{
        config::FdRole,
        failure::Failure,
        spawn::{self, Launch},
    },
    log,
    process::{Process, reaper::Reaper},
    sys::{loopback, priority},
};

pub(crate) use rootfs::RootError;

/// Tasks of a container from which on a process that enters it is helped to its start, and for how long.
const CROWD: u64 = 32;
const BOOST: Duration = Duration::from_secs(5);

/// A container that could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContainerError {
    /// Its root.
    #[error(transparent)]
    Root(#[from] RootError),
    /// Its cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The filter of its devices.
    #[error("restrict devices: {0}")]
    Devices(#[source] io::Error),
    /// Its network namespace.
    #[error("make network namespace: {0}")]
    Network(#[source] io::Error),
}

/// A prepared container.
pub(crate) struct Container {
    /// What it was prepared from.
    pub(crate) request: PrepareRequest,
    /// Its mounted root.
    pub(crate) root: Root,
    /// Its cgroup; none when only its files are wanted.
    pub(crate) cgroup: Option<Cgroup>,
    /// Its network namespace, which is there before any process so that networks can be attached.
    pub(crate) network: Option<Arc<OwnedFd>>,
    processes: Mutex<Processes>,
}

#[derive(Default)]
struct Processes {
    known: HashMap<String, Arc<Process>>,
    /// ID of the container's init.
    first: Option<String>,
}

/// What a started process joins of another container.
pub(crate) struct Shared {
    /// pidfd of the init whose PID namespace is joined.
    pub(crate) pid: Option<Arc<OwnedFd>>,
    /// pidfd of the init whose IPC namespace is joined.
    pub(crate) ipc: Option<Arc<OwnedFd>>,
    /// Mount point of the shared /dev/shm.
    pub(crate) shm: Option<String>,
}

impl Container {
    /// Builds root, cgroup and network namespace. `network` is another container's to share.
    pub(crate) fn build(
        number: u64,
        request: PrepareRequest,
        network: Option<Arc<OwnedFd>>,
    ) -> Result<Self, ContainerError> {
        let root = Root::build(number, &request)?;
        let mut container =
            Self { request, root, cgroup: None, network, processes: Mutex::new(Processes::default()) };
        if !container.request.files_only
            && let Err(error) = container.isolate()
        {
            container.tear_down();
            return Err(error);
        }
        Ok(container)
    }

    fn isolate(&mut self) -> Result<(), ContainerError> {
        let cgroup = self.cgroup.insert(Cgroup::create(&self.request.container_id)?);
        if let Some(resources) = &self.request.resources {
            cgroup.apply(resources)?;
        }
        if !self.request.privileged {
            devices::restrict(cgroup.path(), &self.request.devices).map_err(ContainerError::Devices)?;
        }
        if self.network.is_none() {
            self.network = Some(Arc::new(new_network().map_err(ContainerError::Network)?));
        }
        Ok(())
    }

    fn processes(&self) -> MutexGuard<'_, Processes> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a process known. Answers false when another one of that ID is known already; an equal one is fine.
    pub(crate) fn create(&self, id: &str, spec: ProcessSpec) -> bool {
        let mut processes = self.processes();
        if let Some(known) = processes.known.get(id) {
            return known.spec == spec;
        }
        let first = processes.first.is_none();
        if first {
            processes.first = Some(id.to_owned());
        }
        processes.known.insert(id.to_owned(), Arc::new(Process::new(spec, first)));
        true
    }

    /// A process by its ID.
    pub(crate) fn process(&self, id: &str) -> Option<Arc<Process>> {
        self.processes().known.get(id).cloned()
    }

    /// Forgets a process.
    pub(crate) fn forget(&self, id: &str) {
        let mut processes = self.processes();
        // A first process that never ran does not count: the next one created is the init.
        let ran = processes.known.remove(id).is_some_and(|process| process.pid().is_some());
        if !ran && processes.first.as_deref() == Some(id) {
            processes.first = None;
        }
    }

    /// All processes.
    pub(crate) fn all(&self) -> Vec<Arc<Process>> {
        self.processes().known.values().cloned().collect()
    }

    /// pid of the init while it runs.
    pub(crate) fn init_pid(&self) -> Option<i32> {
        let processes = self.processes();
        let init = processes.known.get(processes.first.as_ref()?)?;
        init.pid().filter(|(_, runs)| *runs).map(|(pid, _)| pid)
    }

    /// A descriptor of the running init, through which its namespaces are joined.
    pub(crate) fn init_pidfd(&self) -> Result<OwnedFd, Failure> {
        let pid = self.init_pid().and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::plain("container is not running"))?;
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            .map_err(|e| Failure::setup("pidfd", e))
    }

    /// Starts a process; blocks until its command runs or has failed. Must be called within the runtime.
    pub(crate) fn start(
        self: &Arc<Self>,
        process: &Arc<Process>,
        shared: Shared,
        reaper: &Arc<Reaper>,
    ) -> Result<i32, Failure> {
        let Some(cgroup) = &self.cgroup else {
            return Err(Failure::plain("the container was prepared for its files only"));
        };
        let streams = process.streams().map_err(|e| Failure::setup("make pipes", e))?;
        let mut fds = streams.theirs();
        let mut config = specification::config(&process.spec, cgroup.procs())?;
        let mut own_pids = false;
        let pid_namespace;
        if process.first {
            config.first = Some(specification::first(&self.request, &self.root, &shared));
            if let Some(network) = &self.network {
                fds.push((FdRole::Namespaces(CloneFlags::CLONE_NEWNET.bits()), Arc::clone(network)));
            }
            if let Some(ipc) = shared.ipc {
                fds.push((FdRole::Namespaces(CloneFlags::CLONE_NEWIPC.bits()), ipc));
            }
            own_pids = shared.pid.is_none();
            pid_namespace = shared.pid;
        } else {
            let init = Arc::new(self.init_pidfd()?);
            let joined = CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWUTS
                | CloneFlags::CLONE_NEWIPC
                | CloneFlags::CLONE_NEWNET
                | CloneFlags::CLONE_NEWCGROUP;
            fds.push((FdRole::Namespaces(joined.bits()), Arc::clone(&init)));
            pid_namespace = Some(init);
        }
        config.boost = !process.first && cgroup.tasks() > CROWD;
        let boosted = config.boost;
        let launched = spawn::launch(reaper, Launch { config, fds, pid_namespace })?;
        if boosted {
            tokio::spawn(calm_down(launched.pid, Arc::clone(reaper)));
        }
        let container = Arc::clone(self);
        let first = process.first;
        process.run(launched, streams, move || container.process_ended(first && !own_pids))
    }

    /// A process was reaped. The init of a foreign PID namespace does not take the others with it: `kill` does.
    fn process_ended(&self, kill: bool) -> bool {
        let Some(cgroup) = &self.cgroup else { return false };
        if kill && let Err(error) = cgroup.kill() {
            log::warning!("{error}");
        }
        cgroup.oom_kills() > 0
    }

    /// Kills what is left and unmounts the root. No process of it may be starting.
    pub(crate) fn tear_down(&self) {
        for process in self.all() {
            process.stdio.abandon();
        }
        if let Some(cgroup) = &self.cgroup {
            if let Err(error) = cgroup.kill() {
                log::warning!("{error}");
            }
            cgroup.remove();
        }
        self.root.unmount();
    }
}

/// Takes the priority back that a process was started with.
async fn calm_down(pid: i32, reaper: Arc<Reaper>) {
    tokio::time::sleep(BOOST).await;
    reaper.with(pid, |pid| {
        if let Err(error) = priority::calm_down(pid) {
            log::warning!("priority of {pid:?}: {error}");
        }
    });
}

/// A new network namespace with `lo` up, made by a thread of its own that leaves it at once.
fn new_network() -> io::Result<OwnedFd> {
    let thread = std::thread::Builder::new().name("netns".into()).spawn(|| {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET)?;
        loopback::up()?;
        Ok(std::fs::File::open("/proc/thread-self/ns/net")?.into())
    })?;
    thread.join().map_err(|_| io::Error::other("thread failed"))?
}
