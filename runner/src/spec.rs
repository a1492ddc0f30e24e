//! What a runner is told: plain data, as JSON on disk.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;

/// Number of disks of every machine: one writable and the layers. Unused slots are empty dummies, so that all VMs have the
/// same devices (a VM is generic until `Prepare`).
pub const DISK_SLOTS: usize = 16;

/// One VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// Identity; hexadecimal, usually the container's.
    pub vm_id: String,
    /// Folder of sockets and the lock; a short path, gone after a reboot is fine. Made if missing.
    pub run_dir: PathBuf,
    /// Durable folder: `vm.json`, `exit.json`, `console.log`, `runner.log`. Made if missing.
    pub state_dir: PathBuf,
    /// Kernel image.
    pub kernel: PathBuf,
    /// Initramfs with arca-init as `/init`.
    pub initramfs: PathBuf,
    /// QEMU, `qemu-system-x86_64`.
    pub qemu: PathBuf,
    /// How the guest's code runs.
    pub accelerator: Accelerator,
    /// Virtual CPUs, at least 1.
    pub cpus: u32,
    /// Memory of the VM in MiB.
    pub memory_mib: u64,
    /// At most [`DISK_SLOTS`].
    pub disks: Vec<Disk>,
    /// Time from hypervisor start to the guest's first answer.
    pub boot_timeout_ms: u64,
}

/// One disk of a VM, a raw image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The image on the host.
    pub path: PathBuf,
    /// Serial number by which the guest finds it: at most 20 characters of `[A-Za-z0-9_.-]`.
    pub serial: String,
    /// Read-only disks may be shared by many VMs.
    pub readonly: bool,
}

/// How the guest's code runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// In hardware.
    Kvm,
    /// Translated by QEMU.
    Tcg,
}

impl Accelerator {
    /// QEMU's name for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

impl VmSpec {
    /// Reads a specification written by [`VmSpec::write`].
    ///
    /// # Errors
    /// When the file cannot be read or does not parse.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read(path).map_err(Error::file("read", path))?;
        serde_json::from_slice(&text).map_err(|source| Error::Damaged { path: path.to_owned(), source })
    }

    /// Writes the specification to `path`, whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|source| Error::Damaged { path: path.to_owned(), source })?;
        crate::exit::replace(path, &text)
    }

    /// Path of the runner's gRPC socket.
    #[must_use]
    pub fn runner_socket(&self) -> PathBuf {
        self.run_dir.join(RUNNER_SOCKET)
    }

    /// Path of the hybrid-vsock socket of the guest.
    #[must_use]
    pub fn vsock_socket(&self) -> PathBuf {
        self.run_dir.join(VSOCK_SOCKET)
    }

    /// Refuses what no machine can be built from.
    ///
    /// # Errors
    /// [`Error::Spec`] with the field at fault.
    pub fn check(&self) -> Result<(), Error> {
        let bad = |text: String| Err(Error::Spec(text));
        if self.vm_id.is_empty()
            || !self.vm_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        {
            return bad(format!("vm_id {:?}: letters, digits, '-' and '_' only", self.vm_id));
        }
        if self.cpus == 0 || self.cpus > 255 {
            return bad(format!("cpus {}: 1 to 255", self.cpus));
        }
        if self.memory_mib < 64 {
            return bad(format!("memory_mib {}: at least 64", self.memory_mib));
        }
        if self.disks.len() > DISK_SLOTS {
            return bad(format!("{} disks, the machine has {DISK_SLOTS} slots", self.disks.len()));
        }
        for (n, disk) in self.disks.iter().enumerate() {
            let serial = disk.serial.as_bytes();
            // virtio-blk's identity field has 20 bytes.
            if serial.is_empty()
                || serial.len() > 20
                || !serial.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
            {
                return bad(format!("disk serial {:?}: 1 to 20 of [A-Za-z0-9_.-]", disk.serial));
            }
            if self.disks[..n].iter().any(|other| other.serial == disk.serial) {
                return bad(format!("disk serial {:?} given twice", disk.serial));
            }
        }
        Ok(())
    }
}

/// File name of the runner's gRPC socket in the run folder.
pub(crate) const RUNNER_SOCKET: &str = "runner.sock";
/// File name of the hybrid-vsock socket in the run folder.
pub(crate) const VSOCK_SOCKET: &str = "vsock.sock";
/// File name of the lock in the run folder.
pub(crate) const LOCK: &str = "runner.lock";
/// File name of the specification in the state folder.
pub(crate) const SPEC: &str = "vm.json";
/// File name of the runner's own log in the state folder.
pub(crate) const RUNNER_LOG: &str = "runner.log";
/// File name of the guest's console in the state folder.
pub(crate) const CONSOLE_LOG: &str = "console.log";
