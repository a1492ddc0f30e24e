//! Layer disks: which EROFS images an image's layers become, and making them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    compression::decompress,
    content::{ContentStore, persist},
    db::{Db, LayerRecord},
    digest::{Digest, HashingReader, chain_id},
    error::{Error, Result},
    flight::Flights,
    progress::{LayerProgress, Progress},
};

/// A layer and the blob to unpack it from.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) diff_id: Digest,
    pub(crate) blob: Digest,
}

/// One disk of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What the disk is known by: a chain ID at the bottom, a diff ID above.
    pub(crate) key: Digest,
    /// The layers it holds.
    pub(crate) layers: Range<usize>,
    /// Nothing is below it.
    bottom: bool,
}

impl Plan {
    /// `chain-<hex>.erofs` or `layer-<hex>.erofs`: a layer at the bottom and above others gives two different
    /// disks, as whiteouts stay only in the latter.
    pub(crate) fn file_name(&self) -> String {
        format!("{}-{}.erofs", if self.bottom { "chain" } else { "layer" }, self.key.hex())
    }
}

/// The disks of a chain, lowest first, at most `max`: what is too much is merged at the bottom.
pub(crate) fn plan(diff_ids: &[Digest], max: usize) -> Vec<Plan> {
    let merged = diff_ids.len().saturating_sub(max.max(1) - 1).max(1);
    let Some(key) = chain_id(diff_ids.get(..merged).unwrap_or(diff_ids)) else { return Vec::new() };
    let bottom = Plan { key, layers: 0..merged, bottom: true };
    let above = diff_ids.iter().enumerate().skip(merged);
    let above = above.map(|(i, diff_id)| Plan { key: diff_id.clone(), layers: i..i + 1, bottom: false });
    std::iter::once(bottom).chain(above).collect()
}

/// Makes disks, each once.
pub(crate) struct DiskBuilder {
    pub(crate) folder: PathBuf,
    limits: diskimg::Limits,
    flights: Flights,
    content: Arc<ContentStore>,
    db: Arc<Db>,
}

impl DiskBuilder {
    pub(crate) fn open(
        root: &Path,
        limits: diskimg::Limits,
        content: Arc<ContentStore>,
        db: Arc<Db>,
    ) -> Result<Self> {
        let folder = root.join("disks");
        fs::create_dir_all(&folder).map_err(Error::io("make the folder", &folder))?;
        Ok(Self { folder, limits, flights: Flights::default(), content, db })
    }

    /// Whether the disk is there, whole, and its layers are known to have matched their diff IDs.
    pub(crate) fn exists(&self, plan: &Plan, layers: &[Digest]) -> bool {
        let state = self.db.state();
        let known = layers.iter().all(|diff_id| state.layers.contains_key(diff_id.as_str()));
        known && File::open(self.folder.join(plan.file_name())).is_ok_and(|file| diskimg::is_whole(&file))
    }

    /// Makes one disk of `layers` unless it exists; who comes second waits for the first. Ends soon after the
    /// caller goes away: a layer may be large, and the next caller starts again.
    pub(crate) async fn ensure(
        self: &Arc<Self>,
        plan: &Plan,
        layers: Vec<Layer>,
        progress: Option<Arc<dyn Progress>>,
    ) -> Result<PathBuf> {
        let path = self.folder.join(plan.file_name());
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        if self.exists(plan, &diff_ids) {
            return Ok(path);
        }
        let flight = self.flights.join(&plan.file_name());
        let gate = Arc::clone(&flight.gate).lock_owned().await;
        if self.exists(plan, &diff_ids) {
            return Ok(path);
        }
        let (builder, plan) = (Arc::clone(self), plan.clone());
        let caller = Caller::default();
        let gone = Arc::clone(&caller.gone);
        tokio::task::spawn_blocking(move || {
            let _held = (flight, gate);
            builder.build(&plan, &layers, progress.as_ref(), &gone).map(|()| path)
        })
        .await?
    }

    fn build(
        &self,
        plan: &Plan,
        layers: &[Layer],
        progress: Option<&Arc<dyn Progress>>,
        gone: &AtomicBool,
    ) -> Result<()> {
        let (file, temporary) = self.content.temporary()?.into_parts();
        let out = file.try_clone().map_err(Error::io("open", &temporary))?;
        let options = diskimg::Options { limits: self.limits, bottom: plan.bottom };
        let failed = |e| self.failed("make the disk", &plan.file_name(), e);
        let mut disk = diskimg::LayerDisk::create(out, options).map_err(failed)?;
        let mut records = BTreeMap::new();
        for layer in layers {
            let stats = self.apply(&mut disk, layer, progress, gone)?;
            let record = LayerRecord { blob: layer.blob.to_string(), size: stats.file_bytes };
            records.insert(layer.diff_id.to_string(), Arc::new(record));
        }
        disk.finish().map_err(failed)?;
        persist(&file, temporary, &self.folder.join(plan.file_name()))?;
        self.db.update(|state| {
            for (diff_id, record) in records {
                let known = state.layers.get(&diff_id).and_then(|known| known.blob.parse().ok());
                if known.is_none_or(|blob| self.content.size(&blob).is_none()) {
                    state.layers.insert(diff_id, record);
                }
            }
            Ok(())
        })
    }

    /// Unpacks one layer; its content must have the diff ID.
    fn apply(
        &self,
        disk: &mut diskimg::LayerDisk,
        layer: &Layer,
        progress: Option<&Arc<dyn Progress>>,
        gone: &AtomicBool,
    ) -> Result<diskimg::LayerStats> {
        let outcome = self.unpack(disk, layer, progress, gone);
        if let Err(Error::Corrupt(why)) = &outcome
            && !gone.load(Ordering::Relaxed)
            && self.content.remove_if_damaged(&layer.blob)?
        {
            return Err(Error::Damaged(format!(
                "the blob {} of this store was damaged and is removed: pull the image again ({why})",
                layer.blob
            )));
        }
        outcome
    }

    fn unpack(
        &self,
        disk: &mut diskimg::LayerDisk,
        layer: &Layer,
        progress: Option<&Arc<dyn Progress>>,
        gone: &AtomicBool,
    ) -> Result<diskimg::LayerStats> {
        let Some(total) = self.content.size(&layer.blob) else { return Err(lost(&layer.diff_id)) };
        let blob = Extracting {
            file: self.content.open_blob(&layer.blob)?,
            current: 0,
            total,
            progress: progress.map(|sink| LayerProgress::new(sink, layer.blob.as_str())),
        };
        let failed = |e| self.failed("register layer", layer.diff_id.as_str(), e);
        let tar = decompress(blob).map_err(|cause| failed(diskimg::Error::Read { offset: 0, cause }))?;
        let mut tar = HashingReader::new(Watched { inner: tar, gone });
        // Reads to the stream's end: what lies behind the archive's belongs to the diff ID too.
        let stats = disk.apply(&mut tar).map_err(failed)?;
        let found = tar.digest();
        if found != layer.diff_id {
            return Err(Error::Corrupt(format!(
                "failed to register layer {}: layers from manifest don't match image configuration: the content has the digest {found}",
                layer.diff_id
            )));
        }
        Ok(stats)
    }

    /// What a failure of the writer says of the layer, of this host, or of the configured limits.
    fn failed(&self, doing: &str, what: &str, error: diskimg::Error) -> Error {
        use diskimg::Bound;
        match error {
            diskimg::Error::Io { doing: step, cause } => Error::Io {
                context: format!(
                    "failed to {doing} {what}: cannot {step} in {}",
                    self.content.tmp().display()
                ),
                source: cause,
            },
            diskimg::Error::Limit { what: bound, .. } => {
                let key = if bound == Bound::Bytes { "maxLayerSize" } else { "maxLayerFiles" };
                Error::InvalidParameter(format!(
                    "failed to {doing} {what}: {error}: if you trust the image, raise {key} in config.json and restart the daemon"
                ))
            }
            _ => Error::Corrupt(format!("failed to {doing} {what}: {error}")),
        }
    }
}

/// Neither the disk nor the blob it was made from are here any more.
pub(crate) fn lost(diff_id: &Digest) -> Error {
    Error::Damaged(format!("the content of layer {diff_id} is lost: pull or load the image again"))
}

/// Tells the work that nobody waits for it.
#[derive(Default)]
struct Caller {
    gone: Arc<AtomicBool>,
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

/// Ends when nobody waits for what is read.
struct Watched<'a, R> {
    inner: R,
    gone: &'a AtomicBool,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(io::Error::other("the request was given up"));
        }
        self.inner.read(buf)
    }
}

/// Tells how much of the blob is unpacked.
struct Extracting {
    file: File,
    current: u64,
    total: u64,
    progress: Option<LayerProgress>,
}

impl Read for Extracting {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buf)?;
        self.current += n as u64;
        if let Some(progress) = self.progress.as_ref().filter(|_| n > 0) {
            progress.count("Extracting", self.current, self.total);
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_chains_merge_at_the_bottom() {
        let ids: Vec<_> = (0..127u32).map(|n| Digest::of(&n.to_le_bytes())).collect();
        let disks = plan(&ids, 8);
        assert_eq!(disks.len(), 8);
        assert_eq!(disks[0].layers, 0..120);
        assert_eq!(disks[7].layers, 126..127);
        assert!(disks[0].file_name().starts_with("chain-") && disks[1].file_name().starts_with("layer-"));
        assert_eq!(plan(&ids[..8], 8).len(), 8);
        assert_eq!(plan(&ids[..8], 8)[0].layers, 0..1);
        assert_eq!(plan(&ids, 1), plan(&ids, 0));
        assert_eq!(plan(&ids, 1)[0].layers, 0..127);
        assert_eq!(plan(&[], 8), []);
    }
}
