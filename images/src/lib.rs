//! Images: registry pulls, `docker load`, the content store, tags and layer disks.
//!
//! Everything lives under one folder: `blobs/sha256/` (content by digest), `disks/` (EROFS layer disks),
//! `images.redb` (images, tags, layers) and `tmp/` (half-made files, emptied when the store is opened).

#![forbid(unsafe_code)]

mod commit;
mod compression;
mod config;
mod content;
mod db;
mod digest;
mod disks;
mod error;
mod flight;
#[doc(hidden)]
pub mod fuzzing;
mod image;
mod lease;
mod load;
mod manifest;
mod progress;
mod pull;
mod query;
mod reference;
mod registry;
mod remove;
mod store;
mod sweep;

pub use config::{ContainerConfig, Healthcheck, HistoryItem, ImageConfig, RootFs};
pub use error::{Error, ErrorKind};
pub use image::{
    ContainerUse, DiskUsage, HistoryEntry, Image, Loaded, PruneFilters, Pulled, RegistryAuth, Removed,
};
pub use progress::{Progress, ProgressEvent, human_size, short_id};
pub use reference::Reference;
pub use store::{ImageStore, Options, Timeouts};
