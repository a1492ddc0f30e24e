//! What a process inherits from whoever starts it: signals and resource limits.

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::{SigSet, Signal},
};

use crate::error::{Error, Result};

/// File descriptors that some containers and clients need.
pub(super) const FEW_FILES: u64 = 1024;
/// Less than QEMU takes for a VM (85), with some for clients.
pub(super) const TOO_FEW_FILES: u64 = 256;
/// Threads that a daemon has at least, beside one for each core.
const THREADS: usize = 8;

/// Signals that a parent blocked arrive again: a blocked SIGTERM would make a daemon that cannot be stopped. SIGXFSZ stays
/// blocked, so that a write beyond the limit of file sizes is an error and does not end the process. Children start with no
/// signal blocked.
pub(super) fn clear_signals() {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGXFSZ);
    // Fails for no set that can be made.
    let _ = blocked.thread_set_mask();
}

/// Limits that can be raised are raised to what is allowed: each VM and each attached client takes some descriptors, processes
/// and file sizes.
pub(super) fn raise() {
    for resource in [Resource::RLIMIT_NOFILE, Resource::RLIMIT_NPROC, Resource::RLIMIT_FSIZE] {
        if let Ok((soft, hard)) = getrlimit(resource)
            && soft < hard
            && let Err(error) = setrlimit(resource, hard, hard)
        {
            tracing::warn!(?resource, %error, "cannot raise a limit");
        }
    }
    if let Some(few) = few_files().filter(|few| *few >= TOO_FEW_FILES) {
        tracing::warn!("only {few} open files are allowed: raise the limit (`ulimit -Hn`)");
    }
}

/// The number of open files that is allowed, if it is small.
pub(super) fn few_files() -> Option<u64> {
    getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, hard)| hard).filter(|hard| *hard < FEW_FILES)
}

/// Makes sure that a VM can open its files.
pub(super) fn check_files() -> Result<()> {
    match few_files().filter(|few| *few < TOO_FEW_FILES) {
        None => Ok(()),
        Some(few) => Err(Error::system(format!(
            "only {few} open files are allowed, a VM needs {TOO_FEW_FILES}: raise the limit (`ulimit -Hn`)"
        ))),
    }
}

/// Makes sure that the threads of a daemon can be had: its runtime panics where they cannot.
pub(super) fn check_threads() -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (end, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
    let spawn = |_| {
        let wait = wait.clone();
        std::thread::Builder::new().spawn(move || drop(wait.lock().map(|wait| wait.recv())))
    };
    let threads: std::io::Result<Vec<_>> = (0..cores + THREADS).map(spawn).collect();
    drop(end);
    match threads {
        Ok(threads) => {
            for thread in threads {
                let _ = thread.join();
            }
            Ok(())
        }
        Err(error) => {
            let text = "this user may not start enough threads: raise the limit of processes (`ulimit -u`)";
            Err(Error::system(text).because(error))
        }
    }
}
