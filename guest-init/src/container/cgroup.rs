//! A container's cgroup (kernel documentation, cgroup-v2).

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proto::sandbox::Resources;

use crate::boot::CGROUP_ROOT;

/// For freezing, and for the death of what was killed.
const EVENT_WAIT: Duration = Duration::from_secs(10);
/// Default of cpu.max's period.
const PERIOD_US: u64 = 100_000;

/// A limit or a state that could not be set.
#[derive(Debug, thiserror::Error)]
#[error("cgroup {what}: {source}")]
pub(crate) struct CgroupError {
    what: String,
    source: io::Error,
}

/// One container's cgroup; its folder is made by [`Cgroup::create`].
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes the cgroup of a container.
    pub(crate) fn create(container: &str) -> Result<Self, CgroupError> {
        let short: String = container.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
        let mut path = Path::new(CGROUP_ROOT).join(&short);
        // IDs of one VM that begin alike: the whole one then.
        if path.exists() {
            path = Path::new(CGROUP_ROOT).join(container.replace('/', "_"));
        }
        fs::create_dir_all(&path)
            .map_err(|source| CgroupError { what: path.display().to_string(), source })?;
        Ok(Self { path })
    }

    /// Its folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file through which processes join.
    pub(crate) fn procs(&self) -> String {
        self.path.join("cgroup.procs").display().to_string()
    }

    /// Sets the limits that are named.
    pub(crate) fn apply(&self, resources: &Resources) -> Result<(), CgroupError> {
        for (file, value) in settings(resources, &self.cpu_max()) {
            self.write(file, &value)?;
        }
        Ok(())
    }

    fn cpu_max(&self) -> String {
        fs::read_to_string(self.path.join("cpu.max")).unwrap_or_default()
    }

    fn write(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        fs::write(self.path.join(file), value)
            .map_err(|source| CgroupError { what: format!("{file} = {value}"), source })
    }

    /// Stops or continues every process; answers when it is so.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<(), CgroupError> {
        let value = if frozen { "1" } else { "0" };
        self.write("cgroup.freeze", value)?;
        self.wait("cgroup.events", "frozen", value)
    }

    /// Kills every process; answers when none is left.
    pub(crate) fn kill(&self) -> Result<(), CgroupError> {
        self.write("cgroup.kill", "1")?;
        self.wait("cgroup.events", "populated", "0")
    }

    /// Process IDs, as PID 1 sees them.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let procs = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        // 0 is a process out of sight; to kill(2) it would mean ourselves.
        procs.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
    }

    /// How many tasks it has.
    pub(crate) fn tasks(&self) -> u64 {
        let current = fs::read_to_string(self.path.join("pids.current")).unwrap_or_default();
        current.trim().parse().unwrap_or(0)
    }

    /// How often the OOM killer came.
    pub(crate) fn oom_kills(&self) -> u64 {
        let events = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        value_of(&events, "oom_kill").and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// Removes the folder, with those that the container made in it, deepest first.
    pub(crate) fn remove(&self) {
        remove_tree(&self.path);
    }

    fn wait(&self, file: &str, key: &str, wanted: &str) -> Result<(), CgroupError> {
        let failed = |source| CgroupError { what: format!("wait for {key} {wanted} in {file}"), source };
        let events = fs::File::open(self.path.join(file)).map_err(failed)?;
        let deadline = Instant::now() + EVENT_WAIT;
        loop {
            // Reading takes note of the state; a change after it wakes the poll.
            let text = read_at_start(&events).map_err(failed)?;
            if value_of(&text, key) == Some(wanted) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(failed(io::ErrorKind::TimedOut.into()));
            }
            let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(&events), PollFlags::POLLPRI)];
            match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
    }
}

fn read_at_start(file: &fs::File) -> io::Result<String> {
    let mut text = [0; 256];
    let n = rustix::io::pread(file, &mut text, 0)?;
    Ok(String::from_utf8_lossy(text.get(..n).unwrap_or_default()).into_owned())
}

fn remove_tree(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}

/// The value of `key` in a file of `key value` lines.
fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
}

/// Docker's limits as files of the cgroup; `cpu_max` is what that file holds now.
fn settings(resources: &Resources, cpu_max: &str) -> Vec<(&'static str, String)> {
    let mut files = Vec::new();
    let limit = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
    let memory = resources.memory.map(|memory| if memory == 0 { -1 } else { memory });
    if let Some(memory) = memory {
        files.push(("memory.max", limit(memory)));
    }
    match (memory, resources.memory_swap) {
        (_, Some(-1)) => files.push(("memory.swap.max", "max".to_owned())),
        (Some(memory), Some(both)) if memory > 0 && both > 0 => {
            files.push(("memory.swap.max", limit((both - memory).max(0))));
        }
        // docker: as much swap as memory.
        (Some(memory), _) => files.push(("memory.swap.max", limit(memory))),
        _ => {}
    }
    if let Some(low) = resources.memory_reservation {
        files.push(("memory.low", if low < 0 { "max".to_owned() } else { low.to_string() }));
    }
    if resources.cpu_quota_us.is_some() || resources.cpu_period_us.is_some() {
        let mut now = cpu_max.split_ascii_whitespace();
        let quota = match resources.cpu_quota_us {
            Some(0) => "max".to_owned(),
            Some(quota) => quota.to_string(),
            None => now.next().unwrap_or("max").to_owned(),
        };
        let period = resources.cpu_period_us.filter(|period| *period > 0).unwrap_or(PERIOD_US);
        files.push(("cpu.max", format!("{quota} {period}")));
    }
    if let Some(shares) = resources.cpu_shares.filter(|shares| *shares > 0) {
        files.push(("cpu.weight", cpu_weight(shares).to_string()));
    }
    if let Some(cpus) = &resources.cpuset_cpus {
        files.push(("cpuset.cpus", cpus.clone()));
    }
    if let Some(mems) = &resources.cpuset_mems {
        files.push(("cpuset.mems", mems.clone()));
    }
    if let Some(pids) = resources.pids_limit {
        files.push(("pids.max", if pids <= 0 { "max".to_owned() } else { pids.to_string() }));
    }
    files
}

/// docker's 2..=262144 on cgroup v2's 1..=10000, as runc maps it.
fn cpu_weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + ((shares - 2) * 9999) / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_runcs() {
        assert_eq!([2, 1024, 262_144, 0, u64::MAX].map(cpu_weight), [1, 39, 10000, 1, 10000]);
    }

    #[test]
    fn dockers_swap_includes_memory() {
        let of = |memory, memory_swap| {
            settings(&Resources { memory, memory_swap, ..Resources::default() }, "")
                .into_iter()
                .map(|(file, value)| format!("{file}={value}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(Some(100), Some(150)), ["memory.max=100", "memory.swap.max=50"]);
        assert_eq!(of(Some(100), None), ["memory.max=100", "memory.swap.max=100"]);
        assert_eq!(of(Some(100), Some(-1)), ["memory.max=100", "memory.swap.max=max"]);
        assert_eq!(of(Some(-1), None), ["memory.max=max", "memory.swap.max=max"]);
        assert!(of(None, None).is_empty());
    }

    #[test]
    fn a_new_quota_keeps_its_file() {
        let resources = Resources { cpu_quota_us: Some(50_000), pids_limit: Some(0), ..Resources::default() };
        assert_eq!(
            settings(&resources, "max 100000"),
            [("cpu.max", "50000 100000".to_owned()), ("pids.max", "max".to_owned())]
        );
        let period = Resources { cpu_period_us: Some(20_000), ..Resources::default() };
        assert_eq!(settings(&period, "7000 100000\n"), [("cpu.max", "7000 20000".to_owned())]);
    }

    #[test]
    fn events_are_key_value_lines() {
        assert_eq!(value_of("populated 1\nfrozen 0\n", "frozen"), Some("0"));
        assert_eq!(value_of("oom 3\noom_kill 2\n", "oom_kill"), Some("2"));
    }
}
