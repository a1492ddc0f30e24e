//! What `docker info` shows.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    engine::{Engine, clock},
    error::Result,
};

/// This host's architecture as Go names it.
pub(super) const GOARCH: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    std::env::consts::ARCH
};

pub(super) fn info(engine: &Engine) -> Result<Value> {
    let counts = engine.counts();
    let machine = &engine.machine;
    let config = &engine.config;
    let mut info = json!({
        "ID": identity(engine.home.root()),
        "Containers": counts.running + counts.paused + counts.stopped,
        "ContainersRunning": counts.running,
        "ContainersPaused": counts.paused,
        "ContainersStopped": counts.stopped,
        "Images": engine.images.list()?.len(),
        "Driver": "erofs",
        "DriverStatus": [
            ["Layers", "EROFS, one read-only disk for each"],
            ["Writable disk", "ext4, sparse"],
            ["Accelerator", machine.accelerator.as_str()],
            ["VM", format!("{} CPUs, {} MiB unless a container says otherwise", machine.cpus, machine.memory_mib)],
            ["Network Backend", config.network_backend.as_str()],
        ],
        "Plugins": {"Volume": [], "Network": ["null"], "Authorization": null, "Log": ["json-file"]},
        "MemoryLimit": true, "SwapLimit": true, "KernelMemoryTCP": false, "CpuCfsPeriod": true, "CpuCfsQuota": true,
        "CPUShares": true, "CPUSet": true, "PidsLimit": true, "IPv4Forwarding": true,
        "Debug": config.log_level == crate::config::LogLevel::Debug,
        "NFd": std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
        "OomKillDisable": false,
        "NGoroutines": tokio::runtime::Handle::current().metrics().num_alive_tasks(),
    });
    let rest = json!({
        "SystemTime": clock::now(),
        "LoggingDriver": "json-file", "CgroupDriver": "cgroupfs", "CgroupVersion": "2", "NEventsListener": 0,
        "KernelVersion": guest_kernel(&machine.kernel),
        "OperatingSystem": operating_system(), "OSVersion": "", "OSType": "linux",
        "Architecture": std::env::consts::ARCH,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": registries(config),
        "NCPU": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "MemTotal": host_memory(),
        "GenericResources": null,
        "DockerRootDir": engine.home.root(),
        "HttpProxy": "", "HttpsProxy": "", "NoProxy": "",
        "Name": nix::unistd::gethostname().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        "Labels": [], "ExperimentalBuild": false,
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "Runtimes": {"arca": {"path": std::env::current_exe().unwrap_or_default()}},
        "DefaultRuntime": "arca",
        "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "",
            "RemoteManagers": null},
        // Containers outlive the daemon.
        "LiveRestoreEnabled": true,
        "Isolation": "", "InitBinary": "arca-init",
        "ContainerdCommit": {"ID": ""}, "RuncCommit": {"ID": ""}, "InitCommit": {"ID": ""},
        "SecurityOptions": ["name=seccomp,profile=builtin"],
        "FirewallBackend": {"Driver": "none"},
        "CDISpecDirs": [],
        "Warnings": warnings(machine),
    });
    // In two, since one would exceed the macro's depth.
    if let (Value::Object(info), Value::Object(rest)) = (&mut info, rest) {
        info.extend(rest);
    }
    Ok(info)
}

fn warnings(machine: &crate::config::Machine) -> Vec<String> {
    let network = "WARNING: No network: every container runs as with --network none".to_owned();
    let slow = machine.accelerator_note.as_ref();
    let slow = slow.map(|why| format!("WARNING: VMs are emulated, which is slow: {why} (see `arca doctor`)"));
    [Some(network), slow].into_iter().flatten().collect()
}

/// The same for the same home on the same host.
fn identity(home: &Path) -> String {
    let mut hash = Sha256::new();
    hash.update(std::fs::read("/etc/machine-id").unwrap_or_default());
    hash.update(home.as_os_str().as_encoded_bytes());
    let mut text = String::with_capacity(36);
    for (at, byte) in hash.finalize().iter().take(16).enumerate() {
        let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
        text.push_str(&format!("{dash}{byte:02x}"));
    }
    text
}

/// The version in a bzImage's header (kernel's Documentation/arch/x86/boot.rst, `kernel_version`); else nothing.
pub(super) fn guest_kernel(path: &Path) -> String {
    let read = || {
        let file = File::open(path).ok()?;
        let mut header = [0; 0x10];
        file.read_exact_at(&mut header, 0x200).ok()?;
        if &header[2..6] != b"HdrS" {
            return None;
        }
        let offset = u64::from(u16::from_le_bytes([header[0xe], header[0xf]]));
        let mut text = [0; 128];
        let length = file.read_at(&mut text, offset + 0x200).ok()?;
        let text = String::from_utf8_lossy(&text[..length]).into_owned();
        text.split([' ', '\0']).next().map(str::to_owned)
    };
    read().unwrap_or_default()
}

fn operating_system() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| std::env::consts::OS.to_owned(), |n| n.trim_matches('"').to_owned())
}

/// Bytes.
fn host_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.unwrap_or(0_u64) * 1024
}

fn registries(config: &crate::config::Config) -> Value {
    let mirrors: Vec<String> =
        config.registry_mirrors.iter().map(|m| format!("{}/", m.trim_end_matches('/'))).collect();
    let (cidrs, hosts): (Vec<_>, Vec<_>) = config.insecure_registries.iter().partition(|r| r.contains('/'));
    let mut cidrs: Vec<&str> = cidrs.into_iter().map(String::as_str).collect();
    cidrs.extend(["::1/128", "127.0.0.0/8"]);
    let mut indexes = serde_json::Map::new();
    for host in hosts {
        indexes
            .insert(host.clone(), json!({"Mirrors": [], "Name": host, "Official": false, "Secure": false}));
    }
    let official = json!({"Mirrors": mirrors, "Name": "docker.io", "Official": true, "Secure": true});
    indexes.insert("docker.io".into(), official);
    json!({"IndexConfigs": indexes, "InsecureRegistryCIDRs": cidrs, "Mirrors": mirrors})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_version_is_read_from_the_header() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bzImage");
        let mut image = vec![0_u8; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        image[0x300..0x310].copy_from_slice(b"6.1.170-arca (x)");
        std::fs::write(&path, &image).unwrap();
        assert_eq!(guest_kernel(&path), "6.1.170-arca");
        std::fs::write(&path, b"short").unwrap();
        assert_eq!(guest_kernel(&path), "");
        // A pointer behind the end of the file.
        image[0x20e..0x210].copy_from_slice(&0xffff_u16.to_le_bytes());
        std::fs::write(&path, &image).unwrap();
        assert_eq!(guest_kernel(&path), "");
    }

    #[test]
    fn identity_differs_between_homes() {
        let (a, b) = (identity(Path::new("/a")), identity(Path::new("/b")));
        assert_ne!(a, b);
        assert_eq!(a.len(), 36);
    }
}
