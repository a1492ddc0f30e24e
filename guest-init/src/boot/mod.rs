//! PID 1's life: mounts, the server, power-off.

pub(crate) mod kernel;
mod mounts;
pub(crate) mod power;
pub(crate) mod reserve;

pub(crate) use mounts::CGROUP_ROOT;

use std::process::ExitCode;

use crate::{log, server};

/// Of idle threads for blocking work: for ever.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(u32::MAX as u64);

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
    reserve::take();
    if let Err(error) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(32)
        // With at least one thread alive, work waits for it when the kernel refuses another; without any, tokio panics.
        .thread_keep_alive(KEEP_ALIVE)
        .build()
        .map_err(server::ServeError::Runtime)
        .and_then(|runtime| {
            runtime.block_on(async {
                let _ = tokio::task::spawn_blocking(|| ()).await;
                server::serve().await
            })
        })
    {
        log::error!("{error}");
    }
    power::off()
}
