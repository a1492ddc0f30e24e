//! At the daemon's start: what no record names, because a crash cut what made or removed it, is ended and cleared away.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use runner::Handle;

use super::{Engine, create::remove_dir, record::short, vm};
use crate::store::stored::is_id;

/// Time the VM of an unknown container has to power off.
const GRACE: Duration = Duration::from_secs(3);
/// Digits of an id that name a VM's run folder.
const SHORT: usize = 12;

impl Engine {
    /// Ends runners of unknown containers, then removes the folders and temporary files that nobody will ask for again.
    /// `fresh`: the database was not there, so that folders of containers are no leftovers of a crash but all that is left
    /// of containers; they are put aside.
    pub(crate) async fn clear_leftovers(self: &Arc<Self>, fresh: bool) {
        // By folder of their VMs: who must be left alone.
        let mut known: BTreeMap<String, String> =
            self.all().iter().map(|c| (short(&c.id).to_owned(), c.id.clone())).collect();
        let newer = self.unserved.iter().filter(|unserved| unserved.is_newer());
        known.extend(newer.map(|unserved| (short(&unserved.id).to_owned(), unserved.id.clone())));
        let strays = names_in(self.home.run()).into_iter().filter(|name| name.len() == SHORT && is_id(name));
        join_all(strays.map(|name| self.clear_run(name, &known))).await;
        for unserved in &self.unserved {
            self.tell_unserved(unserved);
        }
        if fresh {
            put_aside(&self.home.containers());
        }
        for id in names_in(&self.home.containers()) {
            let served = self.containers_has(&id) || self.unserved.iter().any(|unserved| unserved.id == id);
            if is_id(&id) && !served {
                tracing::info!(id = short(&id), "removing what is left of a container");
                remove_dir(&self.home.containers().join(id));
            }
        }
        for name in names_in(&self.home.templates()) {
            if Path::new(&name).extension().is_some_and(|extension| extension == "tmp") {
                remove_file(&self.home.templates().join(name));
            }
        }
    }

    /// A run folder: ends who lives in it and should not, and removes it unless it is a known container's.
    async fn clear_run(&self, name: String, known: &BTreeMap<String, String>) {
        let dir = self.home.run().join(&name);
        let owner = known.get(&name);
        let resident = match runner::resident(&dir) {
            Ok(resident) => resident,
            Err(error) => return tracing::warn!(name, %error, "cannot see who lives in a run folder: left alone"),
        };
        if let Some(resident) = resident.filter(|resident| Some(resident) != owner) {
            tracing::warn!(vm = resident, "ending the VM of an unknown container");
            let handle = Handle::unverified(&dir, &resident);
            // Nobody waits for what is in it, everybody for the API.
            if tokio::time::timeout(GRACE, vm::retire(&handle)).await.is_err() {
                handle.kill().await;
            }
        }
        if owner.is_none() {
            remove_dir(&dir);
        }
    }

    fn tell_unserved(&self, unserved: &crate::store::Unserved) {
        let dir = self.home.container(&unserved.id);
        let (id, why) = (&unserved.id, &unserved.why);
        if is_id(id) && !unserved.is_newer() && !dir.exists() {
            tracing::warn!(id, %why, "a container without files is forgotten");
            if let Err(error) = self.store.drop_unserved(id) {
                tracing::error!(id, %error, "cannot forget it");
            }
            return;
        }
        tracing::error!(id, %why, files = %dir.display(), "a container is not served; its files are kept");
    }
}

/// The folder of all containers gets another name; `create` makes a new one.
fn put_aside(containers: &Path) {
    if names_in(containers).is_empty() {
        return;
    }
    let aside =
        (1..).map(|n| containers.with_file_name(format!("containers.lost-{n}"))).find(|p| !p.exists());
    let aside: PathBuf = aside.unwrap_or_default();
    let moved = fs::rename(containers, &aside).and_then(|()| fs::create_dir(containers));
    match moved {
        Ok(()) => {
            tracing::error!(to = %aside.display(), "the database is new, files of old containers are put aside");
        }
        Err(error) => tracing::error!(%error, "cannot put the files of old containers aside"),
    }
}

fn remove_file(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove a temporary file");
    }
}

fn names_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}
