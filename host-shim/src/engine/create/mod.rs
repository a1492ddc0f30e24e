//! `create`: from a request to a container that could be started.

pub mod adapt;
pub mod body;
pub mod env;
pub mod merge;
pub mod validate;

use std::{fs::File, path::Path, sync::Arc};

use images::Image;

pub use body::Body;

use super::{
    Engine, clock,
    container::Container,
    names,
    record::{Record, State, VERSION, short},
    vm,
};
use crate::{
    error::{Error, Result},
    store::Refused,
};

/// How many random names are tried, with more digits each time.
const NAME_TRIES: u32 = 6;

/// The answer to a create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Id of the container.
    pub id: String,
    /// For the user.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Makes a container: validates, merges with the image, makes its disk, takes its name. All or nothing: what a crash
    /// leaves half-made is a folder that no record names, which the next start of the daemon removes.
    ///
    /// # Errors
    /// 400 for what dockerd refuses, 404 for an unknown image, 409 for a taken name, 501 for what is to come.
    pub async fn create(self: &Arc<Self>, name: Option<&str>, body: Body) -> Result<Created> {
        let Body { mut config, mut host, networking } = body;
        let name = name.map(validate::name).transpose()?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        validate::settings(&config, &host, cores)?;
        let image = self.image(&config.image)?;
        if let Some(taken) = name.and_then(|name| self.owner_of(name)) {
            return Err(conflict(name.unwrap_or_default(), &taken));
        }
        let args = merge::merge(&mut config, &image.config.config)?;
        let warnings = adapt::adapt(&mut host);
        let id = self.new_id();
        if config.hostname.is_empty() {
            short(&id).clone_into(&mut config.hostname);
        }
        let record = Record {
            version: VERSION,
            id: id.clone(),
            name: name.map_or_else(|| names::random(0), str::to_owned),
            created: clock::now(),
            image_id: image.id.clone(),
            platform: if image.config.os.is_empty() { "linux".into() } else { image.config.os.clone() },
            args,
            config,
            host,
            networking,
            state: State::default(),
            restart_count: 0,
            manually_stopped: false,
        };
        let dir = self.home.container(&id);
        let (templates, made) = (self.home.templates(), dir.clone());
        let disk = tokio::task::spawn_blocking(move || make_disk(&templates, &made)).await;
        let disk = disk.map_err(|error| Error::system("the task that makes disks was lost").because(error));
        if let Err(error) = disk.and_then(|made| made) {
            remove_dir(&dir);
            return Err(error);
        }
        let record = match self.store_new(record, name.is_some()).await {
            Ok(record) => record,
            Err(error) => {
                remove_dir(&dir);
                return Err(error);
            }
        };
        let container = Container::new(record);
        self.insert(container.clone());
        self.events.publish(container.event("create"));
        Ok(Created { id, warnings })
    }

    /// The image, with dockerd's wording when it is missing (the CLI pulls on this 404).
    fn image(&self, name: &str) -> Result<Image> {
        if name.is_empty() {
            return Err(Error::invalid("no image specified"));
        }
        self.images.get(name).map_err(Into::into)
    }

    /// An id whose short form, the name of its VM's folder, is nobody else's.
    fn new_id(&self) -> String {
        loop {
            let id = names::id();
            let unserved = self.unserved.iter().map(|unserved| &unserved.id);
            if self.find(short(&id)).is_err() && !unserved.clone().any(|other| short(other) == short(&id)) {
                return id;
            }
        }
    }

    fn owner_of(&self, name: &str) -> Option<String> {
        self.all()
            .iter()
            .find(|container| container.record().name == name)
            .map(|container| container.id.clone())
    }

    /// Writes the record; a random name that is taken gives way to another.
    async fn store_new(&self, mut record: Record, named: bool) -> Result<Record> {
        for attempt in 1.. {
            let copy = record.clone();
            match self.in_store(move |store| store.insert(&copy)).await {
                Ok(()) => break,
                Err(Refused::NameTaken(_)) if !named && attempt < NAME_TRIES => {
                    record.name = names::random(attempt);
                }
                Err(refused) => return Err(taken(refused, &record.name)),
            }
        }
        Ok(record)
    }
}

/// The error for a name that another container has.
pub(crate) fn taken(refused: Refused, name: &str) -> Error {
    match refused {
        Refused::NameTaken(owner) => conflict(name, &owner),
        Refused::Failed(error) => error,
    }
}

fn conflict(name: &str, owner: &str) -> Error {
    Error::conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or rename) \
         that container to be able to reuse that name."
    ))
}

/// Makes a container's folder with its disk, durably: no record may outlive a power cut that its disk did not.
fn make_disk(templates: &Path, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let failed =
        |error: diskimg::Error| Error::system(format!("make the container's disk: {error}")).because(error);
    let template = diskimg::ext4_template(templates, diskimg::DEFAULT_SIZE).map_err(failed)?;
    let disk = vm::disk_path(dir);
    diskimg::clone_sparse(&template, &disk).map_err(failed)?;
    for path in [disk.as_path(), dir].into_iter().chain(dir.parent()) {
        File::open(path)?.sync_all()?;
    }
    Ok(())
}

/// Removes a container's folder; what cannot be removed is left for the next start of the daemon.
pub(crate) fn remove_dir(dir: &Path) {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(dir = %dir.display(), %error, "cannot remove a container's folder");
        }
        _ => {}
    }
}
