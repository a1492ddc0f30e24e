//! All decisions: containers, their processes, events. HTTP is [`crate::api`]'s, durable state [`crate::store`]'s.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures::future::join_all;
use images::ContainerUse;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Machine},
    error::{Error, Result},
    home::Home,
    store::{Loaded, Store, Unserved},
};

pub mod archive;
pub mod attach;
pub mod caps;
pub mod clock;
pub mod container;
pub mod create;
pub mod events;
pub mod exec;
mod exit;
pub mod inspect;
mod leftovers;
pub mod list;
pub mod logs;
pub mod model;
mod names;
mod pause;
mod prepare;
pub mod prune;
mod reconcile;
#[cfg(test)]
mod reconcile_tests;
pub mod record;
pub mod remove;
mod rename;
pub mod signal;
mod start;
pub mod stats;
pub mod status;
mod stop;
mod top;
mod update;
pub(crate) mod vm;
pub mod wait;

use container::Container;
use record::{Record, Status};

/// From the start of a daemon to the opening of its API; what takes longer (a VM that does not power off, a large folder to
/// remove) goes on behind it.
pub const START: Duration = Duration::from_secs(8);
/// VMs that were booted for `docker cp` have this long to end at a shutdown; those that do not are the next daemon's.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// The daemon's engine. Shared behind an [`Arc`].
pub struct Engine {
    /// Folders of this daemon.
    pub home: Home,
    /// Its configuration.
    pub config: Config,
    /// What all VMs have in common.
    pub machine: Machine,
    /// Images and their layer disks.
    pub images: Arc<images::ImageStore>,
    /// What happens, for `docker events`.
    pub events: events::Events,
    store: Arc<Store>,
    containers: RwLock<BTreeMap<String, Arc<Container>>>,
    /// Containers whose records cannot be read: not served, not touched.
    pub unserved: Vec<Unserved>,
    /// Boots are queued: more than the cores can carry would only make all of them miss their deadlines.
    boots: Semaphore,
    /// Cancelled at shutdown: tasks that watch VMs let go of them.
    stopping: CancellationToken,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("home", &self.home).finish_non_exhaustive()
    }
}

/// Containers by state, for `/info`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Not frozen.
    pub running: usize,
    /// Frozen.
    pub paused: usize,
    /// All others.
    pub stopped: usize,
}

/// A living VM, for `arca daemon status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmInfo {
    /// Id of its container.
    pub id: String,
    /// The container's name.
    pub name: String,
    /// The container's state.
    pub status: Status,
    /// Folder of its sockets.
    pub run_dir: std::path::PathBuf,
}

impl Engine {
    /// Opens the store and makes it agree with the VMs that live: adopts them, reads the exits that were missed. Returns at
    /// `deadline` at the latest, see [`START`].
    ///
    /// # Errors
    /// When the store cannot be opened or read.
    pub async fn start(
        home: Home,
        config: Config,
        machine: Machine,
        images: Arc<images::ImageStore>,
        deadline: Instant,
    ) -> Result<Arc<Self>> {
        if Store::is_missing(&home.store())? {
            leftovers::put_aside(&home.containers())?;
        }
        let store = Arc::new(Store::open(&home.store())?);
        let Loaded { records, unserved } = store.load()?;
        let containers =
            records.into_iter().map(|record| (record.id.clone(), Container::new(record))).collect();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let engine = Arc::new(Self {
            home,
            config,
            machine,
            images,
            events: events::Events::default(),
            store,
            containers: RwLock::new(containers),
            unserved,
            boots: Semaphore::new(cores),
            stopping: CancellationToken::new(),
        });
        engine.reconcile(deadline).await;
        Ok(engine)
    }

    /// Lets go of all VMs; they and their containers live on. VMs booted for `docker cp` on a stopped container end.
    pub async fn shutdown(&self) {
        self.stopping.cancel();
        let all = self.all();
        let closing = join_all(all.iter().map(|container| self.close_files(container)));
        if timeout(SHUTDOWN, closing).await.is_err() {
            tracing::warn!("a start or a copy is still under way, the next daemon ends its VM");
        }
    }

    /// The container with this id, name or unambiguous prefix of an id.
    ///
    /// # Errors
    /// 404 `No such container: x`, 400 for an ambiguous prefix.
    pub fn find(&self, name: &str) -> Result<Arc<Container>> {
        let containers = self.containers.read().unwrap_or_else(PoisonError::into_inner);
        let unslashed = name.strip_prefix('/').unwrap_or(name);
        if let Some(container) = containers.get(name) {
            return Ok(container.clone());
        }
        if let Some(container) = containers.values().find(|container| container.record().name == unslashed) {
            return Ok(container.clone());
        }
        let mut matches = containers.range(name.to_owned()..).take_while(|(id, _)| id.starts_with(name));
        match (name.is_empty(), matches.next(), matches.next()) {
            (false, Some((_, container)), None) => Ok(container.clone()),
            (false, Some(_), Some(_)) => {
                Err(Error::invalid(format!("multiple IDs found with provided prefix: {name}")))
            }
            _ => Err(Error::not_found(format!("No such container: {name}"))),
        }
    }

    /// All containers, newest first.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Container>> {
        let mut all: Vec<_> =
            self.containers.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_by_cached_key(|container| std::cmp::Reverse(clock::parse(&container.record().created)));
        all
    }

    /// Who uses an image.
    #[must_use]
    pub fn containers_using(&self, image_id: &str) -> Vec<ContainerUse> {
        let all = self.all();
        let records =
            all.iter().map(|container| container.record()).filter(|record| record.image_id == image_id);
        let served = records.map(|r| ContainerUse { id: r.id.clone(), running: r.state.status.is_running() });
        let unserved = self.unserved.iter().filter(|u| u.image_id.as_deref() == Some(image_id));
        served.chain(unserved.map(|u| ContainerUse { id: u.id.clone(), running: false })).collect()
    }

    /// Containers by state.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for container in self.all() {
            match container.status() {
                Status::Running | Status::Restarting => counts.running += 1,
                Status::Paused => counts.paused += 1,
                _ => counts.stopped += 1,
            }
        }
        counts
    }

    /// The VMs of running containers.
    #[must_use]
    pub fn vms(&self) -> Vec<VmInfo> {
        let vm = |container: Arc<Container>| {
            let run = container.run()?;
            let record = container.record();
            Some(VmInfo {
                id: record.id.clone(),
                name: record.name.clone(),
                status: record.state.status,
                run_dir: run.vm.run_dir().to_owned(),
            })
        };
        self.all().into_iter().filter_map(vm).collect()
    }

    /// Changes a record in memory and store, or in neither.
    async fn change<T>(
        &self,
        container: &Container,
        change: impl FnOnce(&mut Record) -> Result<T>,
    ) -> Result<T> {
        let _writing = container.writing.lock().await;
        let mut record = Record::clone(&container.record());
        let value = change(&mut record)?;
        let record = Arc::new(record);
        let stored = record.clone();
        self.in_store(move |store| store.update(&stored)).await?;
        *container.record.write().unwrap_or_else(PoisonError::into_inner) = record;
        Ok(value)
    }

    /// Runs a transaction where blocking is allowed.
    async fn in_store<T, E>(&self, work: impl FnOnce(&Store) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(result) => result,
            Err(error) => Err(Error::system("a database task was lost").because(error).into()),
        }
    }

    /// Whether a container has this id.
    fn containers_has(&self, id: &str) -> bool {
        self.containers.read().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    /// Makes a container known.
    fn insert(&self, container: Arc<Container>) {
        let mut containers = self.containers.write().unwrap_or_else(PoisonError::into_inner);
        containers.insert(container.id.clone(), container);
    }

    /// Forgets a container.
    fn forget(&self, id: &str) {
        self.containers.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}
