//! What the host's kernel keeps a hypervisor from, beside its seccomp filter.

use std::ffi::OsString;

use rustix::process::{Resource, getrlimit};

/// Open files: disks, rings' events and some for itself; a few hundred.
const FILES: u64 = 1024;
/// Under memory pressure the kernel ends a VM rather than the daemon or a runner (0), proc(5).
const OOM_SCORE_ADJ: &str = "500";

/// Options of `prlimit`. `largest`: bytes of the largest file it may write. A core would hold the guest's memory.
pub(super) fn options(largest: u64) -> [OsString; 3] {
    [("core", Resource::Core, 0), ("nofile", Resource::Nofile, FILES), ("fsize", Resource::Fsize, largest)]
        .map(|(name, resource, wanted)| {
            // Only less can be had than there is.
            let most = getrlimit(resource).maximum.map_or(wanted, |most| most.min(wanted));
            format!("--{name}={most}:{most}").into()
        })
}

/// Makes a child the first to go when memory is short.
pub(super) fn expendable(pid: u32) {
    if let Err(error) = std::fs::write(format!("/proc/{pid}/oom_score_adj"), OOM_SCORE_ADJ) {
        tracing::warn!(%error, "OOM score of QEMU not set");
    }
}
