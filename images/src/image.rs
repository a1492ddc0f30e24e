//! What the store answers about images.

use serde_json::Value;
use time::OffsetDateTime;

use crate::config::ImageConfig;

/// An image of the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// `sha256:` digest of the configuration.
    pub id: String,
    /// The configuration.
    pub config: ImageConfig,
    /// The configuration as it was pulled, every field kept.
    pub raw_config: Value,
    /// Tags as users write them (`busybox:latest`), sorted.
    pub repo_tags: Vec<String>,
    /// `name@sha256:…` of the manifests it was pulled by, sorted.
    pub repo_digests: Vec<String>,
    /// Sum of the layers' content sizes in bytes, as dockerd counts.
    pub size: u64,
    /// Time of creation, as the configuration states; none if absent or unreadable.
    pub created: Option<OffsetDateTime>,
    /// The layers' diff IDs, lowest first.
    pub layers: Vec<String>,
    /// Image this one was built on, if it was built here.
    pub parent: Option<String>,
    /// When a tag was last set on it here.
    pub last_tag_time: Option<OffsetDateTime>,
}

/// One row of `docker history`, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryEntry {
    /// Image ID for the newest row, else `<missing>`.
    pub id: String,
    /// Unix seconds; 0 if unknown.
    pub created: i64,
    /// The command.
    pub created_by: String,
    /// Tags of the image, on the newest row.
    pub tags: Vec<String>,
    /// Content size of the layer in bytes.
    pub size: u64,
    /// Comment.
    pub comment: String,
}

/// Outcome of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Image ID.
    pub id: String,
    /// Digest of the manifest or index the reference named.
    pub digest: String,
    /// The reference as users write it, with its tag.
    pub familiar: String,
    /// False if the reference already named this image.
    pub changed: bool,
}

/// One image of a loaded archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// A tag was set: its familiar form.
    Tag(String),
    /// The archive gave no name: the image ID.
    Id(String),
}

/// A record of what a removal did; `docker rmi` prints them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A tag or digest reference, in familiar form.
    Untagged(String),
    /// An image ID or a layer's chain ID.
    Deleted(String),
}

/// A container that uses an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerUse {
    /// Full container ID.
    pub id: String,
    /// It runs (or is paused or restarting).
    pub running: bool,
}

/// Which images `prune` may take.
#[derive(Debug, Clone, Default)]
pub struct PruneFilters {
    /// Created before this time.
    pub until: Option<OffsetDateTime>,
    /// `key` or `key=value` labels that must be there.
    pub labels: Vec<String>,
    /// `key` or `key=value` labels that must not be there.
    pub not_labels: Vec<String>,
}

/// What the images occupy.
#[derive(Debug, Clone)]
pub struct DiskUsage {
    /// Content size of all layers, each once, in bytes.
    pub layers_size: u64,
    /// Every image with the bytes it shares with other images.
    pub images: Vec<(Image, u64)>,
    /// Bytes of host disk that blobs and layer disks occupy.
    pub host_bytes: u64,
}

/// Credentials of one registry, as `X-Registry-Auth` carries them.
#[derive(Clone, Default)]
pub struct RegistryAuth {
    /// User name for basic authentication and the token service.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// OAuth2 refresh token, used in place of a password.
    pub identity_token: Option<String>,
    /// Bearer token to present as it is.
    pub registry_token: Option<String>,
}

/// Secrets stay out of logs.
impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryAuth").field("username", &self.username).finish_non_exhaustive()
    }
}
