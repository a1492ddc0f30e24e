//! From the host's words to the launcher's.

use proto::sandbox::{PrepareRequest, ProcessSpec, device, mount};

use super::{Shared, rootfs::Root};
use crate::launch::{
    config::{Config, Device, First, Mount, Process},
    failure::Failure,
    seccomp,
};

/// The launcher's configuration of a process.
pub(super) fn config(spec: &ProcessSpec, cgroup_procs: String) -> Result<Config, Failure> {
    let seccomp = seccomp::programs(spec.seccomp.as_ref(), &spec.capabilities).map_err(Failure::plain)?;
    let size = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    let process = Process {
        args: spec.args.clone(),
        env: spec.env.clone(),
        cwd: spec.cwd.clone(),
        user: spec.user.clone(),
        additional_groups: spec.additional_groups.clone(),
        terminal: spec.terminal.then(|| (size(spec.console_width), size(spec.console_height))),
        capabilities: spec.capabilities.clone(),
        no_new_privileges: spec.no_new_privileges,
        rlimits: spec
            .rlimits
            .iter()
            .map(|l| Ok((rlimit(&l.name)?, l.soft, l.hard)))
            .collect::<Result<_, Failure>>()?,
        oom_score_adj: spec.oom_score_adj.unwrap_or(0),
        init: spec.init,
    };
    Ok(Config { fds: Vec::new(), cgroup_procs, first: None, process, boost: false, seccomp })
}

/// The set-up of a container's first process.
pub(super) fn first(request: &PrepareRequest, root: &Root, shared: &Shared) -> First {
    let mut sysctls: Vec<(String, String)> = request.sysctls.clone().into_iter().collect();
    sysctls.sort_unstable();
    First {
        root: root.path().display().to_string(),
        shm: shared.shm.clone().unwrap_or_else(|| root.shm().display().to_string()),
        readonly: request.rootfs.as_ref().is_some_and(|rootfs| rootfs.readonly),
        privileged: request.privileged,
        new_ipc: shared.ipc.is_none(),
        new_cgroup: !request.host_cgroupns,
        hostname: request.hostname.clone(),
        domainname: request.domainname.clone(),
        mounts: request.mounts.iter().map(mount).collect(),
        devices: request.devices.iter().map(device).collect(),
        sysctls,
        masked: request.masked_paths.clone(),
        readonly_paths: request.readonly_paths.clone(),
    }
}

fn mount(mount: &proto::sandbox::Mount) -> Mount {
    let kind = match mount.kind() {
        mount::Kind::Tmpfs => "tmpfs",
        mount::Kind::Mqueue => "mqueue",
    };
    Mount { kind: kind.to_owned(), target: mount.target.clone(), options: mount.options.clone() }
}

fn device(device: &proto::sandbox::Device) -> Device {
    Device {
        path: device.path.clone(),
        block: device.kind() == device::Kind::Block,
        major: device.major,
        minor: device.minor,
        mode: device.mode,
    }
}

/// docker's names, with or without `RLIMIT_`.
fn rlimit(name: &str) -> Result<u32, Failure> {
    let lower = name.to_ascii_lowercase();
    let number = match lower.strip_prefix("rlimit_").unwrap_or(&lower) {
        "as" => libc::RLIMIT_AS,
        "core" => libc::RLIMIT_CORE,
        "cpu" => libc::RLIMIT_CPU,
        "data" => libc::RLIMIT_DATA,
        "fsize" => libc::RLIMIT_FSIZE,
        "locks" => libc::RLIMIT_LOCKS,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        "nice" => libc::RLIMIT_NICE,
        "nofile" => libc::RLIMIT_NOFILE,
        "nproc" => libc::RLIMIT_NPROC,
        "rss" => libc::RLIMIT_RSS,
        "rtprio" => libc::RLIMIT_RTPRIO,
        "rttime" => libc::RLIMIT_RTTIME,
        "sigpending" => libc::RLIMIT_SIGPENDING,
        "stack" => libc::RLIMIT_STACK,
        _ => return Err(Failure::plain(format_args!("invalid ulimit type: {name}"))),
    };
    // Unsigned with glibc, signed with musl.
    #[allow(clippy::unnecessary_cast, reason = "not the same type with musl")]
    Ok(number as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_dockers_names() {
        assert_eq!(rlimit("nofile").unwrap(), libc::RLIMIT_NOFILE);
        assert_eq!(rlimit("RLIMIT_CORE").unwrap(), libc::RLIMIT_CORE);
        assert_eq!(rlimit("files").unwrap_err().message, "invalid ulimit type: files");
    }
}
