//! A container's VM as the host sees it: its processes and its folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::daemon::Daemon;

/// Processes of one VM.
#[derive(Debug, Clone)]
pub struct Vm {
    /// Full id of the container.
    pub id: String,
    /// The runner; 0: not found.
    pub runner: u32,
    /// The hypervisor; 0: not found.
    pub qemu: u32,
}

impl Vm {
    /// The VM of a container, by name or id; processes that are not there are 0.
    ///
    /// # Panics
    /// When there is no such container: this is a test's assertion.
    #[must_use]
    #[track_caller]
    pub fn of(daemon: &Daemon, container: &str) -> Self {
        let id = daemon.docker().run(&["inspect", "-f", "{{.Id}}", container]).ok().to_owned();
        let short = id.get(..12).unwrap_or(&id);
        let lock = fs::read_to_string(run_dir(daemon.home(), short).join("runner.lock")).unwrap_or_default();
        let runner = lock.split("\"pid\":").nth(1).and_then(|rest| {
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok().filter(|pid| lives(*pid))
        });
        let qemu = qemu(short).unwrap_or_default();
        Self { runner: runner.unwrap_or_default(), qemu, id }
    }

    /// Whether a process of it is left.
    #[must_use]
    pub fn lives(&self) -> bool {
        lives(self.runner) || lives(self.qemu)
    }
}

/// Folder of a VM's sockets.
#[must_use]
pub fn run_dir(home: &Path, short: &str) -> PathBuf {
    home.join("run").join(short)
}

/// The QEMU whose name has a container's short id, once it is QEMU (a moment before it is `setpriv`).
#[must_use]
pub fn qemu(short: &str) -> Option<u32> {
    let wanted = format!("\0-name\0arca-{short}\0");
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_qemu = |pid: &u32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).contains(&wanted)
            && !words.starts_with(b"prlimit")
            && !words.starts_with(b"setpriv")
            && lives(*pid)
    };
    pids.into_iter().find(is_qemu)
}

/// Whether a process is there and no zombie.
#[must_use]
pub fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    pid != 0 && !stat.is_empty() && !stat.contains(") Z ")
}

/// Sends a signal by name to a process that was found before.
///
/// # Panics
/// When it cannot be sent: this is a test's assertion.
#[track_caller]
pub fn signal(pid: u32, name: &str) {
    assert_ne!(pid, 0, "no process to send SIG{name} to");
    let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -{name} {pid}");
}
