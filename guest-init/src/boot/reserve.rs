//! What the guest keeps for itself, so that no container can starve PID 1: memory, tasks, files and processor time. Limits
//! of the kernel that are per user would be shared by PID 1 and a container's root; they are lifted where memory is
//! accounted to the container anyway.

use std::{fs, sync::OnceLock};

use crate::{
    boot::{CGROUP_ROOT, kernel},
    log,
};

/// Tasks that containers cannot have: PID 1's threads and launchers, and the kernel's.
const TASKS: u64 = 512;
/// Most tasks of containers for each processor: of more, none would run often enough to be entered or killed in time.
const TASKS_PER_CPU: u64 = 4096;
/// Bounds of the memory that containers cannot have.
const MEMORY: (u64, u64) = (8 << 20, 64 << 20);
/// Nested cgroups of all containers (systemd in a container makes some hundred).
const CGROUPS: (u32, u32) = (4096, 32);
/// PID 1 goes before any process of a container.
pub(crate) const NICE: i32 = -20;

/// Limits of the kernel that memory accounting makes superfluous (`filp`, `eventpoll_epi` and `task_struct` are charged).
const LIFTED: [(&str, &str); 3] = [
    ("/proc/sys/fs/file-max", "9223372036854775807"),
    ("/proc/sys/fs/epoll/max_user_watches", "9223372036854775807"),
    ("/proc/sys/kernel/pid_max", "4194304"),
];

/// Memory in use after boot, bytes.
static BASE: OnceLock<u64> = OnceLock::new();

/// Takes PID 1's share; before any container.
pub(super) fn take() {
    for (path, value) in LIFTED {
        set(path, value);
    }
    let tasks = number("/proc/sys/kernel/threads-max").unwrap_or(4096);
    let most = tasks.saturating_sub(TASKS).clamp(TASKS, TASKS_PER_CPU * u64::from(kernel::cpus()).max(1));
    set(&format!("{CGROUP_ROOT}/pids.max"), &most.to_string());
    set(&format!("{CGROUP_ROOT}/cgroup.max.descendants"), &CGROUPS.0.to_string());
    set(&format!("{CGROUP_ROOT}/cgroup.max.depth"), &CGROUPS.1.to_string());
    memory();
    // The launcher sets its own value back, as with the OOM score.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        log::warning!("nice {NICE}: {error}");
    }
}

/// Leaves containers what the machine has now without PID 1's share; to be called again when memory was plugged in.
pub(crate) fn memory() {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let (Some(total), Some(available)) = (field(&meminfo, "MemTotal:"), field(&meminfo, "MemAvailable:"))
    else {
        return log::warning!("/proc/meminfo: no totals");
    };
    let base = *BASE.get_or_init(|| total.saturating_sub(available));
    set(&format!("{CGROUP_ROOT}/memory.max"), &limit(total, base).to_string());
}

fn limit(total: u64, base: u64) -> u64 {
    let reserve = (total / 32).clamp(MEMORY.0, MEMORY.1);
    total.saturating_sub(base).saturating_sub(reserve).max(total / 4)
}

fn field(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.saturating_mul(1024))
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn set(path: &str, value: &str) {
    if let Err(error) = fs::write(path, value) {
        log::warning!("{path} = {value}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_memory_is_kept() {
        assert_eq!(limit(2 << 30, 100 << 20), (2 << 30) - (164 << 20));
        assert_eq!(limit(128 << 20, 30 << 20), 90 << 20);
        // Nonsense leaves containers something.
        assert_eq!(limit(64 << 20, 1 << 40), 16 << 20);
        assert_eq!(field("MemTotal:  100 kB\nMemAvailable: 50 kB\n", "MemAvailable:"), Some(51_200));
    }
}
