//! The defaults dockerd writes into a container's `HostConfig` at create, as `inspect` shows them.

use crate::engine::model::HostConfig;

/// `/dev/shm` unless `--shm-size` says otherwise.
const SHM_SIZE: i64 = 64 << 20;

/// moby's default masked paths.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// moby's default read-only paths.
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Writes the defaults; returns warnings for the user.
pub fn adapt(host: &mut HostConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    let fill = |text: &mut String, default: &str| {
        if text.is_empty() {
            default.clone_into(text);
        }
    };
    fill(&mut host.log_config.r#type, "json-file");
    fill(&mut host.ipc_mode, "private");
    fill(&mut host.cgroupns_mode, if host.privileged { "host" } else { "private" });
    fill(&mut host.runtime, "runc");
    fill(&mut host.restart_policy.name, "no");
    if matches!(host.network_mode.as_str(), "" | "default") {
        host.network_mode = "bridge".into();
    }
    if host.shm_size == 0 {
        host.shm_size = SHM_SIZE;
    }
    if host.memory > 0 && host.memory_swap == 0 {
        host.memory_swap = host.memory.saturating_mul(2);
    }
    if host.memory_swappiness == Some(-1) {
        host.memory_swappiness = None;
    }
    host.pids_limit = host.pids_limit.filter(|limit| *limit > 0);
    if host.port_bindings.is_none() {
        host.port_bindings = Some(std::collections::BTreeMap::new());
    }
    for list in [&mut host.dns, &mut host.dns_options, &mut host.dns_search] {
        list.get_or_insert_default();
    }
    if host.privileged {
        host.masked_paths = None;
        host.readonly_paths = None;
        let options = host.security_opt.get_or_insert_default();
        if !options.iter().any(|option| option == "label=disable") {
            options.push("label=disable".into());
        }
    } else {
        let defaults = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        host.masked_paths.get_or_insert_with(|| defaults(&MASKED));
        host.readonly_paths.get_or_insert_with(|| defaults(&READONLY));
    }
    if host.port_bindings.as_ref().is_some_and(|ports| !ports.is_empty()) || host.publish_all_ports {
        warnings.push("Published ports are ignored: networks come with a later release of Arca.".into());
    }
    if host.oom_kill_disable == Some(true) {
        warnings.push("Your kernel does not support OomKillDisable. OomKillDisable discarded.".into());
        host.oom_kill_disable = None;
    }
    if host.memory_swappiness.is_some() {
        warnings.push(
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded."
                .into(),
        );
        host.memory_swappiness = None;
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_dockerds() {
        let mut host = HostConfig {
            memory: 64 << 20,
            memory_swappiness: Some(-1),
            pids_limit: Some(0),
            network_mode: "default".into(),
            ..HostConfig::default()
        };
        assert!(adapt(&mut host).is_empty());
        assert_eq!(host.memory_swap, 128 << 20);
        assert_eq!((host.memory_swappiness, host.pids_limit), (None, None));
        assert_eq!((host.network_mode.as_str(), host.ipc_mode.as_str()), ("bridge", "private"));
        assert_eq!(host.shm_size, 64 << 20);
        assert_eq!(host.masked_paths.unwrap().len(), 12);
    }

    #[test]
    fn privileged_masks_nothing() {
        let mut host = HostConfig { privileged: true, ..HostConfig::default() };
        adapt(&mut host);
        assert_eq!((host.masked_paths, host.readonly_paths), (None, None));
        assert_eq!(host.security_opt.unwrap(), ["label=disable"]);
    }
}
