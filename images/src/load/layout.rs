//! The OCI image layout (image-spec `image-layout.md`): `index.json` and blobs by digest.

use super::{
    Found, FoundLayer,
    archive::{Archive, MAX_IMAGES, invalid},
};
use crate::{
    digest::Digest,
    error::{Error, Result},
    manifest::{Descriptor, MAX_CONFIG, MAX_MANIFEST, Manifest, Platform},
    reference::Reference,
};

/// containerd's annotation: the whole name.
const FULL_NAME: &str = "io.containerd.image.name";
/// The spec's annotation: by some tools the whole name, by others only the tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

pub(super) fn images(archive: &Archive) -> Result<Vec<Found>> {
    if !archive.has("index.json") {
        return Err(invalid(if archive.has("repositories") {
            "docker's version 1 format is not supported: save it with docker 1.10 or newer"
        } else {
            "neither manifest.json (docker archive) nor index.json (OCI layout) is in it"
        }));
    }
    let index = Manifest::parse(&archive.read("index.json", MAX_MANIFEST)?, "")?;
    let Manifest::Index(entries) = index else { return Err(invalid("index.json is no index")) };
    if entries.len() > MAX_IMAGES {
        return Err(invalid(&format!("it holds more than {MAX_IMAGES} images")));
    }
    let mut found: Vec<Found> = Vec::new();
    for entry in entries {
        let (name, digest) = (name(&entry)?, entry.digest()?);
        // One image under several names has one entry for each.
        match found.iter_mut().find(|other| other.digest.as_ref() == Some(&digest)) {
            Some(known) => known.tags.extend(name),
            None => {
                let mut image = image(archive, &entry)?;
                image.tags.extend(name);
                found.push(image);
            }
        }
    }
    Ok(found)
}

/// The entry's name; a bare tag names nothing.
fn name(entry: &Descriptor) -> Result<Option<Reference>> {
    let annotation = |key| entry.annotations.as_ref().and_then(|all| all.get(key));
    let text =
        annotation(FULL_NAME).or_else(|| annotation(REF_NAME).filter(|text| text.contains(['/', ':'])));
    let Some(text) = text else { return Ok(None) };
    let name = text.parse::<Reference>()?.tag_or_latest();
    // A digest beside the tag repeats what the descriptor states.
    name.tag().map(|tag| name.tagged(tag)).transpose()
}

fn image(archive: &Archive, entry: &Descriptor) -> Result<Found> {
    let mut bytes = blob(archive, entry, MAX_MANIFEST)?;
    let mut manifest = Manifest::parse(&bytes, &entry.media_type)?;
    let mut manifests = Vec::new();
    loop {
        manifests.push(bytes);
        match manifest {
            Manifest::Index(_) if manifests.len() > 2 => {
                return Err(invalid("its indexes are nested too deep"));
            }
            Manifest::Index(entries) => {
                let chosen = Platform::host().choose(&entries)?;
                bytes = blob(archive, chosen, MAX_MANIFEST)?;
                manifest = Manifest::parse(&bytes, &chosen.media_type)?;
            }
            Manifest::Image { config, layers } => {
                let config = String::from_utf8(blob(archive, &config, MAX_CONFIG)?)
                    .map_err(|_| invalid("a configuration is not text"))?;
                let layers = layers.iter().map(|layer| {
                    let digest = layer.digest()?;
                    let member = archive.member(&path(&digest))?;
                    if member.size != layer.size {
                        return Err(invalid(&format!("the layer {digest} does not have its stated size")));
                    }
                    Ok(FoundLayer { member, digest: Some(digest) })
                });
                let layers = layers.collect::<Result<_>>()?;
                return Ok(Found {
                    config,
                    manifests,
                    layers,
                    tags: Vec::new(),
                    digest: Some(entry.digest()?),
                });
            }
        }
    }
}

/// A small blob, its digest verified.
fn blob(archive: &Archive, descriptor: &Descriptor, max: u64) -> Result<Vec<u8>> {
    let digest = descriptor.digest()?;
    let bytes = archive.read(&path(&digest), max)?;
    if Digest::of(&bytes) != digest {
        return Err(Error::Corrupt(format!("the archive's blob {digest} does not have this digest")));
    }
    Ok(bytes)
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
