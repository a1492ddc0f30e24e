//! All containers of this VM.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use proto::sandbox::PrepareRequest;

use super::{Container, ContainerError, Shared};
use crate::{launch::failure::Failure, process::reaper::Reaper};

/// Why a container cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    /// It is there already, from another request.
    #[error("container {0} is prepared already, from another request: release it first")]
    Exists(String),
    /// It wants a namespace of a container that is not in this VM.
    #[error("container {0} is not in this sandbox")]
    NoSuch(String),
    /// No ID was given.
    #[error("container_id is empty")]
    NoId,
    /// It cannot be built.
    #[error(transparent)]
    Build(#[from] ContainerError),
}

/// See the module.
#[derive(Default)]
pub(crate) struct Registry {
    state: Mutex<State>,
    /// Containers are prepared and released one after the other.
    lifecycle: tokio::sync::Mutex<()>,
    /// The reaper of this PID 1.
    pub(crate) reaper: Arc<Reaper>,
}

#[derive(Default)]
struct State {
    containers: HashMap<String, Arc<Container>>,
    made: u64,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// IDs, sorted.
    pub(crate) fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.lock().containers.keys().cloned().collect();
        ids.sort_unstable();
        ids
    }

    /// A container by its ID.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Container>> {
        self.lock().containers.get(id).cloned()
    }

    /// Prepares a container; an equal one that is there is fine.
    pub(crate) async fn prepare(&self, request: PrepareRequest) -> Result<(), PrepareError> {
        let _one = self.lifecycle.lock().await;
        let id = request.container_id.clone();
        if id.is_empty() {
            return Err(PrepareError::NoId);
        }
        if let Some(known) = self.get(&id) {
            return if known.request == request { Ok(()) } else { Err(PrepareError::Exists(id)) };
        }
        for other in [&request.pid_of, &request.ipc_of, &request.net_of] {
            if !other.is_empty() && self.get(other).is_none() {
                return Err(PrepareError::NoSuch(other.clone()));
            }
        }
        let network = self.get(&request.net_of).and_then(|other| other.network.clone());
        let number = {
            let mut state = self.lock();
            state.made += 1;
            state.made
        };
        let built = tokio::task::spawn_blocking(move || Container::build(number, request, network));
        let container = match built.await {
            Ok(built) => built?,
            Err(error) => return Err(ContainerError::Network(error.into()).into()),
        };
        self.lock().containers.insert(id, Arc::new(container));
        Ok(())
    }

    /// Kills and forgets a container, if it is there.
    pub(crate) async fn release(&self, id: &str) {
        let _one = self.lifecycle.lock().await;
        let Some(container) = self.get(id) else { return };
        let processes = container.all();
        // A start under way ends first: what it would start must be killed too.
        for process in &processes {
            drop(process.starting.lock().await);
        }
        let _ = tokio::task::spawn_blocking(move || container.tear_down()).await;
        self.lock().containers.remove(id);
    }

    /// What a container's first process shares with others.
    pub(crate) fn shared(&self, request: &PrepareRequest) -> Result<Shared, Failure> {
        let other = |id: &str| {
            let found = if id.is_empty() { return Ok(None) } else { self.get(id) };
            found
                .map(Some)
                .ok_or_else(|| Failure::plain(format_args!("container {id} is not in this sandbox")))
        };
        let pidfd = |id: &str| {
            Ok::<_, Failure>(match other(id)? {
                Some(container) => Some(Arc::new(container.init_pidfd()?)),
                None => None,
            })
        };
        let shm = other(&request.ipc_of)?.map(|container| container.root.shm().display().to_string());
        Ok(Shared { pid: pidfd(&request.pid_of)?, ipc: pidfd(&request.ipc_of)?, shm })
    }
}
