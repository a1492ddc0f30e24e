//! Images as the API shows them. Fields that dockerd sends as null are there as null.

use images::{HistoryEntry, Image};
use serde_json::{Value, json};

use crate::{api::version::Version, engine::clock};

/// A row of `GET /images/json` and of `/system/df`.
pub(in crate::api) fn summary(image: &Image, containers: usize) -> Value {
    json!({
        "Containers": containers,
        "Created": image.created.map_or(0, time::OffsetDateTime::unix_timestamp),
        "Id": image.id,
        "Labels": image.config.config.labels,
        "ParentId": image.parent.as_deref().unwrap_or(""),
        "RepoDigests": image.repo_digests,
        "RepoTags": image.repo_tags,
        "SharedSize": -1,
        "Size": image.size,
    })
}

/// `GET /images/{name}/json`
pub(super) fn inspect(image: &Image) -> Value {
    let config = &image.config;
    let tagged = image.last_tag_time.map(time::OffsetDateTime::unix_timestamp_nanos);
    let mut value = json!({
        "Id": image.id,
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Parent": image.parent.as_deref().unwrap_or(""),
        "Comment": config.comment,
        "Created": config.created.as_deref().unwrap_or(clock::ZERO),
        "DockerVersion": config.docker_version,
        "Author": config.author,
        "Architecture": config.architecture,
    });
    if !config.variant.is_empty() {
        value["Variant"] = json!(config.variant);
    }
    value["Os"] = json!(config.os);
    if !config.os_version.is_empty() {
        value["OsVersion"] = json!(config.os_version);
    }
    value["Size"] = json!(image.size);
    value["GraphDriver"] = json!({"Data": null, "Name": "erofs"});
    value["RootFS"] = json!({"Type": "layers", "Layers": image.layers});
    value["Metadata"] = json!({"LastTagTime": tagged.map_or_else(|| clock::ZERO.to_owned(), clock::format)});
    value["Config"] = container_config(image);
    value
}

/// moby's `container.Config` of an image: keys that are omitted when empty, then those that never are.
fn container_config(image: &Image) -> Value {
    let config = &image.config.config;
    let mut value = json!({});
    if config.args_escaped {
        value["ArgsEscaped"] = json!(true);
    }
    value["Cmd"] = json!(config.cmd);
    value["Entrypoint"] = json!(config.entrypoint);
    value["Env"] = json!(config.env);
    if let Some(ports) = &config.exposed_ports {
        value["ExposedPorts"] = json!(ports);
    }
    if let Some(check) = &config.healthcheck {
        value["Healthcheck"] = json!(check);
    }
    value["Labels"] = json!(config.labels);
    value["OnBuild"] = json!(config.on_build);
    if let Some(shell) = &config.shell {
        value["Shell"] = json!(shell);
    }
    if let Some(signal) = &config.stop_signal {
        value["StopSignal"] = json!(signal);
    }
    if let Some(timeout) = config.stop_timeout {
        value["StopTimeout"] = json!(timeout);
    }
    value["User"] = json!(config.user);
    value["Volumes"] = json!(config.volumes);
    value["WorkingDir"] = json!(config.working_dir);
    value
}

/// A row of `GET /images/{name}/history`.
pub(super) fn history(row: &HistoryEntry) -> Value {
    json!({
        "Comment": row.comment,
        "Created": row.created,
        "CreatedBy": row.created_by,
        "Id": row.id,
        "Size": row.size,
        "Tags": if row.tags.is_empty() { Value::Null } else { json!(row.tags) },
    })
}

/// What older API versions had: `VirtualSize` until 1.43, `<none>` names until 1.42.
pub(super) fn for_old_clients(value: &mut Value, version: Version) {
    if !version.at_least(44) {
        value["VirtualSize"] = value["Size"].clone();
    }
    let nameless = |v: &Value| v.as_array().is_some_and(Vec::is_empty);
    if !version.at_least(43) && nameless(&value["RepoTags"]) && nameless(&value["RepoDigests"]) {
        value["RepoTags"] = json!(["<none>:<none>"]);
        value["RepoDigests"] = json!(["<none>@<none>"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Image {
        let raw = json!({
            "architecture": "amd64", "os": "linux", "created": "2026-11-20T22:57:24.723131515Z",
            "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:b0"]},
        });
        Image {
            id: "sha256:b3".into(),
            config: serde_json::from_value(raw.clone()).unwrap(),
            raw_config: raw,
            repo_tags: vec!["alpine:latest".into()],
            repo_digests: vec![],
            size: 1_985_064,
            created: time::OffsetDateTime::from_unix_timestamp(1_795_215_444).ok(),
            layers: vec!["sha256:b0".into()],
            parent: None,
            last_tag_time: None,
        }
    }

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    /// Keys and their order as dockerd 28.5.2 sends them.
    #[test]
    fn fields_are_dockerds() {
        let value = inspect(&sample());
        let want = "Id RepoTags RepoDigests Parent Comment Created DockerVersion Author Architecture Os Size GraphDriver \
                    RootFS Metadata Config";
        assert_eq!(keys(&value).join(" "), want);
        let want = "Cmd Entrypoint Env Labels OnBuild User Volumes WorkingDir";
        assert_eq!(keys(&value["Config"]).join(" "), want);
        assert_eq!(value["Config"]["Entrypoint"], Value::Null);
        let value = summary(&sample(), 2);
        let want = "Containers Created Id Labels ParentId RepoDigests RepoTags SharedSize Size";
        assert_eq!(keys(&value).join(" "), want);
        assert_eq!((&value["Labels"], &value["SharedSize"]), (&Value::Null, &json!(-1)));
    }

    #[test]
    fn old_clients_get_old_fields() {
        let mut image = sample();
        image.repo_tags.clear();
        let mut value = summary(&image, 0);
        for_old_clients(&mut value, Version { major: 1, minor: 51 });
        assert_eq!(value.get("VirtualSize"), None);
        for_old_clients(&mut value, Version { major: 1, minor: 42 });
        assert_eq!(
            (&value["VirtualSize"], &value["RepoTags"][0]),
            (&json!(1_985_064), &json!("<none>:<none>"))
        );
    }
}
