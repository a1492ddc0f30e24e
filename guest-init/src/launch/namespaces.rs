//! Namespaces of a container's processes. The PID namespace is chosen by PID 1 before the launcher runs.

use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, setns, unshare};

use super::{config::First, failure::Failure};

/// Joins the namespaces of a pidfd, or one by its own descriptor.
pub(super) fn join(fd: &OwnedFd, flags: i32) -> Result<(), Failure> {
    setns(fd, CloneFlags::from_bits_truncate(flags)).map_err(|e| Failure::setup("join namespaces", e))
}

/// New namespaces for a first process. No user namespace: the VM is the boundary, and root in it is docker's root.
pub(super) fn make(first: &First) -> Result<(), Failure> {
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
    flags.set(CloneFlags::CLONE_NEWIPC, first.new_ipc);
    flags.set(CloneFlags::CLONE_NEWCGROUP, first.new_cgroup);
    unshare(flags).map_err(|e| Failure::setup("make namespaces", e))?;
    nix::unistd::sethostname(&first.hostname).map_err(|e| Failure::setup("sethostname", e))?;
    if !first.domainname.is_empty() {
        rustix::system::setdomainname(first.domainname.as_bytes())
            .map_err(|e| Failure::setup("setdomainname", e))?;
    }
    Ok(())
}
