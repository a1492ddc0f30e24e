//! What the host's kernel keeps a hypervisor from, beside its seccomp filter.

use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// Open files: disks, rings' events and some for itself; a few hundred.
const FILES: u64 = 1024;
/// Under memory pressure the kernel ends a VM rather than the daemon or a runner (0), proc(5).
const OOM_SCORE_ADJ: &str = "500";

/// Sets them for a child that was just started. `largest`: bytes of the largest file it may write.
pub(super) fn set(pid: u32, largest: u64) {
    let Some(child) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    // A core would hold the guest's memory.
    for (resource, most) in [(Resource::Core, 0), (Resource::Nofile, FILES), (Resource::Fsize, largest)] {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        if let Err(error) = prlimit(Some(child), resource, limit) {
            tracing::warn!(%error, ?resource, "limit of QEMU not set");
        }
    }
    if let Err(error) = std::fs::write(format!("/proc/{pid}/oom_score_adj"), OOM_SCORE_ADJ) {
        tracing::warn!(%error, "OOM score of QEMU not set");
    }
}
