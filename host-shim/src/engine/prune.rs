//! `container prune`.

use std::{os::unix::fs::MetadataExt, path::Path, sync::Arc};

use super::{Engine, clock, record::Record, remove::Removal};
use crate::{api::query::Filters, error::Result};

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Ids.
    pub deleted: Vec<String>,
    /// Bytes of the host's disk.
    pub reclaimed: u64,
}

impl Engine {
    /// Removes all containers that do not run and match the filters `label`, `label!`, `until`.
    ///
    /// # Errors
    /// 400 for an unknown filter or a bad `until`.
    pub async fn prune(self: &Arc<Self>, filters: &Filters) -> Result<Pruned> {
        filters.check(&["label", "label!", "until"])?;
        let until = filters.until()?;
        let mut pruned = Pruned::default();
        for container in self.all() {
            let record = container.record();
            if record.state.status.is_running() || !selected(&record, filters, until) {
                continue;
            }
            let size = disk_usage(&self.home.container(&record.id));
            match self.remove(&container, Removal::default()).await {
                Ok(()) => {
                    pruned.reclaimed += size;
                    pruned.deleted.push(record.id.clone());
                }
                Err(error) => tracing::warn!(id = record.short_id(), %error, "cannot prune a container"),
            }
        }
        let event = super::events::Event::new(super::events::Kind::Container, "prune", "");
        self.events.publish(event.with("reclaimed", pruned.reclaimed.to_string()));
        Ok(pruned)
    }
}

fn selected(record: &Record, filters: &Filters, until: Option<i128>) -> bool {
    let old = until.is_none_or(|until| clock::parse(&record.created).is_some_and(|created| created < until));
    let excluded = filters.get("label!").iter().any(|unwanted| match unwanted.split_once('=') {
        Some((name, value)) => record.config.label(name) == Some(value),
        None => record.config.label(unwanted).is_some(),
    });
    old && !excluded && filters.labels("label", |name| record.config.label(name))
}

/// Bytes that a folder takes on the host's disk. Sparse files count by their blocks.
pub(crate) fn disk_usage(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.ok()?;
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { disk_usage(&entry.path()) } else { metadata.blocks() * 512 })
    };
    entries.filter_map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::record::tests::record;

    #[test]
    fn filters_select() {
        let mut record = record("a", "web");
        record.config.labels = Some([("l".to_owned(), "v".to_owned())].into());
        let keeps = |text: &str, until| selected(&record, &Filters::parse(text).unwrap(), until);
        assert!(keeps(r#"{"label":["l=v"]}"#, None));
        assert!(!keeps(r#"{"label!":["l"]}"#, None));
        assert!(!keeps("{}", Some(0)));
        assert!(keeps("{}", Some(i128::MAX)));
    }
}
