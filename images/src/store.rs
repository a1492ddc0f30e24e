//! The store as a whole: where things are, and how it is opened.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use time::OffsetDateTime;
use tokio::io::AsyncRead;

use crate::{
    content::ContentStore,
    db::{Db, digests},
    disks::{DiskBuilder, Layer, lost, plan},
    error::{Error, Result},
    image::{
        ContainerUse, DiskUsage, HistoryEntry, Image, Loaded, PruneFilters, Pulled, RegistryAuth, Removed,
    },
    lease::Leases,
    load,
    progress::Progress,
    pull, query,
    reference::Reference,
    registry::{Downloads, Http},
    remove,
    sweep::{self, Keep},
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
    /// Largest image, in bytes of its blobs, and largest archive `load` takes, compressed or not.
    pub max_image: u64,
    /// How long whole blobs and disks of a pull that failed are kept for the next attempt.
    pub keep_leftovers: Duration,
    /// How many bytes of them, the newest first.
    pub max_leftovers: u64,
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
            max_image: 256 << 30,
            keep_leftovers: Duration::from_secs(24 * 3600),
            max_leftovers: 16 << 30,
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
    /// Time in which a download must bring [`Timeouts::least`] bytes: a server that drips one now and then is
    /// as good as dead.
    pub window: Duration,
    /// The least progress. An attempt that brings less counts as one without any.
    pub least: u64,
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
            window: Duration::from_secs(60),
            least: 64 << 10,
            backoff: Duration::from_secs(1),
            attempts: 5,
        }
    }
}

/// The image store. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

/// What all parts share.
pub(crate) struct Inner {
    pub(crate) db: Arc<Db>,
    pub(crate) content: Arc<ContentStore>,
    pub(crate) disks: Arc<DiskBuilder>,
    pub(crate) leases: Leases,
    pub(crate) http: Http,
    pub(crate) downloads: Downloads,
    pub(crate) max_disks: usize,
    pub(crate) leftovers: Keep,
    pub(crate) max_image: u64,
    pub(crate) max_layer: u64,
}

impl Inner {
    /// After a failed pull or load: bounds what such attempts leave. Its own failure is only told in the log.
    pub(crate) async fn forget_leftovers(self: &Arc<Self>) {
        let inner = Arc::clone(self);
        let swept =
            tokio::task::spawn_blocking(move || sweep::sweep(&inner, &sweep::Orphans::Stay, inner.leftovers));
        if let Err(error) = swept.await.unwrap_or_else(|e| Err(e.into())) {
            tracing::warn!(%error, "cannot remove what a failed pull left");
        }
    }
}

impl std::fmt::Debug for ImageStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageStore").finish_non_exhaustive()
    }
}

impl ImageStore {
    /// Opens or makes the store, and removes what an earlier crash left half-made.
    ///
    /// Blocking, short. Errors: the folder cannot be written, or another process holds the database.
    #[allow(clippy::needless_pass_by_value, reason = "options are made for one store")]
    pub fn open(options: Options) -> Result<Self> {
        let root = options.root.as_path();
        fs::create_dir_all(root).map_err(Error::io("make the folder", root))?;
        // The database first: its lock keeps a second daemon from emptying our temporary folder.
        let db = Arc::new(Db::open(&root.join("images.redb"))?);
        let content = Arc::new(ContentStore::open(root)?);
        let disks = Arc::new(DiskBuilder::open(root, options.limits, Arc::clone(&content), Arc::clone(&db))?);
        let inner = Inner {
            db,
            content,
            disks,
            leases: Leases::default(),
            http: Http::new(&options)?,
            downloads: Downloads::default(),
            max_disks: options.max_lower_disks.max(1),
            leftovers: Keep { age: options.keep_leftovers, bytes: options.max_leftovers },
            max_image: options.max_image,
            max_layer: options.limits.max_bytes,
        };
        let inner = Arc::new(inner);
        // Nobody needs it to start.
        if let Err(error) = sweep::sweep(&inner, &sweep::Orphans::Stay, inner.leftovers) {
            tracing::warn!(%error, "cannot remove what earlier pulls left");
        }
        Ok(Self { inner })
    }

    #[cfg(test)]
    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// Pulls an image, and makes its layer disks. `platform` is `os[/arch[/variant]]`.
    ///
    /// Dropping the future ends the pull; layers that are complete stay for the next one.
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: Option<&str>,
        auth: Option<RegistryAuth>,
        progress: Arc<dyn Progress>,
    ) -> Result<Pulled> {
        Box::pin(pull::pull(&self.inner, reference, platform, auth, progress)).await
    }

    /// Loads a docker or OCI archive, compressed or not.
    ///
    /// The end of `archive` must be its end of file: a caller that sees a cut upload must fail the read.
    pub async fn load(
        &self,
        archive: impl AsyncRead + Send + Unpin,
        progress: Arc<dyn Progress>,
    ) -> Result<Vec<Loaded>> {
        Box::pin(load::load(&self.inner, archive, progress)).await
    }

    /// Finds an image by name, digest, ID or ID prefix; `None` if there is none.
    pub fn find(&self, name_or_id: &str) -> Result<Option<Image>> {
        let state = self.inner.db.state();
        let id = query::resolve(&state, name_or_id)?;
        id.and_then(|id| Some((state.images.get(&id)?, id)))
            .map(|(record, id)| query::image(&state, &id, record))
            .transpose()
    }

    /// As [`ImageStore::find`], with dockerd's `No such image` error.
    pub fn get(&self, name_or_id: &str) -> Result<Image> {
        let id = query::resolve_existing(&self.inner.db.state(), name_or_id)?;
        self.find(&id)?.ok_or_else(|| Error::NotFound(format!("No such image: {name_or_id}")))
    }

    /// An image by its full ID, even if it was removed by force and lives on for a stopped container.
    pub fn get_for_container(&self, image_id: &str) -> Result<Image> {
        let state = self.inner.db.state();
        let record =
            state.record(image_id).ok_or_else(|| Error::NotFound(format!("No such image: {image_id}")))?;
        query::image(&state, image_id, record)
    }

    /// All images, newest first.
    pub fn list(&self) -> Result<Vec<Image>> {
        query::list(&self.inner.db.state())
    }

    /// Sets `repo:tag` on an image; returns the familiar form. `repo` may carry the tag itself; without any
    /// it is `latest`.
    pub fn tag(&self, image: &str, repo: &str, tag: &str) -> Result<String> {
        let named: Reference = repo.parse()?;
        if named.digest().is_some() {
            return Err(Error::InvalidParameter("refusing to create a tag with a digest reference".into()));
        }
        if named.familiar_name() == "sha256" {
            return Err(Error::InvalidParameter(
                "refusing to create an ambiguous tag using digest algorithm as name".into(),
            ));
        }
        let named = if tag.is_empty() { named.tag_or_latest() } else { named.tagged(tag)? };
        self.inner.db.update(|state| {
            let id = query::resolve_existing(state, image)?;
            if state.references.insert(named.to_string(), id.clone()).as_ref() != Some(&id)
                && let Some(record) = state.images.get_mut(&id)
            {
                Arc::make_mut(record).last_tag_time = Some(OffsetDateTime::now_utc());
            }
            Ok(())
        })?;
        Ok(named.familiar())
    }

    /// Removes a name or an image by dockerd's rules, and the content nothing else needs. Blocking.
    ///
    /// `in_use` tells which containers use an image, also of images that were removed by force. It is called
    /// while the store decides: it must not call the store.
    pub fn remove(
        &self,
        name_or_id: &str,
        force: bool,
        noprune: bool,
        in_use: &dyn Fn(&str) -> Vec<ContainerUse>,
    ) -> Result<Vec<Removed>> {
        let db = &self.inner.db;
        let records = db.update(|state| remove::remove(state, name_or_id, force, noprune, in_use))?;
        self.sweep(in_use)?;
        Ok(records)
    }

    /// Removes unused images; returns the records and the bytes reclaimed. Blocking; `in_use` as for
    /// [`ImageStore::remove`].
    pub fn prune(
        &self,
        dangling_only: bool,
        filters: &PruneFilters,
        in_use: &dyn Fn(&str) -> Vec<ContainerUse>,
    ) -> Result<(Vec<Removed>, u64)> {
        let pruned = self.inner.db.update(|state| remove::prune(state, dangling_only, filters, in_use))?;
        self.sweep(in_use)?;
        Ok(pruned)
    }

    fn sweep(&self, in_use: &dyn Fn(&str) -> Vec<ContainerUse>) -> Result<()> {
        sweep::sweep(&self.inner, &sweep::Orphans::Unless(in_use), Keep::NOTHING)
    }

    /// The image's history, newest first.
    pub fn history(&self, image: &str) -> Result<Vec<HistoryEntry>> {
        let image = self.get(image)?;
        Ok(query::history(&self.inner.db.state(), &image))
    }

    /// The EROFS disks of an image (full ID), lowest first, at most `max_lower_disks`; makes what is missing,
    /// once for all callers. An image without layers has no disks.
    pub async fn disks(&self, image_id: &str) -> Result<Vec<PathBuf>> {
        let inner = &self.inner;
        let state = inner.db.state();
        let record =
            state.record(image_id).ok_or_else(|| Error::NotFound(format!("No such image: {image_id}")))?;
        let diff_ids: Vec<_> = digests(&record.layers).collect();
        let plans = plan(&diff_ids, inner.max_disks);
        let _lease = inner.leases.take(diff_ids.iter().cloned().chain(plans.iter().map(|p| p.key.clone())));
        let mut paths = Vec::with_capacity(plans.len());
        for plan in &plans {
            let blob = |diff_id: &crate::digest::Digest| {
                let known = state.layers.get(diff_id.as_str()).and_then(|layer| layer.blob.parse().ok());
                known.ok_or_else(|| lost(diff_id))
            };
            let layers = diff_ids[plan.layers.clone()].iter();
            let layers = layers.map(|diff_id| Ok(Layer { diff_id: diff_id.clone(), blob: blob(diff_id)? }));
            paths.push(inner.disks.ensure(plan, layers.collect::<Result<_>>()?, None).await?);
        }
        Ok(paths)
    }

    /// What the images occupy. Blocking.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let state = self.inner.db.state();
        let (layers_size, shared) = query::shared_sizes(&state);
        let images = query::list(&state)?;
        let images = images.into_iter().map(|image| (shared.get(&image.id).copied().unwrap_or(0), image));
        let images = images.map(|(shared, image)| (image, shared)).collect();
        let host_bytes = folder_size(self.inner.content.folder())? + folder_size(&self.inner.disks.folder)?;
        Ok(DiskUsage { layers_size, images, host_bytes })
    }
}

fn folder_size(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        // A file may be deleted meanwhile.
        sum += entry.and_then(|entry| entry.metadata()).map_or(0, |metadata| metadata.len());
    }
    Ok(sum)
}
