//! What dockerd refuses at create, in its words.

use crate::{
    engine::{
        caps,
        model::{Config, HostConfig},
        signal,
    },
    error::{Error, Kind, Result},
};

const MIB: i64 = 1 << 20;
/// moby's `linuxMinMemory`.
const MIN_MEMORY: i64 = 6 * MIB;

/// Refuses a name that is none, with or without a leading slash; returns it without.
///
/// # Errors
/// 400
pub fn name(name: &str) -> Result<&str> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let mut bytes = bare.bytes();
    let good = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bare.len() > 1
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if good {
        Ok(bare)
    } else {
        Err(Error::invalid(format!(
            "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )))
    }
}

/// Checks what can be checked without the image.
///
/// # Errors
/// 400, or 501 for what a later release brings.
pub fn settings(config: &Config, host: &HostConfig, cores: usize) -> Result<()> {
    container(config)?;
    restart_policy(host)?;
    caps::resolve(host)?;
    resources(host, cores)?;
    modes(host)?;
    storage(config, host)
}

fn container(config: &Config) -> Result<()> {
    let dir = &config.working_dir;
    if !dir.is_empty() && !dir.starts_with('/') {
        return Err(Error::invalid(format!(
            "the working directory '{dir}' is invalid, it needs to be an absolute path"
        )));
    }
    if let Some(entry) = config.env.iter().flatten().find(|entry| entry.is_empty() || entry.starts_with('='))
    {
        return Err(Error::invalid(format!("invalid environment variable: {entry}")));
    }
    if !config.stop_signal.is_empty() {
        signal::parse(&config.stop_signal)?;
    }
    Ok(())
}

fn restart_policy(host: &HostConfig) -> Result<()> {
    let policy = &host.restart_policy;
    let retries = policy.maximum_retry_count;
    match policy.name.as_str() {
        "always" | "unless-stopped" | "no" if retries != 0 => {
            let text = if retries < 0 {
                "invalid restart policy: maximum retry count can only be used with 'on-failure' and cannot be negative"
            } else {
                "invalid restart policy: maximum retry count can only be used with 'on-failure'"
            };
            return Err(Error::invalid(text));
        }
        "on-failure" if retries < 0 => {
            return Err(Error::invalid("invalid restart policy: maximum retry count cannot be negative"));
        }
        "" | "no" | "always" | "on-failure" | "unless-stopped" => {}
        other => {
            return Err(Error::invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )));
        }
    }
    if host.auto_remove && !matches!(policy.name.as_str(), "" | "no") {
        return Err(Error::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    Ok(())
}

/// Limits, also of `update`.
///
/// # Errors
/// 400
pub fn resources(host: &HostConfig, cores: usize) -> Result<()> {
    let refuse = |text: &str| Err(Error::invalid(text));
    if host.shm_size < 0 {
        return refuse("SHM size can not be less than 0");
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        let adj = host.oom_score_adj;
        return Err(Error::invalid(format!("Invalid value {adj}, range for oom score adj is [-1000, 1000]")));
    }
    if host.memory > 0 && host.memory < MIN_MEMORY {
        return refuse("Minimum memory limit allowed is 6MB");
    }
    if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
        return refuse("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if host.memory == 0 && host.memory_swap > 0 {
        return refuse("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if let Some(swappiness) = host.memory_swappiness.filter(|swappiness| !(-1..=100).contains(swappiness)) {
        return Err(Error::invalid(format!(
            "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        )));
    }
    if host.memory_reservation > 0 && host.memory_reservation < MIN_MEMORY {
        return refuse("Minimum memory reservation allowed is 6MB");
    }
    if host.memory > 0 && host.memory_reservation > 0 && host.memory < host.memory_reservation {
        return refuse("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    cpus(host, cores)
}

fn cpus(host: &HostConfig, cores: usize) -> Result<()> {
    let refuse = |text: &str| Err(Error::invalid(text));
    if host.nano_cpus > 0 && host.cpu_period > 0 {
        return refuse("Conflicting options: Nano CPUs and CPU Period cannot both be set");
    }
    if host.nano_cpus > 0 && host.cpu_quota > 0 {
        return refuse("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
    }
    let most = i64::try_from(cores).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
    if host.nano_cpus < 0 || host.nano_cpus > most {
        return Err(Error::invalid(format!(
            "Range of CPUs is from 0.01 to {cores}.00, as there are only {cores} CPUs available"
        )));
    }
    if host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period) {
        return refuse(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1000 {
        return refuse("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    let Some(highest) = highest_cpu(&host.cpuset_cpus) else {
        return Err(Error::invalid(format!("Invalid value {} for cpuset cpus", host.cpuset_cpus)));
    };
    if highest.is_some_and(|highest| highest >= cores) {
        return Err(Error::invalid(format!(
            "Requested CPUs are not available - requested {}, available: 0-{}",
            host.cpuset_cpus,
            cores.saturating_sub(1)
        )));
    }
    match highest_cpu(&host.cpuset_mems) {
        None => Err(Error::invalid(format!("Invalid value {} for cpuset mems", host.cpuset_mems))),
        Some(Some(1..)) => Err(Error::invalid(format!(
            "Requested memory nodes are not available - requested {}, available: 0",
            host.cpuset_mems
        ))),
        Some(_) => Ok(()),
    }
}

/// The highest number of a list such as `0-2,5`; `Some(None)` for an empty one, `None` for garbage.
pub(crate) fn highest_cpu(set: &str) -> Option<Option<usize>> {
    if set.is_empty() {
        return Some(None);
    }
    let mut highest = 0;
    for part in set.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
        if from > to || to > 8192 {
            return None;
        }
        highest = highest.max(to);
    }
    Some(Some(highest))
}

fn later<T>(what: &str) -> Result<T> {
    Err(Error::new(Kind::NotImplemented, format!("{what} with a later release of Arca")))
}

fn modes(host: &HostConfig) -> Result<()> {
    for mode in [&host.network_mode, &host.pid_mode, &host.ipc_mode] {
        if mode.starts_with("container:") {
            return later("namespaces of another container come");
        }
    }
    match host.pid_mode.as_str() {
        "" | "private" => {}
        "host" => {
            return Err(Error::new(
                Kind::NotImplemented,
                "pid mode host: a container in its own VM cannot see the host's processes",
            ));
        }
        _ => return Err(Error::invalid("invalid PID mode")),
    }
    if !matches!(host.ipc_mode.as_str(), "" | "private" | "shareable" | "none" | "host") {
        return Err(Error::invalid(format!("invalid IPC mode: {}", host.ipc_mode)));
    }
    if !matches!(host.uts_mode.as_str(), "" | "host") {
        return Err(Error::invalid("invalid UTS mode"));
    }
    if !matches!(host.cgroupns_mode.as_str(), "" | "private" | "host") {
        return Err(Error::invalid(format!("invalid cgroup namespace mode: {}", host.cgroupns_mode)));
    }
    if !matches!(host.runtime.as_str(), "" | "runc" | "arca") {
        return Err(Error::invalid(format!("unknown or invalid runtime name: {}", host.runtime)));
    }
    if !matches!(host.log_config.r#type.as_str(), "" | "json-file" | "local" | "none") {
        return Err(Error::invalid(format!(
            "logger: no log driver named '{}' is registered",
            host.log_config.r#type
        )));
    }
    Ok(())
}

fn storage(config: &Config, host: &HostConfig) -> Result<()> {
    let volumes = "volumes and bind mounts come";
    if host.binds.iter().flatten().next().is_some()
        || host.volumes_from.iter().flatten().next().is_some()
        || config.volumes.iter().flatten().next().is_some()
    {
        return later(volumes);
    }
    for mount in host.mounts.iter().flatten() {
        match mount.r#type.as_str() {
            "tmpfs" => {}
            "bind" | "volume" | "image" | "cluster" | "npipe" | "" => return later(volumes),
            other => {
                return Err(Error::invalid(format!(
                    "invalid mount config for type \"{other}\": mount type unknown"
                )));
            }
        }
        if !mount.source.is_empty() {
            return Err(Error::invalid(
                "invalid mount config for type \"tmpfs\": field Source must not be specified",
            ));
        }
        destination(&mount.target).map_err(|error| {
            Error::invalid(format!("invalid mount config for type \"tmpfs\": {}", error.message))
        })?;
    }
    for path in host.tmpfs.iter().flat_map(|tmpfs| tmpfs.keys()) {
        destination(path)?;
    }
    Ok(())
}

fn destination(path: &str) -> Result<()> {
    if path.is_empty() {
        Err(Error::invalid("field Target must not be empty"))
    } else if !path.starts_with('/') {
        Err(Error::invalid(format!("invalid mount path: '{path}' mount path must be absolute")))
    } else if path.trim_matches('/').is_empty() {
        Err(Error::invalid("invalid specification: destination can't be '/'"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::model::{MountPoint, RestartPolicy};

    fn refusal(change: impl FnOnce(&mut Config, &mut HostConfig)) -> String {
        let (mut config, mut host) = (Config::default(), HostConfig::default());
        change(&mut config, &mut host);
        settings(&config, &host, 2).unwrap_err().message
    }

    #[test]
    fn defaults_pass() {
        settings(&Config::default(), &HostConfig::default(), 2).unwrap();
    }

    #[test]
    fn names() {
        assert_eq!(name("/web.1_a-b").unwrap(), "web.1_a-b");
        for bad in ["", "a", "-a", "a b", "a/b", "ä1"] {
            assert_eq!(
                name(bad).unwrap_err().message,
                format!("Invalid container name ({bad}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
            );
        }
    }

    #[test]
    fn wording() {
        assert_eq!(refusal(|_, h| h.memory = 1), "Minimum memory limit allowed is 6MB");
        assert_eq!(
            refusal(|_, h| h.nano_cpus = 3_000_000_000),
            "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"
        );
        assert_eq!(
            refusal(|_, h| (h.memory, h.memory_swap) = (64 << 20, 32 << 20)),
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        );
        assert_eq!(
            refusal(|c, _| c.working_dir = "x".into()),
            "the working directory 'x' is invalid, it needs to be an absolute path"
        );
        assert_eq!(
            refusal(|_, h| h.restart_policy = RestartPolicy { name: "x".into(), maximum_retry_count: 0 }),
            "invalid restart policy: unknown policy 'x'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        );
        assert_eq!(
            refusal(|_, h| {
                h.auto_remove = true;
                h.restart_policy.name = "always".into();
            }),
            "can't create 'AutoRemove' container with restart policy"
        );
        assert_eq!(refusal(|_, h| h.cpuset_cpus = "0-x".into()), "Invalid value 0-x for cpuset cpus");
        assert_eq!(
            refusal(|_, h| h.cpuset_cpus = "5".into()),
            "Requested CPUs are not available - requested 5, available: 0-1"
        );
    }

    #[test]
    fn volumes_are_told_to_come_later() {
        let text = "volumes and bind mounts come with a later release of Arca";
        assert_eq!(refusal(|_, h| h.binds = Some(vec!["/a:/b".into()])), text);
        let bind = MountPoint { r#type: "bind".into(), ..MountPoint::default() };
        assert_eq!(refusal(|_, h| h.mounts = Some(vec![bind])), text);
        let tmpfs = MountPoint { r#type: "tmpfs".into(), target: "/t".into(), ..MountPoint::default() };
        let host = HostConfig { mounts: Some(vec![tmpfs]), ..HostConfig::default() };
        settings(&Config::default(), &host, 2).unwrap();
    }
}
