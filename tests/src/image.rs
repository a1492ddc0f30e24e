//! Images made by hand: any layers, any configuration, as the archives that `docker load` reads.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::Result;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, Header};

/// An image: layer tars, lowest first, and what `docker inspect` shows under `Config`.
#[derive(Debug, Clone)]
pub struct Image {
    /// `busybox:latest`
    pub tag: String,
    /// Uncompressed tar files, lowest first.
    pub layers: Vec<PathBuf>,
    /// Docker's container configuration: `Cmd`, `Env`, `Volumes`, ...
    pub config: Value,
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Image {
    /// An image with docker's default PATH and `config` on top.
    #[must_use]
    pub fn new(tag: &str, layers: Vec<PathBuf>, config: &Value) -> Self {
        let mut all = json!({ "Env": [PATH] });
        if let (Some(all), Some(config)) = (all.as_object_mut(), config.as_object()) {
            all.extend(config.clone());
        }
        Self { tag: tag.to_owned(), layers, config: all }
    }

    fn config_blob(&self) -> Result<Vec<u8>> {
        let diff_ids = self.layers.iter().map(|layer| digest_file(layer)).collect::<Result<Vec<_>>>()?;
        let created = "2026-01-01T00:00:00Z";
        let history: Vec<_> = (0..diff_ids.len())
            .map(|n| json!({ "created": created, "created_by": format!("layer {n}") }))
            .collect();
        Ok(serde_json::to_vec(&json!({
            "architecture": "amd64", "os": "linux", "created": created, "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids }, "history": history,
        }))?)
    }

    /// Writes the archive `docker save` would write.
    ///
    /// # Errors
    /// When a layer cannot be read or the archive not be written.
    pub fn write_docker_archive(&self, path: &Path) -> Result<()> {
        let mut tar = Builder::new(File::create(path)?);
        let config = self.config_blob()?;
        let config_name = format!("{}.json", hex(&Sha256::digest(&config)));
        append(&mut tar, &config_name, &config)?;
        let mut names = Vec::new();
        for (n, layer) in self.layers.iter().enumerate() {
            let name = format!("{n}/layer.tar");
            tar.append_path_with_name(layer, &name)?;
            names.push(name);
        }
        let manifest = json!([{ "Config": config_name, "RepoTags": [self.tag], "Layers": names }]);
        append(&mut tar, "manifest.json", &serde_json::to_vec(&manifest)?)?;
        tar.into_inner()?.sync_all()?;
        Ok(())
    }

    /// Writes an OCI image layout as a tar, layers compressed with gzip.
    ///
    /// # Errors
    /// As [`Image::write_docker_archive`].
    pub fn write_oci_archive(&self, path: &Path) -> Result<()> {
        let mut tar = Builder::new(File::create(path)?);
        append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let mut layers = Vec::new();
        for layer in &self.layers {
            let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
            io::copy(&mut File::open(layer)?, &mut gz)?;
            let blob = gz.finish()?;
            layers.push(put_blob(&mut tar, "application/vnd.oci.image.layer.v1.tar+gzip", &blob)?);
        }
        let config = put_blob(&mut tar, "application/vnd.oci.image.config.v1+json", &self.config_blob()?)?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": layers,
        }))?;
        let mut manifest = put_blob(&mut tar, "application/vnd.oci.image.manifest.v1+json", &manifest)?;
        manifest["annotations"] =
            json!({ "io.containerd.image.name": format!("docker.io/library/{}", self.tag) });
        append(
            &mut tar,
            "index.json",
            &serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": [manifest] }))?,
        )?;
        tar.into_inner()?.sync_all()?;
        Ok(())
    }
}

fn put_blob(tar: &mut Builder<File>, media_type: &str, blob: &[u8]) -> Result<Value> {
    let hex = hex(&Sha256::digest(blob));
    append(tar, &format!("blobs/sha256/{hex}"), blob)?;
    Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": blob.len() }))
}

/// Appends a regular file owned by root with a fixed time.
///
/// # Errors
/// When the archive cannot be written.
pub fn append<W: Write>(tar: &mut Builder<W>, name: &str, data: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(1_700_000_000);
    tar.append_data(&mut header, name, data)
}

fn digest_file(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path)?;
    let mut chunk = vec![0; 1 << 16];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(format!("sha256:{}", hex(&hasher.finalize()))),
            n => hasher.update(&chunk[..n]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
