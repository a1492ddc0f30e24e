//! What the host's kernel keeps a hypervisor from, beside its seccomp filter.

use std::ffi::OsString;

/// Open files: disks, rings' events and some for itself; a few hundred.
const FILES: u64 = 1024;
/// Under memory pressure the kernel ends a VM rather than the daemon or a runner (0), proc(5).
const OOM_SCORE_ADJ: &str = "500";

/// Options of `prlimit`. `largest`: bytes of the largest file it may write. A core would hold the guest's memory.
pub(super) fn options(largest: u64) -> [OsString; 3] {
    [("core", 0), ("nofile", FILES), ("fsize", largest)]
        .map(|(resource, most)| format!("--{resource}={most}:{most}").into())
}

/// Makes a child the first to go when memory is short.
pub(super) fn expendable(pid: u32) {
    if let Err(error) = std::fs::write(format!("/proc/{pid}/oom_score_adj"), OOM_SCORE_ADJ) {
        tracing::warn!(%error, "OOM score of QEMU not set");
    }
}
