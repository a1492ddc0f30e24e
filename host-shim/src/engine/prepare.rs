//! From a record to what the guest is told: `PrepareRequest` and the main process.

use std::collections::BTreeMap;

use proto::{
    runner::{LogConfig, StartContainerRequest},
    sandbox::{
        Device, ManagedFile, Mount, PrepareRequest, ProcessSpec, Resources, Rlimit, Rootfs, SeccompProfile,
        device, mount, seccomp_profile,
    },
};

use super::{
    caps,
    create::env::replace_or_append,
    model::{HostConfig, MountPoint, Ulimit},
    record::Record,
    vm,
};
use crate::error::{Error, Result};

/// What runs a command without a path.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Docker's options of every tmpfs; a user's word for the opposite drops one.
const TMPFS: [&str; 3] = ["noexec", "nosuid", "nodev"];
/// Character devices by path, since the guest's kernel has no modules (kernel's `devices.txt`).
const DEVICES: [(&str, u32, u32); 8] = [
    ("/dev/fuse", 10, 229),
    ("/dev/net/tun", 10, 200),
    ("/dev/kmsg", 1, 11),
    ("/dev/mem", 1, 1),
    ("/dev/rtc0", 252, 0),
    ("/dev/loop-control", 10, 237),
    ("/dev/vhost-vsock", 10, 241),
    ("/dev/kvm", 10, 232),
];

/// All that the runner needs to run the main process.
///
/// # Errors
/// 400 for what only shows here (a device that guests do not have, a damaged seccomp profile).
pub(crate) fn start_request(record: &Record, lowers: usize, log: LogConfig) -> Result<StartContainerRequest> {
    Ok(StartContainerRequest {
        container_id: record.id.clone(),
        prepare: Some(prepare(record, lowers, false)?),
        process: Some(main_process(record)?),
        log: Some(log),
        stdin_once: record.config.stdin_once,
    })
}

/// The root file system and its surroundings. With `files_only` no process will run.
pub(crate) fn prepare(record: &Record, lowers: usize, files_only: bool) -> Result<PrepareRequest> {
    let (config, host) = (&record.config, &record.host);
    Ok(PrepareRequest {
        container_id: record.id.clone(),
        rootfs: Some(Rootfs {
            lower: (0..lowers).map(vm::layer_serial).collect(),
            writable: vm::WRITABLE.into(),
            readonly: host.readonly_rootfs && !files_only,
        }),
        hostname: config.hostname.clone(),
        domainname: config.domainname.clone(),
        mounts: mounts(host),
        managed_files: managed_files(record),
        sysctls: host.sysctls.clone().unwrap_or_default().into_iter().collect(),
        resources: Some(resources(host)),
        masked_paths: host.masked_paths.clone().unwrap_or_default(),
        readonly_paths: host.readonly_paths.clone().unwrap_or_default(),
        devices: devices(host)?,
        shm_size: u64::try_from(host.shm_size).unwrap_or(0),
        privileged: host.privileged,
        files_only,
        host_cgroupns: host.cgroupns_mode == "host",
        // Until there are volumes, an image's VOLUME is a directory like any other.
        directories: config.volumes.iter().flatten().map(|(path, _)| path.clone()).collect(),
        ..PrepareRequest::default()
    })
}

fn main_process(record: &Record) -> Result<ProcessSpec> {
    let (config, host) = (&record.config, &record.host);
    let mut process = process(record, config.tty, host.privileged)?;
    process.args.clone_from(&record.args);
    process.env = environment(record, config.tty);
    process.cwd.clone_from(&config.working_dir);
    process.user.clone_from(&config.user);
    [process.console_height, process.console_width] = host.console_size;
    process.init = host.init.unwrap_or(false);
    process.stdin = config.open_stdin;
    Ok(process)
}

/// What the main process and every exec have in common.
pub(crate) fn process(record: &Record, terminal: bool, privileged: bool) -> Result<ProcessSpec> {
    let host = &record.host;
    let privileged_caps = HostConfig { privileged: true, ..HostConfig::default() };
    let capabilities = caps::resolve(if privileged { &privileged_caps } else { host })?;
    // As dockerd, which takes these from the container: a process joins its filter, whatever rights it has itself.
    let (seccomp, no_new_privileges) = security(host)?;
    Ok(ProcessSpec {
        additional_groups: host.group_add.clone().unwrap_or_default(),
        terminal,
        capabilities,
        no_new_privileges,
        rlimits: host.ulimits.iter().flatten().map(rlimit).collect(),
        oom_score_adj: (host.oom_score_adj != 0).then_some(host.oom_score_adj),
        seccomp: Some(seccomp),
        stdout: true,
        stderr: true,
        ..ProcessSpec::default()
    })
}

/// The variables of a process: Docker's own, then the container's, which win.
pub(crate) fn environment(record: &Record, terminal: bool) -> Vec<String> {
    let mut env = vec![PATH.to_owned(), format!("HOSTNAME={}", record.config.hostname)];
    if terminal {
        env.push("TERM=xterm".into());
    }
    replace_or_append(&mut env, record.config.env.iter().flatten());
    env
}

fn security(host: &HostConfig) -> Result<(SeccompProfile, bool)> {
    use seccomp_profile::Kind;
    let mut kind = if host.privileged { Kind::Unconfined } else { Kind::Default };
    let (mut json, mut no_new_privileges) = (Vec::new(), false);
    for option in host.security_opt.iter().flatten() {
        let (key, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => no_new_privileges = true,
            ("no-new-privileges", "false") => no_new_privileges = false,
            ("seccomp", "unconfined") => kind = Kind::Unconfined,
            ("seccomp", "builtin" | "") => kind = Kind::Default,
            ("seccomp", profile) => {
                serde_json::from_str::<serde_json::Value>(profile)
                    .map_err(|error| Error::invalid(format!("Decoding seccomp profile failed: {error}")))?;
                kind = Kind::Custom;
                json = profile.as_bytes().to_vec();
            }
            // Guests have neither AppArmor nor SELinux; what Docker accepts is accepted.
            ("apparmor" | "label" | "systempaths" | "writable-cgroups", _) => {}
            _ => return Err(Error::invalid(format!("invalid --security-opt 2: \"{option}\""))),
        }
    }
    Ok((SeccompProfile { kind: kind.into(), json: json.into() }, no_new_privileges))
}

fn rlimit(ulimit: &Ulimit) -> Rlimit {
    // Negative is unlimited.
    let value = |n: i64| u64::try_from(n).unwrap_or(u64::MAX);
    Rlimit { name: ulimit.name.clone(), soft: value(ulimit.soft), hard: value(ulimit.hard) }
}

/// Limits as the guest takes them.
pub(crate) fn resources(host: &HostConfig) -> Resources {
    let set = |n: i64| (n != 0).then_some(n);
    let unsigned = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0);
    let text = |s: &String| Some(s.clone()).filter(|s| !s.is_empty());
    // --cpus is a quota: moby's fixed period of 100 ms.
    let (quota, period) = if host.nano_cpus > 0 {
        (unsigned(host.nano_cpus / 10_000), Some(100_000))
    } else {
        (unsigned(host.cpu_quota), unsigned(host.cpu_period))
    };
    Resources {
        memory: set(host.memory),
        memory_swap: set(host.memory_swap),
        memory_reservation: set(host.memory_reservation),
        cpu_quota_us: quota,
        cpu_period_us: period,
        cpu_shares: unsigned(host.cpu_shares),
        cpuset_cpus: text(&host.cpuset_cpus),
        cpuset_mems: text(&host.cpuset_mems),
        pids_limit: host.pids_limit,
    }
}

fn mounts(host: &HostConfig) -> Vec<Mount> {
    let tmpfs = host.tmpfs.iter().flatten().map(|(target, options)| Mount {
        kind: mount::Kind::Tmpfs.into(),
        target: target.clone(),
        options: tmpfs_options(options.split(',').filter(|option| !option.is_empty()).map(str::to_owned)),
    });
    let mounts = host.mounts.iter().flatten().filter(|mount| mount.r#type == "tmpfs").map(mount_point);
    tmpfs.chain(mounts).collect()
}

fn mount_point(mount: &MountPoint) -> Mount {
    let mut options = Vec::new();
    if let Some(tmpfs) = &mount.tmpfs_options {
        if tmpfs.size_bytes > 0 {
            options.push(format!("size={}", tmpfs.size_bytes));
        }
        options.extend(tmpfs.mode.map(|mode| format!("mode={mode:o}")));
    }
    if mount.read_only {
        options.push("ro".into());
    }
    Mount {
        kind: mount::Kind::Tmpfs.into(),
        target: mount.target.clone(),
        options: tmpfs_options(options.into_iter()),
    }
}

fn tmpfs_options(own: impl Iterator<Item = String>) -> Vec<String> {
    let own: Vec<String> = own.collect();
    let opposed = |default: &str| own.iter().any(|option| default.strip_prefix("no") == Some(option));
    TMPFS
        .iter()
        .filter(|default| !opposed(default))
        .map(|default| (*default).to_owned())
        .chain(own.clone())
        .collect()
}

fn devices(host: &HostConfig) -> Result<Vec<Device>> {
    let device = |wanted: &super::model::Device| {
        let path = &wanted.path_on_host;
        let Some((_, major, minor)) = DEVICES.iter().find(|(known, ..)| known == path) else {
            return Err(Error::system(format!(
                "error gathering device information while adding custom device \"{path}\": no such file or directory"
            )));
        };
        let target = if wanted.path_in_container.is_empty() { path } else { &wanted.path_in_container };
        Ok(Device {
            path: target.clone(),
            kind: device::Kind::Char.into(),
            major: *major,
            minor: *minor,
            mode: 0o666,
            permissions: wanted.cgroup_permissions.clone(),
        })
    };
    host.devices.iter().flatten().map(device).collect()
}

/// `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`, as Docker writes them for `--network none`.
fn managed_files(record: &Record) -> Vec<ManagedFile> {
    let (config, host) = (&record.config, &record.host);
    let name = if config.domainname.is_empty() {
        config.hostname.clone()
    } else {
        format!("{0}.{1} {0}", config.hostname, config.domainname)
    };
    let mut hosts = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for entry in host.extra_hosts.iter().flatten() {
        // name:address; the address may hold colons itself.
        if let Some((name, address)) =
            entry.split_once([':', '=']).filter(|(_, address)| *address != "host-gateway")
        {
            hosts.push_str(&format!("{address}\t{name}\n"));
        }
    }
    // Nobody answers yet, but programs that look the name up must not wait for DNS.
    hosts.push_str(&format!("127.0.0.1\t{name}\n"));
    let lines = |word: &str, items: &Option<Vec<String>>| {
        items.iter().flatten().map(|item| format!("{word} {item}\n")).collect::<String>()
    };
    let mut resolv = lines("nameserver", &host.dns);
    for (word, items) in [("search", &host.dns_search), ("options", &host.dns_options)] {
        let items = items.as_deref().unwrap_or_default().join(" ");
        if !items.is_empty() {
            resolv.push_str(&format!("{word} {items}\n"));
        }
    }
    let file = |target: &str, content: String| ManagedFile {
        target: target.into(),
        content: content.into_bytes().into(),
        mode: 0o644,
    };
    vec![
        file("/etc/hosts", hosts),
        file("/etc/hostname", format!("{}\n", config.hostname)),
        file("/etc/resolv.conf", resolv),
    ]
}

/// Where and how the runner logs; `none` is no log.
///
/// # Errors
/// 400 for a bad `max-size` or `max-file`.
pub(crate) fn log_config(record: &Record, path: &std::path::Path) -> Result<LogConfig> {
    let log = &record.host.log_config;
    if log.r#type == "none" {
        return Ok(LogConfig::default());
    }
    let option = |options: &BTreeMap<String, String>, key: &str| options.get(key).cloned();
    let max_size = match option(&log.config, "max-size").as_deref() {
        None | Some("-1") => 0,
        Some(text) => crate::config::parse_size(text)
            .ok_or_else(|| Error::invalid(format!("invalid value for max-size: {text}")))?,
    };
    let max_file = match option(&log.config, "max-file") {
        None => 1,
        Some(text) => {
            text.parse().map_err(|_| Error::invalid(format!("invalid value for max-file: {text}")))?
        }
    };
    Ok(LogConfig { path: path.to_string_lossy().into_owned(), max_size, max_file })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::record::tests::record;

    #[test]
    fn the_containers_variables_win() {
        let mut record = record("a", "web");
        record.config.hostname = "h".into();
        record.config.env = Some(vec!["PATH=/x".into(), "A=1".into(), "HOSTNAME".into()]);
        assert_eq!(environment(&record, true), ["PATH=/x", "TERM=xterm", "A=1"]);
    }

    #[test]
    fn tmpfs_defaults_yield() {
        let words = |options: &str| tmpfs_options(options.split(',').map(str::to_owned)).join(",");
        assert_eq!(words("size=64m"), "noexec,nosuid,nodev,size=64m");
        assert_eq!(words("exec,size=1m"), "nosuid,nodev,exec,size=1m");
    }

    #[test]
    fn cpus_are_a_quota() {
        let limits = resources(&HostConfig { nano_cpus: 1_500_000_000, memory: 7, ..HostConfig::default() });
        assert_eq!((limits.cpu_quota_us, limits.cpu_period_us), (Some(150_000), Some(100_000)));
        assert_eq!((limits.memory, limits.memory_swap), (Some(7), None));
    }

    #[test]
    fn security_options() {
        let host = |options: &[&str]| HostConfig {
            security_opt: Some(options.iter().map(ToString::to_string).collect()),
            ..HostConfig::default()
        };
        let (profile, no_new) = security(&host(&["no-new-privileges", "seccomp={\"a\":1}"])).unwrap();
        assert!(no_new);
        assert_eq!((profile.kind(), &profile.json[..]), (seccomp_profile::Kind::Custom, &b"{\"a\":1}"[..]));
        let (profile, _) = security(&host(&["seccomp=unconfined"])).unwrap();
        assert_eq!(profile.kind(), seccomp_profile::Kind::Unconfined);
        assert!(security(&host(&["bogus=1"])).is_err());
        assert!(security(&host(&["seccomp={"])).is_err());
    }

    #[test]
    fn the_filter_is_the_containers_and_rights_may_be_the_execs() {
        let of = |container: bool, exec: bool| {
            let mut record = record("a", "web");
            record.host.privileged = container;
            let process = process(&record, false, exec).unwrap();
            (process.seccomp.unwrap().kind(), process.capabilities.len())
        };
        let (all, some) = (caps::ALL.len(), caps::DEFAULT.len());
        assert_eq!(of(true, false), (seccomp_profile::Kind::Unconfined, all));
        assert_eq!(of(true, true), (seccomp_profile::Kind::Unconfined, all));
        assert_eq!(of(false, true), (seccomp_profile::Kind::Default, all));
        assert_eq!(of(false, false), (seccomp_profile::Kind::Default, some));
    }

    /// SPEC C4
    #[test]
    fn devices_keep_their_permissions() {
        let fuse = super::super::model::Device {
            path_on_host: "/dev/fuse".into(),
            cgroup_permissions: "r".into(),
            ..Default::default()
        };
        let host = HostConfig { devices: Some(vec![fuse]), ..HostConfig::default() };
        assert_eq!(devices(&host).unwrap()[0].permissions, "r");
    }

    #[test]
    fn unknown_devices_are_named() {
        let device = super::super::model::Device { path_on_host: "/dev/nope".into(), ..Default::default() };
        let host = HostConfig { devices: Some(vec![device]), ..HostConfig::default() };
        assert!(devices(&host).unwrap_err().message.contains("/dev/nope"));
    }
}
