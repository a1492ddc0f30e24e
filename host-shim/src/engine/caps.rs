//! Capabilities: Docker's defaults, `--cap-add`, `--cap-drop`, `--privileged`.

use std::collections::BTreeSet;

use super::model::HostConfig;
use crate::error::{Error, Result};

/// All capabilities of the guests' kernel in the kernel's order (`include/uapi/linux/capability.h` of 6.1: 0 to 40).
pub const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What every container gets.
pub const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// The capabilities of a container.
///
/// # Errors
/// 400 for an unknown name.
pub fn resolve(host: &HostConfig) -> Result<Vec<String>> {
    let add = normalise("CapAdd", host.cap_add.as_deref())?;
    let drop = normalise("CapDrop", host.cap_drop.as_deref())?;
    if host.privileged {
        return Ok(ALL.map(str::to_owned).to_vec());
    }
    let all = |set: &BTreeSet<String>| set.contains("ALL");
    let kept: Vec<&str> = match (all(&add), all(&drop)) {
        (true, true) => Vec::new(),
        (true, false) => ALL.into_iter().filter(|cap| !drop.contains(*cap)).collect(),
        (false, true) => ALL.into_iter().filter(|cap| add.contains(*cap)).collect(),
        (false, false) => ALL
            .into_iter()
            .filter(|cap| add.contains(*cap) || (DEFAULT.contains(cap) && !drop.contains(*cap)))
            .collect(),
    };
    Ok(kept.into_iter().map(str::to_owned).collect())
}

/// Upper case, with `CAP_` in front; `ALL` stays.
fn normalise(field: &str, names: Option<&[String]>) -> Result<BTreeSet<String>> {
    let mut set = BTreeSet::new();
    for name in names.into_iter().flatten() {
        let upper = name.to_ascii_uppercase();
        let full = match upper.as_str() {
            "ALL" | "CAP_ALL" => "ALL".to_owned(),
            full if full.starts_with("CAP_") => full.to_owned(),
            bare => format!("CAP_{bare}"),
        };
        if full != "ALL" && !ALL.contains(&full.as_str()) {
            return Err(Error::invalid(format!("invalid {field}: unknown capability: \"{name}\"")));
        }
        set.insert(full);
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(add: &[&str], drop: &[&str]) -> Vec<String> {
        let list = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect());
        resolve(&HostConfig { cap_add: list(add), cap_drop: list(drop), ..HostConfig::default() }).unwrap()
    }

    #[test]
    fn defaults_and_changes() {
        assert_eq!(caps(&[], &[]).len(), 14);
        assert!(caps(&["net_admin"], &[]).contains(&"CAP_NET_ADMIN".to_owned()));
        assert!(!caps(&[], &["CAP_CHOWN"]).contains(&"CAP_CHOWN".to_owned()));
        assert_eq!(caps(&["ALL"], &["chown"]).len(), 40);
        assert_eq!(caps(&["chown"], &["all"]), ["CAP_CHOWN"]);
        assert_eq!(caps(&[], &["ALL"]), Vec::<String>::new());
    }

    #[test]
    fn unknown_names_are_refused() {
        let host = HostConfig { cap_add: Some(vec!["FLY".into()]), ..HostConfig::default() };
        assert_eq!(resolve(&host).unwrap_err().message, "invalid CapAdd: unknown capability: \"FLY\"");
    }
}
