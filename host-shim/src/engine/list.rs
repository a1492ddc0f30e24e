//! `docker ps`: selection and the short form of a container.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use super::{
    Engine, clock,
    container::Container,
    inspect,
    prune::disk_usage,
    record::{Record, Status},
    status,
};
use crate::{
    api::query::Filters,
    error::{Error, Result},
};

/// Filters of `GET /containers/json`.
const FILTERS: [&str; 16] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
    "label!",
];

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Also those that do not run.
    pub all: bool,
    /// The newest so many, running or not; 0 is no limit.
    pub limit: usize,
    /// With sizes.
    pub size: bool,
    /// Which.
    pub filters: Filters,
}

/// Filters, checked and resolved once for all containers.
struct Select<'a> {
    filters: &'a Filters,
    images: BTreeSet<String>,
    names: Vec<Pattern>,
    before: Option<i128>,
    since: Option<i128>,
    exited: Vec<i64>,
    is_task: Option<bool>,
    /// A filter speaks of containers that do not run.
    all: bool,
}

/// A `name` filter: a regular expression in Go; without a library for them, its everyday forms.
enum Pattern {
    Contains(String),
    Starts(String),
    Ends(String),
    Equals(String),
}

impl Pattern {
    fn parse(text: &str) -> Self {
        let (starts, rest) = text.strip_prefix('^').map_or((false, text), |rest| (true, rest));
        let (ends, rest) = rest.strip_suffix('$').map_or((false, rest), |rest| (true, rest));
        // Names are matched with and without their slash; `\.` and `.*` at the ends are common in scripts.
        let rest = rest.replace('\\', "");
        let (starts, rest) = rest.strip_prefix(".*").map_or((starts, rest.as_str()), |rest| (false, rest));
        let (ends, rest) = rest.strip_suffix(".*").map_or((ends, rest), |rest| (false, rest));
        let rest = if starts { rest.strip_prefix('/').unwrap_or(rest) } else { rest }.to_owned();
        match (starts, ends) {
            (true, true) => Self::Equals(rest),
            (true, false) => Self::Starts(rest),
            (false, true) => Self::Ends(rest),
            (false, false) => Self::Contains(rest),
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Contains(text) => {
                name.contains(text.as_str()) || format!("/{name}").contains(text.as_str())
            }
            Self::Starts(text) => name.starts_with(text.as_str()),
            Self::Ends(text) => name.ends_with(text.as_str()),
            Self::Equals(text) => name == text,
        }
    }
}

impl Engine {
    /// The containers selected, newest first, as the API lists them.
    ///
    /// # Errors
    /// 400 for a bad filter, 404 where `before` or `since` name no container.
    pub fn list(&self, listing: &Listing) -> Result<Vec<Value>> {
        let select = self.select(&listing.filters)?;
        let all = listing.all || listing.limit > 0 || select.all;
        let mut listed = Vec::new();
        for container in self.all() {
            let record = container.record();
            if (all || record.state.status.is_running()) && select.matches(&record) {
                listed.push(self.summary(&container, &record, listing.size));
                if listed.len() == listing.limit {
                    break;
                }
            }
        }
        Ok(listed)
    }

    fn select<'a>(&self, filters: &'a Filters) -> Result<Select<'a>> {
        filters.check(&FILTERS)?;
        for status in filters.get("status") {
            if !Status::ALL.iter().any(|known| known.as_str() == status) {
                return Err(Error::invalid(format!(
                    "invalid filter 'status={status}': invalid value for state ({status}): must be one of created, running, \
                     paused, restarting, removing, exited, dead"
                )));
            }
        }
        for health in filters.get("health") {
            if !matches!(health.as_str(), "none" | "starting" | "healthy" | "unhealthy") {
                return Err(Error::invalid(format!(
                    "invalid filter 'health={health}': invalid value for health ({health}): must be one of none, starting, \
                     healthy, unhealthy"
                )));
            }
        }
        let exited = filters
            .get("exited")
            .iter()
            .map(|code| {
                let bad = || {
                    format!("invalid filter 'exited={code}': strconv.Atoi: parsing {code:?}: invalid syntax")
                };
                code.parse().map_err(|_| Error::invalid(bad()))
            })
            .collect::<Result<Vec<i64>>>()?;
        for key in ["publish", "expose"] {
            if let Some(bad) = filters.get(key).iter().find(|wanted| ports(wanted).is_none()) {
                // 500, as moby.
                return Err(Error::system(format!(
                    "error while looking up for {key} {bad}: no port or range of ports"
                )));
            }
        }
        let created = |key: &str| -> Result<Option<i128>> {
            match filters.get(key).last() {
                Some(name) => Ok(clock::parse(&self.find(name)?.record().created)),
                None => Ok(None),
            }
        };
        let mut images = BTreeSet::new();
        for ancestor in filters.get("ancestor") {
            match self.images.find(ancestor)? {
                Some(image) => drop(images.insert(image.id)),
                None => tracing::debug!(ancestor, "no such image to filter by"),
            }
        }
        let is_task = if filters.has("is-task") { Some(filters.bool_or("is-task", false)?) } else { None };
        Ok(Select {
            filters,
            images,
            names: filters.get("name").iter().map(|text| Pattern::parse(text)).collect(),
            before: created("before")?,
            since: created("since")?,
            all: filters.has("status") || !exited.is_empty() || filters.has("before") || filters.has("since"),
            exited,
            is_task,
        })
    }

    fn summary(&self, container: &Arc<Container>, record: &Record, size: bool) -> Value {
        let mut value = json!({
            "Id": record.id,
            "Names": [format!("/{}", record.name)],
            "Image": self.image_name(record),
            "ImageID": record.image_id,
            "Command": command(&record.args),
            "Created": clock::parse(&record.created).map_or(0, |nanos| clock::split(nanos).0),
            "Ports": inspect::exposed(record),
        });
        if size {
            value["SizeRw"] = json!(disk_usage(&self.home.container(&container.id)));
            value["SizeRootFs"] = json!(self.root_size(record));
        }
        value["Labels"] = json!(record.config.labels.clone().unwrap_or_default());
        value["State"] = json!(record.state.status.as_str());
        value["Status"] = json!(status::text(&record.state));
        value["HostConfig"] = json!({ "NetworkMode": record.host.network_mode });
        value["NetworkSettings"] = json!({ "Networks": inspect::networks(record) });
        value["Mounts"] = json!(inspect::mounts(record));
        value
    }

    /// The image as the user named it; its id once that name means another image.
    fn image_name(&self, record: &Record) -> String {
        match self.images.find(&record.config.image) {
            Ok(Some(image)) if image.id == record.image_id => record.config.image.clone(),
            _ => record.image_id.clone(),
        }
    }

    /// Image and writable layer together.
    pub(crate) fn root_size(&self, record: &Record) -> u64 {
        let image = self.images.find(&record.image_id).ok().flatten().map_or(0, |image| image.size);
        image + disk_usage(&self.home.container(&record.id))
    }
}

impl Select<'_> {
    fn matches(&self, record: &Record) -> bool {
        let filters = self.filters;
        let created = clock::parse(&record.created);
        let ids = filters.get("id");
        let ports = |key: &str| {
            filters.get(key).is_empty() || filters.get(key).iter().any(|wanted| has_port(record, key, wanted))
        };
        (ids.is_empty() || ids.iter().any(|id| record.id.starts_with(id.as_str())))
            && (self.names.is_empty() || self.names.iter().any(|pattern| pattern.matches(&record.name)))
            && filters.exact("status", record.state.status.as_str())
            && (self.exited.is_empty()
                || (record.state.status == Status::Exited
                    && self.exited.contains(&i64::from(record.state.exit_code))))
            && filters.exact("health", "none")
            && filters.exact("isolation", &record.host.isolation)
            && filters.exact("network", &record.host.network_mode)
            && self.is_task != Some(true)
            && (!filters.has("volume") || mounted(record, filters.get("volume")))
            && (!filters.has("ancestor") || self.images.contains(&record.image_id))
            && self.before.is_none_or(|before| created < Some(before))
            && self.since.is_none_or(|since| created > Some(since))
            && ports("expose")
            && ports("publish")
            && filters.labels("label", |name| record.config.label(name))
    }
}

fn mounted(record: &Record, wanted: &[String]) -> bool {
    let mounts = inspect::mounts(record);
    mounts.iter().any(|mount| wanted.iter().any(|path| mount["Destination"] == json!(path)))
}

/// `80`, `80/tcp` or `80-90/udp`: first, last, protocol.
fn ports(wanted: &str) -> Option<(u16, u16, &str)> {
    let (range, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    Some((from.parse().ok()?, to.parse().ok()?, protocol))
}

/// Such ports against exposed or published ports.
fn has_port(record: &Record, key: &str, wanted: &str) -> bool {
    let Some((from, to, protocol)) = ports(wanted) else { return false };
    let fits = |port: &str| {
        let (number, own) = port.split_once('/').unwrap_or((port, "tcp"));
        own == protocol && number.parse::<u16>().is_ok_and(|number| (from..=to).contains(&number))
    };
    let published = record.host.port_bindings.iter().flatten().any(|(port, _)| fits(port));
    published || (key == "expose" && record.config.exposed_ports.iter().flatten().any(|(port, _)| fits(port)))
}

/// The command as one line; moby quotes arguments with blanks in them.
fn command(args: &[String]) -> String {
    let mut line: Vec<String> = Vec::with_capacity(args.len());
    for (n, arg) in args.iter().enumerate() {
        if n > 0 && arg.contains(char::is_whitespace) {
            line.push(format!("'{arg}'"));
        } else {
            line.push(arg.clone());
        }
    }
    line.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::record::tests::record;

    #[test]
    fn names_match_the_everyday_patterns() {
        for (pattern, name, wanted) in [
            ("we", "web", true),
            ("/web", "web", true),
            ("^/web$", "web", true),
            ("^web$", "web2", false),
            ("^we", "aweb", false),
            ("b$", "web", true),
            ("^proj.*", "project", true),
        ] {
            assert_eq!(Pattern::parse(pattern).matches(name), wanted, "{pattern} {name}");
        }
    }

    #[test]
    fn ports_match_ranges() {
        let mut record = record("a", "web");
        record.config.exposed_ports = Some([("80/tcp".to_owned(), Default::default())].into());
        assert!(has_port(&record, "expose", "80"));
        assert!(has_port(&record, "expose", "70-90/tcp"));
        assert!(!has_port(&record, "expose", "80/udp"));
        assert!(!has_port(&record, "publish", "80"));
    }

    #[test]
    fn commands_quote_blanks() {
        let args = ["sh", "-c", "echo a b"].map(str::to_owned);
        assert_eq!(command(&args), "sh -c 'echo a b'");
    }
}
