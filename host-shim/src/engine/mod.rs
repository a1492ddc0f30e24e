//! All decisions: containers, their processes, events. HTTP is [`crate::api`]'s, durable state [`crate::store`]'s.

use std::sync::Arc;

use crate::{config::Config, error::Result, home::Home};

pub mod events;

/// The daemon's engine. Cheap to share behind an [`Arc`].
#[derive(Debug)]
pub struct Engine {
    /// Folders of this daemon.
    pub home: Home,
    /// Its configuration.
    pub config: Config,
    /// Images and their layer disks.
    pub images: Arc<images::ImageStore>,
    /// What happens, for `docker events`.
    pub events: events::Events,
}
