//! `docker load`: docker archives and OCI layouts, in one tar stream, compressed or not.

mod archive;
mod docker;
mod layout;

use std::{
    collections::HashMap,
    io::{Read, Seek, Write},
    sync::Arc,
};

use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncReadExt};

use self::archive::{Archive, Member};
use crate::{
    commit::{Committed, Ready, commit},
    compression::decompress,
    digest::Digest,
    disks::{Layer, plan},
    error::{Error, Result},
    image::Loaded,
    progress::{LayerProgress, Progress, ProgressEvent},
    pull::diff_ids,
    reference::Reference,
    store::Inner,
};

/// An image found in an archive; nothing of it is verified yet.
struct Found {
    config: String,
    /// Manifests and indexes, whose digests were verified.
    manifests: Vec<Vec<u8>>,
    layers: Vec<FoundLayer>,
    tags: Vec<Reference>,
    /// Digest by which the tags' repositories know it.
    digest: Option<Digest>,
}

struct FoundLayer {
    member: Member,
    /// Digest of the member, where the archive states one.
    digest: Option<Digest>,
}

/// Loads all images of an archive; an image is there once it is wholly there.
pub(crate) async fn load(
    inner: &Arc<Inner>,
    archive: impl AsyncRead + Send + Unpin,
    progress: Arc<dyn Progress>,
) -> Result<Vec<Loaded>> {
    let spool = spool(inner, archive).await?;
    let worker = Arc::clone(inner);
    let (archive, found) = tokio::task::spawn_blocking(move || {
        let (archive, found) = parse_archive(plain(&worker, spool)?)?;
        Ok::<_, Error>((Arc::new(archive), found))
    })
    .await??;
    let mut loaded = Vec::new();
    for image in found {
        match load_one(inner, &archive, image, &progress).await {
            Ok(more) => loaded.extend(more),
            Err(error) => {
                inner.forget_leftovers().await;
                return Err(error);
            }
        }
    }
    Ok(loaded)
}

fn parse_archive(plain: NamedTempFile) -> Result<(Archive, Vec<Found>)> {
    let archive = Archive::open(plain)?;
    let found =
        if archive.has("manifest.json") { docker::images(&archive)? } else { layout::images(&archive)? };
    Ok((archive, found))
}

/// Looks an archive through without taking anything from it, for fuzzing.
pub(crate) fn parse(plain: NamedTempFile) -> Result<()> {
    parse_archive(plain).map(drop)
}

/// Copies the stream to disk: an archive's index may come last.
async fn spool(inner: &Inner, mut archive: impl AsyncRead + Send + Unpin) -> Result<NamedTempFile> {
    let mut spool = inner.content.temporary()?;
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0u64;
    loop {
        let n = archive
            .read(&mut buffer)
            .await
            .map_err(|e| Error::InvalidParameter(format!("the upload broke off: {e}")))?;
        if n == 0 {
            return Ok(spool);
        }
        total += n as u64;
        if total > inner.max_image {
            return Err(too_large(inner));
        }
        // Page-cache writes: short enough to make here, between two reads from a socket.
        spool.write_all(&buffer[..n]).map_err(Error::io("write", spool.path()))?;
    }
}

/// The uncompressed archive.
fn plain(inner: &Inner, spool: NamedTempFile) -> Result<NamedTempFile> {
    let unreadable = |e: std::io::Error| Error::InvalidParameter(format!("cannot read the archive: {e}"));
    let mut file = spool.reopen().map_err(unreadable)?;
    let mut magic = [0; 6];
    let n = file.read(&mut magic).map_err(unreadable)?;
    file.rewind().map_err(unreadable)?;
    let is_compressed = matches!(
        &magic[..n],
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [b'B', b'Z', b'h', ..] | [0xfd, b'7', b'z', ..]
    );
    if !is_compressed {
        return Ok(spool);
    }
    let mut out = inner.content.temporary()?;
    let mut from = decompress(file).map_err(unreadable)?;
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0u64;
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok(out),
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(unreadable(e)),
        };
        total += n as u64;
        if total > inner.max_image {
            return Err(too_large(inner));
        }
        out.write_all(&buffer[..n]).map_err(Error::io("write", out.path()))?;
    }
}

fn too_large(inner: &Inner) -> Error {
    Error::InvalidParameter(format!(
        "the archive is larger than the {} bytes that an image may have",
        inner.max_image
    ))
}

async fn load_one(
    inner: &Arc<Inner>,
    archive: &Arc<Archive>,
    image: Found,
    progress: &Arc<dyn Progress>,
) -> Result<Vec<Loaded>> {
    let diff_ids = diff_ids(&image.config, image.layers.len())?;
    let disks = plan(&diff_ids, inner.max_disks);
    let id = Digest::of(image.config.as_bytes());
    let manifests: Vec<_> = image.manifests.iter().map(|bytes| Digest::of(bytes)).collect();
    let names = diff_ids.iter().chain(disks.iter().map(|d| &d.key)).chain(&manifests).chain([&id]);
    let mut leases = vec![inner.leases.take(names.cloned())];
    let state = inner.db.state();
    let mut layers = Vec::with_capacity(diff_ids.len());
    // One file may be named for every layer: it is taken once.
    let mut taken: HashMap<Member, Digest> = HashMap::new();
    for (found, diff_id) in image.layers.into_iter().zip(&diff_ids) {
        let known = state.layers.get(diff_id.as_str()).and_then(|known| known.blob.parse::<Digest>().ok());
        let known = known.filter(|blob| inner.content.size(blob).is_some());
        let member = found.member;
        let blob = match known.or_else(|| taken.get(&member).cloned()) {
            Some(blob) => blob,
            None => {
                // An uncompressed layer's blob has the diff ID; others get their lease once the name is known.
                leases.extend(found.digest.clone().map(|digest| inner.leases.take([digest])));
                let (worker, archive) = (Arc::clone(inner), Arc::clone(archive));
                let line = LayerProgress::new(progress, diff_id.as_str());
                let import = move || {
                    let total = found.member.size;
                    let reader = archive
                        .reader(&found.member)
                        .reporting(move |n| line.count("Loading layer", n, total));
                    worker.content.import(reader, found.digest.as_ref()).map(|(digest, _)| digest)
                };
                tokio::task::spawn_blocking(import).await??
            }
        };
        leases.push(inner.leases.take([blob.clone()]));
        taken.insert(member, blob.clone());
        layers.push(Layer { diff_id: diff_id.clone(), blob });
    }
    for disk in &disks {
        inner.disks.ensure(disk, layers[disk.layers.clone()].to_vec(), None).await?;
    }
    let mut references = image.tags.clone();
    for tag in image.tags.iter().filter(|_| image.digest.is_some()) {
        references.extend(image.digest.as_ref().map(|digest| tag.digested(digest.as_str())).transpose()?);
    }
    let ready = Ready { config: image.config, manifests, diff_ids, references };
    let worker = Arc::clone(inner);
    let committed = tokio::task::spawn_blocking(move || {
        for bytes in &image.manifests {
            worker.content.put(bytes)?;
        }
        worker.content.put(ready.config.as_bytes())?;
        commit(&worker.db, &ready)
    })
    .await??;
    drop(leases);
    Ok(announce(&committed, &image.tags, progress))
}

/// What `docker load` prints.
fn announce(committed: &Committed, tags: &[Reference], progress: &Arc<dyn Progress>) -> Vec<Loaded> {
    for (tag, old) in &committed.moved {
        progress.event(ProgressEvent::Stream(format!(
            "The image {} already exists, renaming the old one with ID {old} to empty string\n",
            tag.familiar()
        )));
    }
    let mut loaded: Vec<_> = tags.iter().map(|tag| Loaded::Tag(tag.familiar())).collect();
    if loaded.is_empty() {
        loaded.push(Loaded::Id(committed.id.clone()));
    }
    for image in &loaded {
        progress.event(ProgressEvent::Stream(match image {
            Loaded::Tag(tag) => format!("Loaded image: {tag}\n"),
            Loaded::Id(id) => format!("Loaded image ID: {id}\n"),
        }));
    }
    loaded
}
