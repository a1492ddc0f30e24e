//! What PID 1 tells the launcher, as JSON behind a 4-byte little-endian length; descriptors travel with the length.

use serde::{Deserialize, Serialize};

/// Everything the launcher needs.
#[derive(Serialize, Deserialize, Debug, Default)]
pub(crate) struct Config {
    /// What the passed descriptors are, in order.
    pub(crate) fds: Vec<FdRole>,
    /// The `cgroup.procs` file to join.
    pub(crate) cgroup_procs: String,
    /// The set-up of a container's first process; without it the process joins [`FdRole::Namespaces`].
    pub(crate) first: Option<First>,
    /// The process itself.
    pub(crate) process: Process,
    /// Keep PID 1's priority for the beginning.
    pub(crate) boost: bool,
    /// Compiled filters (`sock_filter`s as 64-bit words), in the order of installation.
    pub(crate) seccomp: Vec<Vec<u64>>,
}

/// What a passed descriptor is.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FdRole {
    /// 0, 1 or 2 of the process.
    Stdio(i32),
    /// A namespace or pidfd for setns(2) with these `CLONE_NEW*` flags.
    Namespaces(i32),
}

/// Set-up of the container's root and namespaces.
#[derive(Serialize, Deserialize, Debug, Default)]
pub(crate) struct First {
    /// Mounted root directory, as PID 1 sees it.
    pub(crate) root: String,
    /// Mount point of the container's /dev/shm, as PID 1 sees it.
    pub(crate) shm: String,
    /// Make the root read-only at the end.
    pub(crate) readonly: bool,
    /// No read-only /sys and cgroup.
    pub(crate) privileged: bool,
    /// New IPC namespace (else one was passed).
    pub(crate) new_ipc: bool,
    /// New cgroup namespace.
    pub(crate) new_cgroup: bool,
    /// UTS names.
    pub(crate) hostname: String,
    /// NIS domain; empty: none.
    pub(crate) domainname: String,
    /// Mounts the user asked for.
    pub(crate) mounts: Vec<Mount>,
    /// Extra device nodes.
    pub(crate) devices: Vec<Device>,
    /// Kernel parameters, dotted names.
    pub(crate) sysctls: Vec<(String, String)>,
    /// Hidden paths.
    pub(crate) masked: Vec<String>,
    /// Read-only paths.
    pub(crate) readonly_paths: Vec<String>,
}

/// A mount of the user.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub(crate) struct Mount {
    /// `tmpfs` or `mqueue`.
    pub(crate) kind: String,
    /// Absolute path in the container.
    pub(crate) target: String,
    /// mount(8) words.
    pub(crate) options: Vec<String>,
}

/// A device node.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub(crate) struct Device {
    /// Absolute path in the container.
    pub(crate) path: String,
    /// Block device, else character device.
    pub(crate) block: bool,
    /// Device number.
    pub(crate) major: u32,
    /// Device number.
    pub(crate) minor: u32,
    /// Permission bits.
    pub(crate) mode: u32,
}

/// The process to become.
#[derive(Serialize, Deserialize, Debug, Default)]
pub(crate) struct Process {
    /// Command and arguments.
    pub(crate) args: Vec<String>,
    /// Environment as docker passes it.
    pub(crate) env: Vec<String>,
    /// Working directory.
    pub(crate) cwd: String,
    /// docker's --user.
    pub(crate) user: String,
    /// docker's --group-add.
    pub(crate) additional_groups: Vec<String>,
    /// Window size when it runs on a terminal.
    pub(crate) terminal: Option<(u16, u16)>,
    /// `CAP_*`
    pub(crate) capabilities: Vec<String>,
    /// `PR_SET_NO_NEW_PRIVS`
    pub(crate) no_new_privileges: bool,
    /// `RLIMIT_*` number, soft, hard.
    pub(crate) rlimits: Vec<(u32, u64, u64)>,
    /// Default 0.
    pub(crate) oom_score_adj: i32,
    /// Run arca-init's minimal init as PID 1.
    pub(crate) init: bool,
}
