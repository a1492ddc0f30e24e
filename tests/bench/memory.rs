//! Memory of the daemon and of what stands beside one idle container, and how it grows with 10 and 20.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::Result;
use tests::daemon::Daemon;

pub(crate) fn bench() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.load("busybox")?;
    let mut running = 0;
    for n in [0, 1, 10, 20] {
        while running < n {
            let out = daemon.docker().run(&["run", "-d", "busybox", "sleep", "3600"]);
            out.ok();
            running += 1;
        }
        // What a boot touched and gave back is gone by then.
        std::thread::sleep(std::time::Duration::from_secs(2));
        println!("{n} containers");
        for (what, (count, rss, pss)) in usage(daemon.home())? {
            let count_f = f64::from(count.max(1));
            println!(
                "  {what:<20} x {count:<3} each {:6.1} MiB RSS, {:6.1} MiB PSS",
                rss as f64 / 1024.0 / count_f,
                pss as f64 / 1024.0 / count_f
            );
        }
    }
    Ok(())
}

/// RSS and PSS in KiB by kind of process, of everything whose command line or environment names `home`.
fn usage(home: &Path) -> Result<BTreeMap<&'static str, (u32, u64, u64)>> {
    let mut kinds = BTreeMap::new();
    let found = Command::new("pgrep").arg("-f").arg(home).output()?;
    let listed = String::from_utf8(found.stdout)?;
    let daemon_pid = std::fs::read_to_string(home.join("daemon.lock")).unwrap_or_default();
    for pid in listed.split_whitespace().chain(daemon_pid.split_whitespace().take(1)) {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let kind = match command.as_str() {
            c if c.contains("qemu-system") => "QEMU",
            c if c.contains(" runner ") => "arca runner",
            c if c.contains(" daemon run") => "arca daemon",
            _ => continue,
        };
        let Ok(rollup) = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
        let field = |name: &str| -> u64 {
            let line = rollup.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or_default()
        };
        let entry = kinds.entry(kind).or_insert((0, 0, 0));
        *entry = (entry.0 + 1, entry.1 + field("Rss:"), entry.2 + field("Pss:"));
    }
    Ok(kinds)
}
