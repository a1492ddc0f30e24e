//! `docker inspect` of a container, field for field as dockerd 28.5 prints it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Engine, container::Container, prune::disk_usage, record::Record};

impl Engine {
    /// The whole container.
    #[must_use]
    pub fn inspect(&self, container: &Arc<Container>, size: bool) -> Value {
        let record = container.record();
        let dir = self.home.container(&record.id);
        let execs: Vec<String> =
            container.execs().values().filter(|exec| exec.is_pending()).map(|exec| exec.id.clone()).collect();
        let mut value = json!({
            "Id": record.id,
            "Created": record.created,
            "Path": record.args.first(),
            "Args": record.args.get(1..).unwrap_or_default(),
            "State": state(&record),
            "Image": record.image_id,
            "ResolvConfPath": dir.join("resolv.conf"),
            "HostnamePath": dir.join("hostname"),
            "HostsPath": dir.join("hosts"),
            "LogPath": if record.host.log_config.r#type == "none" { "".into() } else { self.log_path(&record.id) },
            "Name": format!("/{}", record.name),
            "RestartCount": record.restart_count,
            "Driver": "overlay2",
            "Platform": record.platform,
            "MountLabel": "",
            "ProcessLabel": "",
            "AppArmorProfile": "",
            "ExecIDs": if execs.is_empty() { Value::Null } else { json!(execs) },
            "HostConfig": record.host,
            "GraphDriver": { "Data": { "ID": record.id }, "Name": "overlay2" },
        });
        if size {
            value["SizeRw"] = json!(disk_usage(&dir));
            value["SizeRootFs"] = json!(self.root_size(&record));
        }
        value["Mounts"] = json!(mounts(&record));
        value["Config"] = json!(record.config);
        value["NetworkSettings"] = network_settings(&record);
        value
    }
}

fn state(record: &Record) -> Value {
    use super::record::Status::{Dead, Paused, Restarting};
    let state = &record.state;
    json!({
        "Status": state.status.as_str(),
        "Running": state.status.is_running(),
        "Paused": state.status == Paused,
        "Restarting": state.status == Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.status == Dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": state.started_at,
        "FinishedAt": state.finished_at,
    })
}

/// `Mounts`: tmpfs of `--mount` (dockerd does not list those of `--tmpfs`).
pub(crate) fn mounts(record: &Record) -> Vec<Value> {
    let mount = |target: &str| json!({"Type": "tmpfs", "Source": "", "Destination": target, "Mode": "", "RW": true, "Propagation": ""});
    record.host.mounts.iter().flatten().filter(|m| m.r#type == "tmpfs").map(|m| mount(&m.target)).collect()
}

/// `Ports` of a listing: exposed, none published.
pub(crate) fn exposed(record: &Record) -> Vec<Value> {
    let port = |text: &String| {
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        Some(json!({ "PrivatePort": number.parse::<u16>().ok()?, "Type": protocol }))
    };
    record.config.exposed_ports.iter().flat_map(|ports| ports.keys()).filter_map(port).collect()
}

/// `Networks`: every container has the network `none` until there are others.
pub(crate) fn networks(_record: &Record) -> Value {
    json!({
        "none": {
            "IPAMConfig": null, "Links": null, "Aliases": null, "MacAddress": "", "DriverOpts": null, "GwPriority": 0,
            "NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "",
            "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "DNSNames": null,
        }
    })
}

fn network_settings(record: &Record) -> Value {
    let ports: serde_json::Map<String, Value> = if record.state.status.is_running() {
        record
            .config
            .exposed_ports
            .iter()
            .flat_map(|ports| ports.keys())
            .map(|port| (port.clone(), Value::Null))
            .collect()
    } else {
        serde_json::Map::new()
    };
    json!({
        "Bridge": "", "SandboxID": "", "SandboxKey": "", "Ports": ports, "HairpinMode": false,
        "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0, "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null, "EndpointID": "", "Gateway": "", "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0, "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "", "MacAddress": "",
        "Networks": networks(record),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::record::tests::record;

    #[test]
    fn state_has_dockers_fields() {
        let value = state(&record("a", "web"));
        assert_eq!(value["Status"], "created");
        assert_eq!(value["FinishedAt"], "0001-01-01T00:00:00Z");
        assert_eq!(value.as_object().unwrap().len(), 11);
    }

    #[test]
    fn exposed_ports_are_listed_without_publication() {
        let mut record = record("a", "web");
        record.config.exposed_ports = Some([("80/tcp".to_owned(), Default::default())].into());
        assert_eq!(exposed(&record), [json!({"PrivatePort": 80, "Type": "tcp"})]);
    }
}
