//! What the kernel says about itself and the machine.

use std::fs;

/// The kernel's command line; empty when /proc is not there.
pub(crate) fn command_line() -> String {
    fs::read_to_string("/proc/cmdline").unwrap_or_default()
}

/// Milliseconds since the kernel started.
pub(crate) fn uptime_ms() -> u64 {
    let boot = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    boot.map_or(0, |time| {
        u64::try_from(time.tv_sec()).unwrap_or(0) * 1000
            + u64::try_from(time.tv_nsec()).unwrap_or(0) / 1_000_000
    })
}

/// Memory of the machine in bytes.
pub(crate) fn memory_total() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram * u64::from(info.mem_unit)
}

/// Processors online.
pub(crate) fn cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}
