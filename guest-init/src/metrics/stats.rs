//! `Stats`: what `docker stats` shows.

use std::collections::HashMap;
use std::path::Path;

use proto::sandbox::{BlockIo, NetworkIo, StatsResponse};

use super::cgroup::{number, pairs, text};

/// Nanoseconds of one clock tick: USER_HZ is 100 on all architectures of Arca.
const TICK_NS: u64 = 10_000_000;

/// Reads the numbers of a container from its cgroup v2 directory, and its network counters from the network namespace of
/// `pid` (any process of the container). Missing files are zeros.
pub(crate) fn stats(cgroup: &Path, pid: Option<u32>) -> StatsResponse {
    stats_in(Path::new("/proc"), cgroup, pid)
}

/// [`stats`] with another `/proc`.
pub(crate) fn stats_in(proc: &Path, cgroup: &Path, pid: Option<u32>) -> StatsResponse {
    let map = |name: &str| pairs(&cgroup.join(name)).collect::<HashMap<_, _>>();
    let value = |name: &str| number(&cgroup.join(name));
    let cpu = map("cpu.stat");
    let cpu = |key: &str| cpu.get(key).copied().unwrap_or(0);
    let events = map("memory.events");
    let event = |key: &str| events.get(key).copied().unwrap_or(0);
    let (system_cpu_ns, online_cpus) = system_cpu(&text(&proc.join("stat")));
    StatsResponse {
        cpu_usage_ns: cpu("usage_usec").saturating_mul(1000),
        cpu_user_ns: cpu("user_usec").saturating_mul(1000),
        cpu_system_ns: cpu("system_usec").saturating_mul(1000),
        throttled_periods: cpu("nr_throttled"),
        throttling_periods: cpu("nr_periods"),
        throttled_ns: cpu("throttled_usec").saturating_mul(1000),
        system_cpu_ns,
        online_cpus,
        memory_usage: value("memory.current").unwrap_or(0),
        memory_limit: value("memory.max").unwrap_or_else(|| memory_total(proc)),
        memory_peak: value("memory.peak").unwrap_or(0),
        memory_stat: map("memory.stat"),
        pids_current: value("pids.current").unwrap_or(0),
        pids_limit: value("pids.max").unwrap_or(0),
        block_io: block_io(&text(&cgroup.join("io.stat"))),
        // As dockerd fills it on cgroup v2.
        memory_failcnt: event("oom"),
        oom_kills: event("oom_kill"),
        network_io: pid
            .map(|pid| network_io(&text(&proc.join(pid.to_string()).join("net/dev"))))
            .unwrap_or_default(),
    }
}

/// Memory of the whole guest, bytes.
pub(super) fn memory_total(proc: &Path) -> u64 {
    let meminfo = text(&proc.join("meminfo"));
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// Time of all cpus, idle time included, and how many there are. As in dockerd the sum goes from user to softirq: steal
/// is not in it.
fn system_cpu(stat: &str) -> (u64, u32) {
    let mut ticks = 0u64;
    let mut cpus = 0;
    for line in stat.lines() {
        let mut fields = line.split_whitespace();
        match fields.next() {
            Some("cpu") => {
                ticks =
                    fields.take(7).filter_map(|field| field.parse::<u64>().ok()).fold(0, u64::saturating_add);
            }
            Some(name) if name.starts_with("cpu") => cpus += 1,
            _ => {}
        }
    }
    (ticks.saturating_mul(TICK_NS), cpus)
}

/// Lines of `MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N ...`.
fn block_io(stat: &str) -> Vec<BlockIo> {
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let (major, minor) = fields.next()?.split_once(':')?;
        let mut io = BlockIo { major: major.parse().ok()?, minor: minor.parse().ok()?, ..BlockIo::default() };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match key {
                "rbytes" => io.read_bytes = value,
                "wbytes" => io.write_bytes = value,
                "rios" => io.reads = value,
                "wios" => io.writes = value,
                _ => {}
            }
        }
        Some(io)
    };
    stat.lines().filter_map(line).collect()
}

/// Lines of `NAME: 8 numbers received 8 numbers sent`; the loopback interface is left out.
fn network_io(dev: &str) -> Vec<NetworkIo> {
    let line = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|field| field.parse().ok()).collect();
        let [
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            _,
            _,
            _,
            _,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
            ..,
        ] = numbers[..]
        else {
            return None;
        };
        let interface = name.trim().to_owned();
        (interface != "lo").then_some(NetworkIo {
            interface,
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
        })
    };
    dev.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files() {
        let temp = tempfile::tempdir().unwrap();
        let (proc, cgroup) = (temp.path().join("proc"), temp.path().join("cgroup"));
        std::fs::create_dir_all(proc.join("5/net")).unwrap();
        std::fs::create_dir_all(&cgroup).unwrap();
        for (file, content) in [
            (
                "cpu.stat",
                "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 3\nthrottled_usec 9\n",
            ),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.peak", "8192\n"),
            ("memory.stat", "anon 1\nfile 2\n"),
            ("memory.events", "low 0\nmax 8\noom 2\noom_kill 1\n"),
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("io.stat", "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\nbad\n259:1 \n"),
        ] {
            std::fs::write(cgroup.join(file), content).unwrap();
        }
        std::fs::write(
            proc.join("stat"),
            "cpu  1 2 3 4 5 6 7 800 900 0\ncpu0 1 1\ncpu1 1\nintr 5\nbtime 9\n",
        )
        .unwrap();
        std::fs::write(proc.join("meminfo"), "MemTotal:  100 kB\nMemFree: 1 kB\n").unwrap();
        let dev = "Inter-|  Receive | Transmit\n face |bytes packets|bytes\n    lo: 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9\n\
            eth0:1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n";
        std::fs::write(proc.join("5/net/dev"), dev).unwrap();

        let stats = stats_in(&proc, &cgroup, Some(5));
        assert_eq!((stats.cpu_usage_ns, stats.cpu_user_ns, stats.cpu_system_ns), (30_000, 20_000, 10_000));
        assert_eq!((stats.throttling_periods, stats.throttled_periods, stats.throttled_ns), (4, 3, 9000));
        assert_eq!((stats.system_cpu_ns, stats.online_cpus), (28 * TICK_NS, 2));
        assert_eq!((stats.memory_usage, stats.memory_limit, stats.memory_peak), (4096, 102_400, 8192));
        assert_eq!((stats.memory_stat["file"], stats.memory_failcnt, stats.oom_kills), (2, 2, 1));
        assert_eq!((stats.pids_current, stats.pids_limit), (3, 0));
        let disk = BlockIo { major: 254, minor: 0, read_bytes: 1, write_bytes: 2, reads: 3, writes: 4 };
        assert_eq!(stats.block_io, [disk, BlockIo { major: 259, minor: 1, ..BlockIo::default() }]);
        assert_eq!(stats.network_io.len(), 1);
        let eth0 = &stats.network_io[0];
        assert_eq!((eth0.interface.as_str(), eth0.rx_bytes, eth0.rx_dropped), ("eth0", 1, 4));
        assert_eq!((eth0.tx_bytes, eth0.tx_dropped), (5, 8));
    }

    #[test]
    fn nothing_there_is_zeros() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(stats_in(temp.path(), temp.path(), Some(1)), StatsResponse::default());
        // And the real /proc of this machine has cpus and memory.
        let real = stats(temp.path(), Some(std::process::id()));
        assert!(real.online_cpus > 0 && real.system_cpu_ns > 0 && real.memory_limit > 0);
    }
}
