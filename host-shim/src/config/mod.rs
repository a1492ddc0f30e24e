//! `config.json` of an `ARCA_HOME`, and what a daemon finds on its host.

mod load;
mod lookup;
mod machine;
mod qemu;
mod size;

use std::{net::IpAddr, path::PathBuf, time::Duration};

pub use load::ConfigError;
pub use lookup::{Lookup, Place, cache_current, find_initramfs, find_kernel, find_program};
pub use machine::{Machine, this_program};
pub use qemu::Qemu;
pub use size::parse_size;

use crate::home::Home;

/// Memory of a VM unless the configuration or `-m` says otherwise. It costs little: a guest's memory is taken from the host
/// page by page as it is used, only its page descriptors (64 bytes per 4 KiB, 1.6 %) are touched at boot.
pub const DEFAULT_MEMORY: u64 = 2 << 30;
/// Time a guest has to boot unless the configuration says otherwise: a second is usual, twenty boots at once on two loaded
/// cores without hardware virtualization take much longer.
pub const DEFAULT_BOOT_TIMEOUT: Duration = Duration::from_secs(90);

/// What `config.json` says, checked; plain data. Every key may be absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `networkBackend`: who connects containers.
    pub network_backend: NetworkBackend,
    /// `kernelPath`: kernel of all VMs.
    pub kernel_path: Option<PathBuf>,
    /// `initramfsPath`: initramfs of all VMs.
    pub initramfs_path: Option<PathBuf>,
    /// `socketPath`: the API socket.
    pub socket_path: Option<PathBuf>,
    /// `logLevel`: what the daemon writes into its log.
    pub log_level: LogLevel,
    /// `registryMirrors`: URLs asked before Docker Hub.
    pub registry_mirrors: Vec<String>,
    /// `insecureRegistries`: `host[:port]` or CIDR reached over plain HTTP (or TLS without verification).
    pub insecure_registries: Vec<String>,
    /// `dns`: name servers of containers that name none.
    pub dns: Vec<IpAddr>,
    /// `defaultCpus`: virtual CPUs of a VM.
    pub default_cpus: Option<u32>,
    /// `defaultMemory`: memory of a VM in bytes.
    pub default_memory: u64,
    /// `bootTimeout`: from the start of a VM to its guest's first answer.
    pub boot_timeout: Duration,
    /// `maxLayerSize`: bytes of one unpacked layer.
    pub max_layer_size: u64,
    /// `maxLayerFiles`: files, folders and links of one unpacked layer.
    pub max_layer_files: u64,
}

impl Default for Config {
    fn default() -> Self {
        let limits = diskimg::Limits::default();
        Self {
            network_backend: NetworkBackend::Ovs,
            kernel_path: None,
            initramfs_path: None,
            socket_path: None,
            log_level: LogLevel::Info,
            registry_mirrors: Vec::new(),
            insecure_registries: Vec::new(),
            dns: Vec::new(),
            default_cpus: None,
            default_memory: DEFAULT_MEMORY,
            boot_timeout: DEFAULT_BOOT_TIMEOUT,
            max_layer_size: limits.max_bytes,
            max_layer_files: limits.max_inodes,
        }
    }
}

impl Config {
    /// Upper bounds of one layer disk.
    #[must_use]
    pub fn layer_limits(&self) -> diskimg::Limits {
        diskimg::Limits::of(self.max_layer_size, self.max_layer_files)
    }

    /// The API socket: configured, else `/var/run/arca.sock` for root with the default home, else in the home.
    #[must_use]
    pub fn socket(&self, home: &Home) -> PathBuf {
        if let Some(path) = &self.socket_path {
            return path.clone();
        }
        let default_home = std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".arca"));
        if nix::unistd::geteuid().is_root() && default_home.as_deref() == Some(home.root()) {
            return PathBuf::from("/var/run/arca.sock");
        }
        home.socket()
    }
}

/// Who connects containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkBackend {
    /// OVS and OVN in the helper VM.
    Ovs,
    /// No helper: a switch on the host, or macOS' vmnet.
    Vmnet,
}

impl NetworkBackend {
    /// As `config.json` spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ovs => "ovs",
            Self::Vmnet => "vmnet",
        }
    }
}

/// What goes into the log, by who must act: error: the operator now; warn: the operator some day; info: nobody, life cycle;
/// debug: developers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// For developers.
    Debug,
    /// Life cycle.
    Info,
    /// Should be looked at.
    Warn,
    /// Broken.
    Error,
}

impl LogLevel {
    /// As `config.json` spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}
