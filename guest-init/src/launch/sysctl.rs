//! Kernel parameters of the container's own namespaces.

use std::fs;

use super::failure::Failure;

/// Writes them; the container's /proc is mounted and its namespaces are joined.
pub(super) fn apply(sysctls: &[(String, String)]) -> Result<(), Failure> {
    for (name, value) in sysctls {
        let path = path(name).filter(|_| namespaced(name)).ok_or_else(|| {
            Failure::plain(format_args!("sysctl {name:?} is not in a separate kernel namespace"))
        })?;
        fs::write(&path, value)
            .map_err(|e| Failure::setup(format_args!("write sysctl {name} = {value}"), e))?;
    }
    Ok(())
}

/// Those that a namespace of the container holds (namespaces(7)); others would change the whole guest.
fn namespaced(name: &str) -> bool {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let name = name.replace('/', ".");
    IPC.contains(&name.as_str())
        || name.starts_with("fs.mqueue.")
        || name.starts_with("net.")
        || name == "kernel.domainname"
        || name == "kernel.hostname"
}

/// Dots and slashes stand for each other, as in sysctl(8): `net.ipv4.conf.eth0/1.forwarding`.
fn path(name: &str) -> Option<String> {
    let slashes_first = name.find('/').unwrap_or(usize::MAX) < name.find('.').unwrap_or(usize::MAX);
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path: String = if slashes_first { name.to_owned() } else { name.chars().map(swap).collect() };
    let clean = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    clean.then(|| format!("/proc/sys/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_paths() {
        assert_eq!(path("net.ipv4.ip_forward").unwrap(), "/proc/sys/net/ipv4/ip_forward");
        assert_eq!(path("net/ipv4/conf/eth0.1/x").unwrap(), "/proc/sys/net/ipv4/conf/eth0.1/x");
        assert_eq!(path("net.ipv4.conf.eth0/1.x").unwrap(), "/proc/sys/net/ipv4/conf/eth0.1/x");
        assert_eq!(path("net.ipv4.//.kernel"), None);
        assert_eq!(path("net/../kernel/panic"), None);
    }

    #[test]
    fn the_guests_own_parameters_are_refused() {
        assert!(namespaced("kernel.shmmax") && namespaced("net.core.somaxconn"));
        assert!(!namespaced("kernel.panic") && !namespaced("vm.swappiness"));
    }
}
