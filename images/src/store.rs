//! The store as a whole: where things are, and how it is opened.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::io::AsyncRead;

use crate::{
    error::{Error, Result},
    image::{
        ContainerUse, DiskUsage, HistoryEntry, Image, Loaded, PruneFilters, Pulled, RegistryAuth, Removed,
    },
    progress::Progress,
    reference::Reference,
};

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder that holds everything; made if absent.
    pub root: PathBuf,
    /// Base URLs tried in order before Docker Hub, for `docker.io` only: `http://127.0.0.1:5000`.
    pub mirrors: Vec<String>,
    /// `host:port`, `host` or CIDR of registries reached by http or with any certificate.
    pub insecure_registries: Vec<String>,
    /// Upper bounds of one layer disk.
    pub limits: diskimg::Limits,
    /// Most disks one image may have; at least 1. Longer chains are merged from the bottom.
    pub max_lower_disks: usize,
    /// Deadlines of the registry client.
    pub timeouts: Timeouts,
    /// Largest archive `load` takes, in bytes, compressed or not.
    pub max_archive: u64,
}

impl Options {
    /// The defaults for a store in `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            mirrors: Vec::new(),
            insecure_registries: Vec::new(),
            limits: diskimg::Limits::default(),
            max_lower_disks: 8,
            timeouts: Timeouts::default(),
            max_archive: 256 << 30,
        }
    }
}

/// Deadlines of the registry client.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Connecting, TLS included.
    pub connect: Duration,
    /// A whole request for a manifest or token.
    pub request: Duration,
    /// Time without a byte after which a download is cut and resumed.
    pub stall: Duration,
    /// First wait before a retry; doubled each time.
    pub backoff: Duration,
    /// Attempts of one download without a byte of progress.
    pub attempts: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            request: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            backoff: Duration::from_secs(1),
            attempts: 5,
        }
    }
}

/// The image store. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct ImageStore;

impl ImageStore {
    /// Opens or makes the store, and removes what an earlier crash left half-made.
    ///
    /// Blocking, short. Errors: the folder cannot be written, or another process holds the database.
    pub fn open(options: Options) -> Result<Self> {
        let _ = options;
        Ok(Self)
    }

    /// Pulls an image, and makes its layer disks. `platform` is `os[/arch[/variant]]`.
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: Option<&str>,
        auth: Option<RegistryAuth>,
        progress: Arc<dyn Progress>,
    ) -> Result<Pulled> {
        let _ = (reference, platform, auth, progress);
        Err(Error::System("pull is not built yet".into()))
    }

    /// Loads a docker or OCI archive, compressed or not.
    pub async fn load(
        &self,
        archive: impl AsyncRead + Send + Unpin,
        progress: Arc<dyn Progress>,
    ) -> Result<Vec<Loaded>> {
        let _ = (archive, progress);
        Err(Error::System("load is not built yet".into()))
    }

    /// Finds an image by name, digest, ID or ID prefix; `None` if there is none.
    pub fn find(&self, name_or_id: &str) -> Result<Option<Image>> {
        let _ = name_or_id;
        Ok(None)
    }

    /// As [`ImageStore::find`], with dockerd's `No such image` error.
    pub fn get(&self, name_or_id: &str) -> Result<Image> {
        self.find(name_or_id)?.ok_or_else(|| Error::NotFound(format!("No such image: {name_or_id}")))
    }

    /// All images, newest first.
    pub fn list(&self) -> Result<Vec<Image>> {
        Ok(Vec::new())
    }

    /// Sets `repo:tag` (`latest` if `tag` is empty) on an image; returns the familiar form.
    pub fn tag(&self, image: &str, repo: &str, tag: &str) -> Result<String> {
        let _ = (image, repo, tag);
        Err(Error::System("tag is not built yet".into()))
    }

    /// Removes a name or an image by dockerd's rules.
    pub fn remove(
        &self,
        name_or_id: &str,
        force: bool,
        noprune: bool,
        in_use: &dyn Fn(&str) -> Vec<ContainerUse>,
    ) -> Result<Vec<Removed>> {
        let _ = (name_or_id, force, noprune, in_use);
        Err(Error::System("remove is not built yet".into()))
    }

    /// Removes unused images; returns the records and the bytes reclaimed.
    pub fn prune(
        &self,
        dangling_only: bool,
        filters: &PruneFilters,
        in_use: &dyn Fn(&str) -> Vec<ContainerUse>,
    ) -> Result<(Vec<Removed>, u64)> {
        let _ = (dangling_only, filters, in_use);
        Ok((Vec::new(), 0))
    }

    /// The image's history, newest first.
    pub fn history(&self, image: &str) -> Result<Vec<HistoryEntry>> {
        let _ = image;
        Ok(Vec::new())
    }

    /// The EROFS disks of an image, lowest first; makes what is missing.
    pub async fn disks(&self, image_id: &str) -> Result<Vec<PathBuf>> {
        let _ = image_id;
        Err(Error::System("disks is not built yet".into()))
    }

    /// What the images occupy.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        Ok(DiskUsage { layers_size: 0, images: Vec::new(), host_bytes: 0 })
    }
}
