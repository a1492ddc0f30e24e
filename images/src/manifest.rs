//! Manifests and indexes: docker's schema 2 and OCI, which differ only in media types.

use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    error::{Error, Result},
};

pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// What a manifest request accepts.
pub(crate) const ACCEPT: [&str; 4] = [DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX];

/// Largest manifest or index taken, in bytes; registries cap them at 4 MiB.
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;
/// Largest configuration taken, in bytes.
pub(crate) const MAX_CONFIG: u64 = 4 << 20;
/// Most layers of one image; docker's own limit is 127.
pub(crate) const MAX_LAYERS: usize = 1000;

/// A pointer to content.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Descriptor {
    #[serde(rename = "mediaType", default)]
    pub(crate) media_type: String,
    digest: String,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<PlatformField>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<std::collections::BTreeMap<String, String>>,
}

impl Descriptor {
    pub(crate) fn digest(&self) -> Result<Digest> {
        self.digest.parse()
    }
}

/// `platform` of a descriptor.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct PlatformField {
    pub(crate) architecture: String,
    pub(crate) os: String,
    pub(crate) variant: String,
}

/// What a tag or digest names.
#[derive(Debug, Clone)]
pub(crate) enum Manifest {
    /// One image.
    Image { config: Descriptor, layers: Vec<Descriptor> },
    /// Images for several platforms.
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "schemaVersion", default)]
    schema_version: u32,
    #[serde(rename = "mediaType", default)]
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

impl Manifest {
    /// Reads a manifest or index. `content_type` is the registry's or the descriptor's word; the body's own
    /// `mediaType` must agree, and a body that could be read both ways is refused (CVE-2021-41190).
    pub(crate) fn parse(bytes: &[u8], content_type: &str) -> Result<Self> {
        let content_type = content_type.split(';').next().unwrap_or("").trim();
        if content_type.starts_with("application/vnd.docker.distribution.manifest.v1") {
            return Err(schema1());
        }
        let wire: Wire = serde_json::from_slice(bytes).map_err(|e| {
            Error::Registry(format!("error unmarshalling content: the manifest is not valid: {e}"))
        })?;
        if wire.schema_version == 1 {
            return Err(schema1());
        }
        if let Some(own) =
            wire.media_type.as_deref().filter(|own| ACCEPT.contains(&content_type) && *own != content_type)
        {
            return Err(Error::Registry(format!(
                "mediaType in manifest should be {content_type:?} not {own:?}"
            )));
        }
        match (wire.config, wire.layers, wire.manifests) {
            (Some(config), Some(layers), None) if layers.len() <= MAX_LAYERS => {
                Ok(Self::Image { config, layers })
            }
            (Some(_), Some(layers), None) => Err(Error::InvalidParameter(format!(
                "the image has {} layers; at most {MAX_LAYERS} are supported",
                layers.len()
            ))),
            (None, None, Some(manifests)) => Ok(Self::Index(manifests)),
            _ => Err(Error::Registry(
                "unsupported manifest: expected a docker schema 2 or OCI manifest or index".into(),
            )),
        }
    }
}

fn schema1() -> Error {
    Error::InvalidParameter(
        "[DEPRECATION NOTICE] Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed. \
         Ask the author of the image to upgrade it to the OCI Format or Docker Image manifest v2, schema 2"
            .into(),
    )
}

/// A platform an image is chosen for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Platform {
    os: String,
    architecture: String,
    variant: String,
}

impl Platform {
    /// Linux on this machine's processor: VMs run what the host runs.
    pub(crate) fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: String::new() }
    }

    /// `os[/arch[/variant]]` or `arch[/variant]`, with the usual aliases; missing parts are the host's.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let invalid = || {
            Error::InvalidParameter(format!(
                "{text:?} is an invalid platform: expected os[/arch[/variant]], such as linux/amd64"
            ))
        };
        let word = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let parts: Vec<String> = text.to_lowercase().split('/').map(str::to_owned).collect();
        if parts.len() > 3 || !parts.iter().all(|part| word(part)) {
            return Err(invalid());
        }
        let host = Self::host();
        let (os, architecture, variant) = match parts.as_slice() {
            [os] if matches!(os.as_str(), "linux" | "windows" | "darwin" | "freebsd") => {
                (os.clone(), host.architecture, String::new())
            }
            [architecture] => (host.os, architecture.clone(), String::new()),
            [os, architecture] => (os.clone(), architecture.clone(), String::new()),
            [os, architecture, variant] => (os.clone(), architecture.clone(), variant.clone()),
            _ => return Err(invalid()),
        };
        let (architecture, variant) = normalise(&architecture, &variant);
        Ok(Self { os, architecture, variant })
    }

    /// The best of the index's images: the exact variant, else the baseline one.
    pub(crate) fn choose<'a>(&self, manifests: &'a [Descriptor]) -> Result<&'a Descriptor> {
        let rank = |descriptor: &Descriptor| {
            let platform = descriptor.platform.as_ref()?;
            let (architecture, variant) = normalise(&platform.architecture, &platform.variant);
            if platform.os != self.os || architecture != self.architecture {
                return None;
            }
            if variant == self.variant {
                return Some(0);
            }
            // 32-bit ARM runs older variants; amd64's v2 and v3 and anything else need the exact variant.
            let older = |v: &str| v.strip_prefix('v').and_then(|n| n.parse::<u32>().ok());
            match (architecture.as_str(), older(&variant), older(&self.variant)) {
                ("arm", Some(theirs), Some(ours)) if theirs < ours => Some(ours - theirs),
                _ if variant.is_empty() => Some(100),
                _ => None,
            }
        };
        manifests
            .iter()
            .filter_map(|d| Some((rank(d)?, d)))
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, d)| d)
            .ok_or_else(|| {
                Error::NotFound(format!("no matching manifest for {self} in the manifest list entries"))
            })
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

/// Aliases and default variants, as containerd's `platforms` package has them.
fn normalise(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = match (architecture, variant) {
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", v) => ("amd64", v),
        ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
        ("aarch64", v) => ("arm64", v),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("i386" | "i486" | "i586" | "i686", v) => ("386", v),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn entry(os: &str, architecture: &str, variant: &str, size: u64) -> Descriptor {
        Descriptor {
            media_type: OCI_MANIFEST.into(),
            digest: format!("sha256:{HEX}"),
            size,
            platform: Some(PlatformField {
                os: os.into(),
                architecture: architecture.into(),
                variant: variant.into(),
            }),
            annotations: None,
        }
    }

    #[test]
    fn chooses_platforms() {
        let index = [
            entry("unknown", "unknown", "", 0),
            entry("linux", "amd64", "v3", 1),
            entry("linux", "amd64", "", 2),
            entry("linux", "arm", "v5", 3),
            entry("linux", "arm", "v6", 4),
            entry("linux", "arm64", "v8", 5),
        ];
        for (platform, size) in [
            ("linux/amd64", 2),
            ("linux/amd64/v3", 1),
            ("x86_64", 2),
            ("linux/arm/v7", 4),
            ("linux/arm64", 5),
        ] {
            assert_eq!(Platform::parse(platform).unwrap().choose(&index).unwrap().size, size, "{platform}");
        }
        let error = Platform::parse("linux/s390x").unwrap().choose(&index).unwrap_err();
        assert_eq!(error.to_string(), "no matching manifest for linux/s390x in the manifest list entries");
        assert!(Platform::parse("linux//x").is_err() && Platform::parse("a/b/c/d").is_err());
    }

    #[test]
    fn ambiguous_or_old_manifests_are_refused() {
        let descriptor = format!(r#"{{"mediaType":"x","digest":"sha256:{HEX}","size":1}}"#);
        let image = format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[{descriptor}]}}"#);
        assert!(matches!(Manifest::parse(image.as_bytes(), OCI_MANIFEST), Ok(Manifest::Image { .. })));
        let both = format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[],"manifests":[]}}"#);
        assert!(Manifest::parse(both.as_bytes(), OCI_MANIFEST).is_err());
        let lying =
            format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","config":{descriptor},"layers":[]}}"#);
        assert!(Manifest::parse(lying.as_bytes(), OCI_MANIFEST).is_err());
        let old = Manifest::parse(br#"{"schemaVersion":1,"fsLayers":[]}"#, "").unwrap_err();
        assert!(old.to_string().contains("schema 1"), "{old}");
    }
}
