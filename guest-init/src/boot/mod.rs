//! PID 1's life: mounts, the server, power-off.

pub(crate) mod kernel;
mod mounts;

pub(crate) mod power;

pub(crate) use mounts::CGROUP_ROOT;

use std::process::ExitCode;

use crate::{log, server};

/// Never returns to the kernel: a PID 1 that ends is a kernel panic.
pub(crate) fn main() -> ExitCode {
    power::install_panic_hook();
    if let Err(error) = mounts::early() {
        log::error!("{error}");
        power::off();
    }
    log::open(&kernel::command_line());
    // Ctrl-Alt-Del would reset the VM behind the host's back.
    let _ = nix::sys::reboot::set_cad_enabled(false);
    let _ = nix::unistd::sethostname("arca");
    // The OOM killer must take a container's process instead. The launcher sets its own value back.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    if let Err(error) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(32)
        .build()
        .map_err(server::ServeError::Runtime)
        .and_then(|runtime| runtime.block_on(server::serve()))
    {
        log::error!("{error}");
    }
    power::off()
}
