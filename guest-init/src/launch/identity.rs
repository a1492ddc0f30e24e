//! User, groups, capabilities and limits of the process.

use std::{collections::HashSet, str::FromStr};

use caps::{CapSet, Capability};
use nix::{
    errno::Errno,
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};

use super::{config::Process, failure::Failure};
use crate::{sys::priority, users::Account};

/// Sets the resource limits.
pub(super) fn limits(process: &Process) -> Result<(), Failure> {
    for (resource, soft, hard) in &process.rlimits {
        let limit = libc::rlimit { rlim_cur: *soft, rlim_max: *hard };
        // SAFETY: setrlimit(2) reads one `rlimit`, which lives through the call.
        Errno::result(unsafe { libc::setrlimit(*resource as _, &raw const limit) })
            .map_err(|e| Failure::setup("error setting rlimits", e))?;
    }
    Ok(())
}

/// Gives PID 1's priority back. With `boost` it stays until PID 1 takes it, but is not inherited: the command would wait for
/// minutes among the thousands of a fork bomb.
pub(super) fn priority(boost: bool) -> Result<(), Failure> {
    if boost {
        return priority::boost().map_err(|e| Failure::setup("sched_setattr", e));
    }
    rustix::process::setpriority_process(None, 0).map_err(|e| Failure::setup("setpriority", e))
}

/// From here on no execve(2) grants rights.
pub(super) fn no_new_privileges() -> Result<(), Failure> {
    rustix::thread::set_no_new_privs(true).map_err(|e| Failure::setup("no_new_privs", e))
}

/// Changes to the user. `capabilities` become the bounding, effective and permitted sets; the kernel takes the latter two
/// from a user that is not root at execve(2), as docker's users expect.
pub(super) fn become_user(account: &Account, capabilities: &[String]) -> Result<(), Failure> {
    let wanted: HashSet<Capability> = capabilities
        .iter()
        .map(|name| Capability::from_str(&name.to_uppercase()))
        .collect::<Result<_, _>>()
        .map_err(|e| Failure::plain(format_args!("invalid capability: {e}")))?;
    let failed = |e: caps::errors::CapsError| Failure::plain(format_args!("capabilities: {e}"));
    let known = caps::runtime::thread_all_supported();
    for capability in known.difference(&wanted) {
        caps::drop(None, CapSet::Bounding, *capability).map_err(failed)?;
    }
    rustix::thread::set_keep_capabilities(true).map_err(|e| Failure::setup("keep capabilities", e))?;
    let mut groups: Vec<Gid> = account.additional_gids.iter().copied().map(Gid::from_raw).collect();
    if !groups.contains(&Gid::from_raw(account.gid)) {
        groups.insert(0, Gid::from_raw(account.gid));
    }
    setgroups(&groups).map_err(|e| Failure::setup("setgroups", e))?;
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    setresgid(gid, gid, gid).map_err(|e| Failure::setup("setgid", e))?;
    setresuid(uid, uid, uid).map_err(|e| Failure::setup("setuid", e))?;
    rustix::thread::set_keep_capabilities(false).map_err(|e| Failure::setup("keep capabilities", e))?;
    let wanted = wanted.intersection(&known).copied().collect();
    caps::set(None, CapSet::Effective, &HashSet::new()).map_err(failed)?;
    caps::set(None, CapSet::Inheritable, &HashSet::new()).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &wanted).map_err(failed)?;
    caps::set(None, CapSet::Effective, &wanted).map_err(failed)
}

/// Rust ignores SIGPIPE; a command expects the default, and no blocked signals.
pub(super) fn default_signals() {
    use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
    // SAFETY: setting a default disposition installs no handler.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}
