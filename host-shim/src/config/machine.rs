//! What all VMs of a daemon have in common.

use std::path::PathBuf;

use runner::Accelerator;

use super::{Config, Lookup, find_initramfs, find_kernel, find_program};
use crate::{
    error::{Error, Result},
    home::Home,
};

/// Cores a VM gets by default at most, under KVM.
const MOST_DEFAULT_CPUS: usize = 4;

/// What all VMs of a daemon have in common: found once at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// This program, for `arca runner`.
    pub arca: PathBuf,
    /// Kernel image.
    pub kernel: PathBuf,
    /// Initramfs with arca-init as `/init`.
    pub initramfs: PathBuf,
    /// QEMU.
    pub qemu: PathBuf,
    /// How guests' code runs.
    pub accelerator: Accelerator,
    /// Virtual CPUs of a VM unless the container says otherwise.
    pub cpus: u32,
    /// Memory of a VM in MiB unless the container says otherwise.
    pub memory_mib: u64,
}

impl Machine {
    /// Looks everything up and picks the accelerator (boots a test VM where KVM might work: up to 10 s).
    ///
    /// # Errors
    /// When something is missing: names every place looked at and what to do.
    pub async fn find(config: &Config, home: &Home) -> Result<Self> {
        let found = |lookup: Lookup| lookup.found.clone().ok_or_else(|| Error::system(lookup.advice()));
        let arca = std::env::current_exe()
            .map_err(|e| Error::system("cannot find the path of this program").because(e))?;
        let kernel = found(find_kernel(config, home))?;
        let initramfs = found(find_initramfs(config, home))?;
        let qemu = found(find_program("qemu-system-x86_64", "install the package qemu-system-x86"))?;
        let accelerator = runner::pick_accelerator(&kernel, &initramfs, &qemu).await;
        Ok(Self {
            arca,
            kernel,
            initramfs,
            qemu,
            accelerator,
            cpus: config.default_cpus.unwrap_or_else(|| default_cpus(accelerator)),
            memory_mib: config.default_memory >> 20,
        })
    }
}

/// One CPU under TCG: with more, guests fall back to the jiffies clock and translated code gains little. Else the host's
/// cores, up to four.
fn default_cpus(accelerator: Accelerator) -> u32 {
    match accelerator {
        Accelerator::Tcg => 1,
        Accelerator::Kvm => {
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            u32::try_from(cores.min(MOST_DEFAULT_CPUS)).unwrap_or(1)
        }
    }
}
