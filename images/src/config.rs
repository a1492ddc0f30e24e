//! The image configuration: OCI image-spec `config.md` and docker's own fields, read leniently.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// The image's configuration file. Unknown fields are ignored here and kept in [`crate::Image::raw_config`].
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct ImageConfig {
    /// RFC 3339 time of creation, as written.
    #[serde(deserialize_with = "lenient")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(deserialize_with = "lenient")]
    pub author: String,
    /// Comment of a commit.
    #[serde(deserialize_with = "lenient")]
    pub comment: String,
    /// Docker version that built it.
    #[serde(deserialize_with = "lenient")]
    pub docker_version: String,
    /// GOARCH of the binaries.
    #[serde(deserialize_with = "lenient")]
    pub architecture: String,
    /// GOOS of the binaries.
    #[serde(deserialize_with = "lenient")]
    pub os: String,
    /// Architecture variant (`v8`).
    #[serde(deserialize_with = "lenient")]
    pub variant: String,
    /// Windows version; unused on Linux.
    #[serde(rename = "os.version", deserialize_with = "lenient")]
    pub os_version: String,
    /// What containers inherit.
    #[serde(deserialize_with = "lenient")]
    pub config: ContainerConfig,
    /// The layers' diff IDs.
    #[serde(deserialize_with = "lenient")]
    pub rootfs: RootFs,
    /// How each layer came about, lowest first.
    #[serde(deserialize_with = "lenient")]
    pub history: Vec<HistoryItem>,
}

/// The part of the configuration that containers inherit; names are docker's JSON.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// `user[:group]`, by name or number.
    #[serde(deserialize_with = "lenient")]
    pub user: String,
    /// `NAME=value` pairs.
    #[serde(deserialize_with = "lenient")]
    pub env: Vec<String>,
    /// Program and first arguments.
    #[serde(deserialize_with = "string_or_list")]
    pub entrypoint: Option<Vec<String>>,
    /// Arguments, or the program where there is no entrypoint.
    #[serde(deserialize_with = "string_or_list")]
    pub cmd: Option<Vec<String>>,
    /// Working directory.
    #[serde(deserialize_with = "lenient")]
    pub working_dir: String,
    /// Labels.
    #[serde(deserialize_with = "lenient")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Ports as `80/tcp`, with empty values.
    #[serde(deserialize_with = "lenient")]
    pub exposed_ports: Option<BTreeMap<String, Value>>,
    /// Paths that get an anonymous volume.
    #[serde(deserialize_with = "lenient")]
    pub volumes: Option<BTreeMap<String, Value>>,
    /// Signal for `docker stop`.
    #[serde(deserialize_with = "lenient")]
    pub stop_signal: Option<String>,
    /// Seconds before `docker stop` kills.
    #[serde(deserialize_with = "lenient")]
    pub stop_timeout: Option<i64>,
    /// Docker's health check.
    #[serde(deserialize_with = "lenient")]
    pub healthcheck: Option<Healthcheck>,
    /// Build triggers.
    #[serde(deserialize_with = "lenient")]
    pub on_build: Option<Vec<String>>,
    /// Shell of `RUN` and shell-form `CMD`.
    #[serde(deserialize_with = "lenient")]
    pub shell: Option<Vec<String>>,
    /// Windows only.
    #[serde(deserialize_with = "lenient")]
    pub args_escaped: bool,
    /// Name of the builder's container; found in old images.
    #[serde(deserialize_with = "lenient")]
    pub hostname: String,
    /// Domain name; found in old images.
    #[serde(deserialize_with = "lenient")]
    pub domainname: String,
}

/// A health check; times are nanoseconds, 0 means docker's default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["CMD", …]`, `["CMD-SHELL", …]` or `["NONE"]`.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between checks.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Deadline of one check.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time in which failures do not count.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between checks in the start period.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// `rootfs` of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", deserialize_with = "lenient")]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    #[serde(deserialize_with = "lenient")]
    pub diff_ids: Vec<String>,
}

/// One step of the image's making.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct HistoryItem {
    /// RFC 3339 time, as written.
    #[serde(deserialize_with = "lenient")]
    pub created: Option<String>,
    /// The command.
    #[serde(deserialize_with = "lenient")]
    pub created_by: String,
    /// Who.
    #[serde(deserialize_with = "lenient")]
    pub author: String,
    /// Comment.
    #[serde(deserialize_with = "lenient")]
    pub comment: String,
    /// The step made no layer.
    #[serde(deserialize_with = "lenient")]
    pub empty_layer: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// Go writes empty lists and maps as null.
fn lenient<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// Docker accepts `"Cmd": "sh"` as well as a list.
fn string_or_list<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        Many(Vec<String>),
    }
    Ok(Option::<Either>::deserialize(d)?.map(|either| match either {
        Either::One(one) => vec![one],
        Either::Many(many) => many,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_docker_fields() {
        let text = r#"{"architecture":"amd64","os":"linux","created":null,"history":null,"strange":1,
            "config":{"Env":null,"Cmd":"sh","Entrypoint":null,"Labels":null,"Volumes":{"/data":{}},
              "Healthcheck":{"Test":["CMD","true"],"Interval":5},"OnBuild":["RUN x"],"Shell":["/bin/sh"],"ArgsEscaped":true},
            "rootfs":{"type":"layers","diff_ids":["sha256:aa"]}}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.config.cmd, Some(vec!["sh".into()]));
        assert_eq!(config.config.entrypoint, None);
        assert_eq!(config.rootfs.diff_ids, ["sha256:aa"]);
        assert!(config.config.args_escaped);
        assert_eq!(config.config.healthcheck.unwrap().interval, 5);
        let none: ImageConfig = serde_json::from_str(r#"{"config":null,"rootfs":null}"#).unwrap();
        assert_eq!(none, ImageConfig::default());
    }
}
