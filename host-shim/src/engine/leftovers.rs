//! At the daemon's start: what no record names, because a crash cut what made or removed it, is ended and cleared away.
//!
//! Only what certainly nobody wants is removed. Files of a container that had a VM may be all that somebody has: the database
//! may be new, or an old one put back. They are put aside.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use runner::Handle;

use super::{Engine, create::remove_dir, record::short, vm};
use crate::{error::Result, home::unusable, store::stored::is_id};

/// Time the VM of an unknown container has to power off.
const GRACE: Duration = Duration::from_secs(3);
/// Digits of an id that name a VM's run folder.
const SHORT: usize = 12;

/// What is there before anybody is served: later, folders of new containers look alike.
#[derive(Debug)]
pub(crate) struct Leftovers {
    /// By folder of their VMs: who must be left alone.
    known: BTreeMap<String, String>,
    /// Run folders.
    runs: Vec<String>,
    /// Folders of containers that no record names.
    folders: Vec<PathBuf>,
}

impl Engine {
    /// Looks for them, and tells of containers that are not served.
    pub(crate) fn leftovers(&self) -> Leftovers {
        for unserved in &self.unserved {
            self.tell_unserved(unserved);
        }
        let mut known: BTreeMap<String, String> =
            self.all().iter().map(|c| (short(&c.id).to_owned(), c.id.clone())).collect();
        let newer = self.unserved.iter().filter(|unserved| unserved.is_newer());
        known.extend(newer.map(|unserved| (short(&unserved.id).to_owned(), unserved.id.clone())));
        let runs = names_in(self.home.run()).into_iter().filter(|name| name.len() == SHORT && is_id(name));
        let is_unknown = |id: &String| {
            let served = self.containers_has(id) || self.unserved.iter().any(|unserved| unserved.id == *id);
            is_id(id) && !served
        };
        let folders = names_in(&self.home.containers()).into_iter().filter(is_unknown);
        let folders = folders.map(|id| self.home.container(&id)).collect();
        Leftovers { known, runs: runs.collect(), folders }
    }

    /// Ends runners of unknown containers, then clears away the folders and temporary files that nobody will ask for again.
    pub(crate) async fn clear_leftovers(self: Arc<Self>, leftovers: Leftovers) {
        let Leftovers { known, runs, folders } = leftovers;
        join_all(runs.into_iter().map(|name| self.clear_run(name, &known))).await;
        let engine = self.clone();
        let cleared = tokio::task::spawn_blocking(move || engine.clear_files(folders)).await;
        if let Err(error) = cleared {
            tracing::error!(%error, "the task that clears files away was lost");
        }
    }

    fn clear_files(&self, folders: Vec<PathBuf>) {
        let (unmade, used): (Vec<_>, Vec<_>) = folders.into_iter().partition(|dir| is_half_made(dir));
        for dir in unmade {
            tracing::info!(dir = %dir.display(), "removing what is left of a container that was being made");
            remove_dir(&dir);
        }
        if !used.is_empty() {
            let aside = lost(&self.home.containers());
            match move_into(&used, &aside) {
                Ok(()) => tracing::error!(
                    to = %aside.display(), containers = used.len(),
                    "files of containers that the database does not name are put aside"
                ),
                Err(error) => tracing::error!(
                    %error, "cannot put files of containers aside that the database does not name: they stay"
                ),
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
            Err(error) => {
                return tracing::warn!(name, %error, "cannot see who lives in a run folder: left alone");
            }
        };
        if let Some(resident) = resident.filter(|resident| Some(resident) != owner) {
            tracing::warn!(vm = resident, "ending the VM of an unknown container");
            let handle = Handle::unverified(&dir, &resident);
            // Nobody waits for what is in it.
            if tokio::time::timeout(GRACE, vm::retire(&handle)).await.is_err() {
                handle.kill().await;
            }
        }
        if owner.is_none() {
            remove_free(&dir);
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

/// Removes a run folder in which nobody lives; whether it was so. The lock in it is all that keeps a second VM from the disks of
/// a runner that does not die (one that hangs in the kernel).
pub(crate) fn remove_free(run_dir: &Path) -> bool {
    match runner::resident(run_dir) {
        Ok(None) => {
            remove_dir(run_dir);
            true
        }
        resident => {
            tracing::debug!(dir = %run_dir.display(), ?resident, "a run folder is still in use");
            false
        }
    }
}

/// Whether this is no more than what `create` makes before there is a record: nothing of value was ever in it.
fn is_half_made(dir: &Path) -> bool {
    let Ok(mut entries) = fs::read_dir(dir) else { return false };
    let disk = vm::disk_path(dir);
    entries.all(|entry| entry.is_ok_and(|entry| entry.path() == disk))
}

/// The first free name for what is put aside.
fn lost(containers: &Path) -> PathBuf {
    let mut names = (1_u64..).map(|n| containers.with_file_name(format!("containers.lost-{n}")));
    names.find(|path| fs::symlink_metadata(path).is_err()).unwrap_or_default()
}

fn move_into(folders: &[PathBuf], aside: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(aside)?;
    for dir in folders {
        fs::rename(dir, aside.join(dir.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// There is no database: the folder of all containers gets another name, and a new one is made. Before there is a database, so
/// that a kill at any instant leaves either the old folder and no database, or nothing that no record names.
///
/// # Errors
/// When that cannot be done; without it, all of it would be taken for leftovers.
pub(crate) fn put_aside(containers: &Path) -> Result<()> {
    if names_in(containers).is_empty() {
        return Ok(());
    }
    let aside = lost(containers);
    let moved = fs::rename(containers, &aside)
        .and_then(|()| DirBuilder::new().mode(0o700).create(containers))
        .and_then(|()| File::open(containers.parent().unwrap_or(Path::new(".")))?.sync_all());
    moved.map_err(|error| unusable(containers, error))?;
    tracing::error!(to = %aside.display(), "there is no database: files of old containers are put aside");
    Ok(())
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
