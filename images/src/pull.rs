//! Pulls: resolve the name, download what lacks, make the disks, commit.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use crate::{
    commit::{Ready, commit},
    config::ImageConfig,
    digest::Digest,
    disks::{Layer, plan},
    error::{Error, Result},
    image::{Pulled, RegistryAuth},
    lease::Lease,
    manifest::{Descriptor, MAX_CONFIG, MAX_LAYERS, Manifest, Platform},
    progress::{LayerProgress, Progress, ProgressEvent},
    reference::Reference,
    registry::{Endpoint, Session, Wanted, translate},
    store::Inner,
};

/// An image whose manifest and configuration are here.
struct Resolved {
    session: Arc<Session>,
    /// Digest the reference stands for: of the index, if there is one.
    digest: Digest,
    manifests: Vec<Digest>,
    config: String,
    layers: Vec<(Layer, u64)>,
    _lease: Lease,
}

/// Pulls from the first endpoint that can; a mirror's failure is the next one's chance.
pub(crate) async fn pull(
    inner: &Arc<Inner>,
    reference: &Reference,
    platform: Option<&str>,
    auth: Option<RegistryAuth>,
    progress: Arc<dyn Progress>,
) -> Result<Pulled> {
    let reference = reference.tag_or_latest();
    let platform =
        platform.filter(|p| !p.is_empty()).map_or_else(|| Ok(Platform::host()), Platform::parse)?;
    for endpoint in inner.http.endpoints(&reference) {
        match pull_from(inner, &endpoint, &reference, &platform, auth.clone(), &progress).await {
            Err(error) if endpoint.mirror => {
                tracing::info!(mirror = ?endpoint.bases, %reference, %error, "the mirror did not serve, trying the next");
            }
            outcome => return outcome,
        }
    }
    Err(Error::System("no registry to try".into()))
}

async fn pull_from(
    inner: &Arc<Inner>,
    endpoint: &Endpoint,
    reference: &Reference,
    platform: &Platform,
    auth: Option<RegistryAuth>,
    progress: &Arc<dyn Progress>,
) -> Result<Pulled> {
    let resolved = resolve(inner, endpoint, reference, platform, auth, progress).await?;
    let id = Digest::of(resolved.config.as_bytes());
    let diff_ids: Vec<_> = resolved.layers.iter().map(|(layer, _)| layer.diff_id.clone()).collect();
    let complete = inner.db.state().images.contains_key(id.as_str())
        && plan(&diff_ids, inner.max_disks)
            .iter()
            .all(|p| inner.disks.exists(p, &diff_ids[p.layers.clone()]));
    if !complete {
        let mut outcome = fetch_layers(inner, &resolved, &diff_ids, progress).await;
        if let Err(Error::Damaged(why)) = &outcome {
            // The damaged blob is gone: now it is downloaded like any that lacks.
            tracing::warn!(why, %reference, "healing the store");
            outcome = fetch_layers(inner, &resolved, &diff_ids, progress).await;
        }
        if let Err(error) = outcome {
            drop(resolved);
            inner.forget_leftovers().await;
            return Err(error);
        }
    }
    let mut references = vec![reference.digested(resolved.digest.as_str())?];
    references.extend(reference.tag().filter(|_| reference.digest().is_none()).map(|_| reference.clone()));
    let ready = Ready { config: resolved.config, manifests: resolved.manifests, diff_ids, references };
    let worker = Arc::clone(inner);
    let committed = tokio::task::spawn_blocking(move || commit(&worker.db, &ready)).await??;
    progress.event(ProgressEvent::status(format!("Digest: {}", resolved.digest)));
    let familiar = reference.familiar();
    let status = if committed.changed { "Downloaded newer image" } else { "Image is up to date" };
    progress.event(ProgressEvent::status(format!("Status: {status} for {familiar}")));
    Ok(Pulled { id: committed.id, digest: resolved.digest.to_string(), familiar, changed: committed.changed })
}

/// Manifest, index and configuration.
async fn resolve(
    inner: &Arc<Inner>,
    endpoint: &Endpoint,
    reference: &Reference,
    platform: &Platform,
    auth: Option<RegistryAuth>,
    progress: &Arc<dyn Progress>,
) -> Result<Resolved> {
    let session =
        Session::open(&inner.http, endpoint, reference, auth).await.map_err(|f| translate(f, reference))?;
    let wanted = reference.digest().or(reference.tag()).unwrap_or("latest");
    let top = session.manifest(wanted).await.map_err(|f| translate(f, reference))?;
    progress.event(ProgressEvent::Status {
        status: format!("Pulling from {}", reference.path()),
        id: Some(wanted.to_owned()),
    });
    let mut raw = vec![top.bytes];
    let mut manifest = Manifest::parse(&raw[0], &top.content_type)?;
    let (config, layers) = loop {
        match manifest {
            Manifest::Image { config, layers } => break (config, layers),
            Manifest::Index(_) if raw.len() > 2 => {
                return Err(Error::Registry("the manifest lists are nested too deep".into()));
            }
            Manifest::Index(entries) => {
                let chosen = platform.choose(&entries)?;
                let digest = chosen.digest()?;
                let child = session.manifest(digest.as_str()).await.map_err(|f| translate(f, reference))?;
                if child.bytes.len() as u64 != chosen.size {
                    return Err(Error::Corrupt(format!(
                        "the manifest {digest} does not have its announced size"
                    )));
                }
                manifest = Manifest::parse(&child.bytes, &chosen.media_type)?;
                raw.push(child.bytes);
            }
        }
    };
    check_sizes(inner, &layers)?;
    let manifest_digests: Vec<_> = raw.iter().map(|bytes| Digest::of(bytes)).collect();
    let lease = inner.leases.take(manifest_digests.iter().cloned().chain([config.digest()?]));
    let worker = Arc::clone(inner);
    let stored = tokio::task::spawn_blocking(move || {
        raw.iter().map(|bytes| worker.content.put(bytes)).collect::<Result<Vec<_>>>()
    });
    let manifests = stored.await??;
    let config = fetch_config(inner, &session, &config).await?;
    let diff_ids = diff_ids(&config, layers.len())?;
    let mut pairs = Vec::with_capacity(layers.len());
    for (descriptor, diff_id) in layers.iter().zip(diff_ids) {
        pairs.push((Layer { diff_id, blob: descriptor.digest()? }, descriptor.size));
    }
    Ok(Resolved {
        session: Arc::new(session),
        digest: manifest_digests[0].clone(),
        manifests,
        config,
        layers: pairs,
        _lease: lease,
    })
}

/// Refuses what would not be taken anyway before a byte of it is downloaded.
fn check_sizes(inner: &Inner, layers: &[Descriptor]) -> Result<()> {
    for layer in layers {
        if layer.size > inner.max_layer {
            return Err(Error::InvalidParameter(format!(
                "the layer {} has {} bytes, which exceeds the limit of {}: if you trust the image, raise maxLayerSize in config.json and restart the daemon",
                layer.digest()?,
                layer.size,
                inner.max_layer
            )));
        }
    }
    let sum = layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
    if sum > inner.max_image {
        return Err(Error::InvalidParameter(format!(
            "the image has {sum} bytes; at most {} are taken",
            inner.max_image
        )));
    }
    Ok(())
}

async fn fetch_config(inner: &Arc<Inner>, session: &Session, config: &Descriptor) -> Result<String> {
    if config.size > MAX_CONFIG {
        return Err(Error::InvalidParameter(format!(
            "the image's configuration has {} bytes; at most {MAX_CONFIG} are supported",
            config.size
        )));
    }
    let wanted = Wanted { digest: config.digest()?, size: config.size };
    let silent: Arc<dyn Progress> = Arc::new(());
    let silent = LayerProgress::new(&silent, wanted.digest.as_str());
    inner.downloads.fetch(session, &inner.content, &wanted, &silent).await?;
    let bytes = inner.content.read(&wanted.digest)?;
    String::from_utf8(bytes)
        .map_err(|_| Error::InvalidParameter("the image's configuration is not text".into()))
}

/// The diff IDs of a configuration that fits this machine and has `layers` layers.
pub(crate) fn diff_ids(config: &str, layers: usize) -> Result<Vec<Digest>> {
    let parsed: ImageConfig = serde_json::from_str(config)
        .map_err(|e| Error::InvalidParameter(format!("invalid image configuration: {e}")))?;
    if !matches!(parsed.os.as_str(), "linux" | "") {
        return Err(Error::InvalidParameter(format!(
            "image operating system {:?} cannot be used on this platform",
            parsed.os
        )));
    }
    let found = parsed.rootfs.diff_ids;
    if found.len() > MAX_LAYERS {
        return Err(Error::InvalidParameter(format!(
            "the image has {} layers; at most {MAX_LAYERS} are supported",
            found.len()
        )));
    }
    if found.is_empty() && layers > 0 {
        return Err(Error::InvalidParameter(
            "invalid rootfs in image configuration: it is no container image".into(),
        ));
    }
    if found.len() != layers {
        return Err(Error::InvalidParameter(format!(
            "layers from manifest don't match image configuration: {layers} layers, {} diff IDs",
            found.len()
        )));
    }
    found.iter().map(|diff_id| diff_id.parse()).collect()
}

/// Downloads in parallel and unpacks in order, each disk as soon as its layers are here.
async fn fetch_layers(
    inner: &Arc<Inner>,
    resolved: &Resolved,
    diff_ids: &[Digest],
    progress: &Arc<dyn Progress>,
) -> Result<()> {
    let disks = plan(diff_ids, inner.max_disks);
    let names = resolved.layers.iter().flat_map(|(layer, _)| [layer.diff_id.clone(), layer.blob.clone()]);
    let _lease = inner.leases.take(names.chain(disks.iter().map(|disk| disk.key.clone())));
    let state = inner.db.state();
    let mut layers = Vec::with_capacity(diff_ids.len());
    let mut lacking = Vec::with_capacity(diff_ids.len());
    for (layer, size) in &resolved.layers {
        let line = LayerProgress::new(progress, layer.blob.as_str());
        // A layer known by its content is as good as the blob this registry has.
        let known =
            state.layers.get(layer.diff_id.as_str()).and_then(|known| known.blob.parse::<Digest>().ok());
        if let Some(blob) = known.filter(|blob| inner.content.size(blob).is_some()) {
            line.state("Already exists");
            layers.push(Layer { diff_id: layer.diff_id.clone(), blob });
            lacking.push(None);
        } else {
            line.state("Pulling fs layer");
            layers.push(layer.clone());
            lacking.push(Some((Wanted { digest: layer.blob.clone(), size: *size }, line)));
        }
    }
    // A failing or abandoned pull ends its downloads: the handles abort when they are dropped.
    let mut downloads: Vec<_> = lacking
        .into_iter()
        .map(|lack| {
            let (wanted, line) = lack?;
            let (inner, session) = (Arc::clone(inner), Arc::clone(&resolved.session));
            Some(AbortOnDropHandle::new(tokio::spawn(async move {
                inner.downloads.fetch(&session, &inner.content, &wanted, &line).await
            })))
        })
        .collect();
    for disk in disks {
        let mut new = Vec::new();
        for i in disk.layers.clone() {
            if let Some(download) = downloads[i].take() {
                download.await??;
                new.push(i);
            }
        }
        let sink = (!new.is_empty()).then(|| Arc::clone(progress));
        inner.disks.ensure(&disk, layers[disk.layers.clone()].to_vec(), sink).await?;
        for i in new {
            LayerProgress::new(progress, layers[i].blob.as_str()).state("Pull complete");
        }
    }
    Ok(())
}
