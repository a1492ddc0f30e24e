//! Images: registry pulls, `docker load`, the content store, tags and layer disks.
//!
//! Everything lives under one folder: `blobs/sha256/` (content by digest), `disks/` (EROFS layer disks),
//! `images.redb` (images, tags, layers) and `tmp/` (half-made files, emptied when the store is opened).

mod config;
mod error;
mod image;
mod progress;
mod reference;
mod store;

pub use config::{ContainerConfig, Healthcheck, HistoryItem, ImageConfig, RootFs};
pub use error::{Error, ErrorKind};
pub use image::{
    ContainerUse, DiskUsage, HistoryEntry, Image, Loaded, PruneFilters, Pulled, RegistryAuth, Removed,
};
pub use progress::{Progress, ProgressEvent, human_size, short_id};
pub use reference::Reference;
pub use store::{ImageStore, Options, Timeouts};
