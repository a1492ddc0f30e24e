//! What all VMs of a daemon have in common.

use std::{
    io,
    path::{Path, PathBuf},
};

use runner::Accelerator;

use super::{Config, Lookup, Qemu, find_initramfs, find_kernel};
use crate::{
    error::{Error, Result},
    home::Home,
};

/// Cores a VM gets by default at most, under KVM.
const MOST_DEFAULT_CPUS: usize = 4;

/// What all VMs of a daemon have in common: found once at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// This program, for `arca runner`: see [`this_program`].
    pub arca: PathBuf,
    /// Kernel image.
    pub kernel: PathBuf,
    /// Initramfs with arca-init as `/init`.
    pub initramfs: PathBuf,
    /// QEMU.
    pub qemu: PathBuf,
    /// How guests' code runs.
    pub accelerator: Accelerator,
    /// Why guests are emulated, where they are.
    pub accelerator_note: Option<String>,
    /// Virtual CPUs of a VM unless the container says otherwise.
    pub cpus: u32,
    /// Memory of a VM in MiB unless the container says otherwise.
    pub memory_mib: u64,
}

impl Machine {
    /// One that boots nothing, for tests without VMs.
    #[cfg(test)]
    pub(crate) fn nowhere() -> Self {
        let nowhere = || PathBuf::from("/nonexistent");
        Self {
            arca: nowhere(),
            kernel: nowhere(),
            initramfs: nowhere(),
            qemu: nowhere(),
            accelerator: Accelerator::Tcg,
            accelerator_note: None,
            cpus: 1,
            memory_mib: 512,
        }
    }

    /// Looks everything up and picks the accelerator (boots a test VM where KVM might work: up to 10 s).
    ///
    /// # Errors
    /// When something is missing: names every place looked at and what to do.
    pub async fn find(config: &Config, home: &Home) -> Result<Self> {
        let found = |lookup: Lookup| lookup.found.clone().ok_or_else(|| Error::system(lookup.advice()));
        let arca =
            this_program().map_err(|e| Error::system("cannot find the path of this program").because(e))?;
        let kernel = found(find_kernel(config, home))?;
        let initramfs = found(find_initramfs(config, home))?;
        let qemu = tokio::task::spawn_blocking(Qemu::find)
            .await
            .map_err(|e| Error::system("the search for QEMU was lost").because(e))??
            .path;
        let (accelerator, accelerator_note) = runner::pick_accelerator(&kernel, &qemu).await;
        Ok(Self {
            arca,
            kernel,
            initramfs,
            qemu,
            accelerator,
            accelerator_note,
            cpus: config.default_cpus.unwrap_or_else(|| default_cpus(accelerator)),
            memory_mib: config.default_memory >> 20,
        })
    }
}

/// How this program starts itself. On Linux not by its path: a newer Arca may have been put there, or nothing at all, while
/// this one runs, and a daemon and its runners should be of one version.
///
/// # Errors
/// Where the operating system does not tell.
pub fn this_program() -> io::Result<PathBuf> {
    let image = Path::new("/proc/self/exe");
    if image.exists() { Ok(image.to_owned()) } else { std::env::current_exe() }
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
