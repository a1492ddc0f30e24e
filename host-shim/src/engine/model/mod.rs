//! The parts of the Engine API that Arca stores: a container's configuration as clients send it and `inspect` shows it.
//!
//! Own structs rather than generated ones, since `inspect` must print every field that dockerd prints, nulls included, and
//! requests must be read as laxly as Go reads them ([`crate::api::lenient`]).

pub mod config;
pub mod host;

use serde::{Deserialize, Deserializer};

pub use config::{Config, Healthcheck};
pub use host::{Device, HostConfig, LogConfig, MountPoint, PortBinding, RestartPolicy, TmpfsOptions, Ulimit};

/// A string or a list of strings: `Cmd` and `Entrypoint`.
pub(crate) fn string_or_list<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        List(Vec<String>),
        One(String),
    }
    Ok(Option::<Either>::deserialize(deserializer)?.map(|either| match either {
        Either::List(list) => list,
        Either::One(one) => vec![one],
    }))
}
