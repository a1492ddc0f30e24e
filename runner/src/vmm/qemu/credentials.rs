//! Who QEMU runs as: a user of its own, without groups, capabilities or a way to new ones.

use std::{ffi::OsString, fs, os::unix::fs::MetadataExt};

use crate::Accelerator;

/// Users of VMs: 2^28 numbers that no distribution hands out (systemd's UIDs and GIDs: unused up to 2^31).
const FIRST_ID: u32 = 0x7000_0000;
/// Where those are not mapped in this user namespace.
const NOBODY: u32 = 65534;
/// Capabilities by number (capabilities(7)).
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
const CAP_SETPCAP: u32 = 8;

/// What decides about it.
#[derive(Debug, Clone, Default)]
struct Facts {
    root: bool,
    /// Effective capabilities.
    capabilities: u64,
    /// `/proc/self/uid_map` and `gid_map`.
    uid_map: String,
    gid_map: String,
    /// `setgroups` is refused in this user namespace.
    groups_fixed: bool,
    /// Group through which `/dev/kvm` opens, where it is needed.
    kvm: Option<u32>,
}

/// Credentials of a hypervisor's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// The runner's own user.
    Own,
    /// Another one.
    User {
        /// Number of user and group.
        id: u32,
        /// The only supplementary group.
        group: Option<u32>,
        /// Groups cannot be dropped here.
        keep_groups: bool,
        /// The bounding set can be emptied.
        bounding: bool,
    },
}

impl Credentials {
    /// For a VM: as root a user of its own, else the caller's.
    pub(crate) fn of_vm(vm_id: &str, accelerator: Accelerator) -> Self {
        let credentials = choose(&Facts::gather(accelerator), vm_id);
        match &credentials {
            Self::Own if rustix::process::geteuid().is_root() => {
                tracing::warn!(
                    "QEMU runs as root: this user namespace has no other user, or root may not change its own"
                );
            }
            Self::User { id: NOBODY, .. } => {
                tracing::warn!(
                    "QEMU runs as nobody: users from {FIRST_ID} on are not mapped in this user namespace"
                );
            }
            _ => {}
        }
        credentials
    }

    /// Whether QEMU may not open what only the runner's user can.
    pub(crate) fn is_foreign(&self) -> bool {
        *self != Self::Own
    }

    /// Options of `setpriv`. It sets the parent-death signal last, so that the change of user does not clear it.
    pub(super) fn options(&self) -> Vec<OsString> {
        let mut options: Vec<OsString> =
            ["--pdeathsig", "KILL", "--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all"]
                .map(OsString::from)
                .into();
        if let Self::User { id, group, keep_groups, bounding } = self {
            options.extend([format!("--reuid={id}"), format!("--regid={id}")].map(OsString::from));
            options.push(match (group, keep_groups) {
                (_, true) => "--keep-groups".into(),
                (Some(group), false) => format!("--groups={group}").into(),
                (None, false) => "--clear-groups".into(),
            });
            if *bounding {
                options.push("--bounding-set=-all".into());
            }
        }
        options
    }
}

impl Facts {
    fn gather(accelerator: Accelerator) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            root: rustix::process::geteuid().is_root(),
            capabilities: effective(&read("/proc/self/status")),
            uid_map: read("/proc/self/uid_map"),
            gid_map: read("/proc/self/gid_map"),
            groups_fixed: read("/proc/self/setgroups").trim() == "deny",
            kvm: match accelerator {
                Accelerator::Kvm => {
                    fs::metadata("/dev/kvm").ok().and_then(|kvm| group_for(kvm.mode(), kvm.gid()))
                }
                Accelerator::Tcg => None,
            },
        }
    }

    fn may(&self, capability: u32) -> bool {
        self.capabilities & (1 << capability) != 0
    }
}

fn choose(facts: &Facts, vm_id: &str) -> Credentials {
    if !facts.root || !facts.may(CAP_SETUID) || !facts.may(CAP_SETGID) {
        return Credentials::Own;
    }
    let mapped = |id: &u32| contains(&facts.uid_map, *id) && contains(&facts.gid_map, *id);
    let Some(id) = [own_id(vm_id), NOBODY].into_iter().find(mapped) else { return Credentials::Own };
    let (group, bounding) = (facts.kvm, facts.may(CAP_SETPCAP));
    Credentials::User { id, group, keep_groups: facts.groups_fixed, bounding }
}

/// The number of a VM's own user: FNV-1a of its identity. Identities are random; two that share a number would only be able to
/// signal each other, were it not for QEMU's seccomp filter.
fn own_id(vm_id: &str) -> u32 {
    let hash =
        vm_id.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    FIRST_ID | (hash & 0x0fff_ffff)
}

/// Whether a map of a user namespace (user_namespaces(7)) has a number inside.
fn contains(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_whitespace().map(str::parse::<u64>);
        match (fields.next(), fields.next(), fields.next()) {
            (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) => {
                (first..first.saturating_add(count)).contains(&id.into())
            }
            _ => false,
        }
    })
}

/// The group that opens a device for reading and writing; none when everybody can, or only its owner. Never root's own.
fn group_for(mode: u32, gid: u32) -> Option<u32> {
    (mode & 0o006 != 0o006 && mode & 0o060 == 0o060 && gid != 0).then_some(gid)
}

fn effective(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Facts {
        let all = "         0          0 4294967295\n";
        Facts {
            root: true,
            capabilities: u64::MAX,
            uid_map: all.into(),
            gid_map: all.into(),
            ..Facts::default()
        }
    }

    /// SPEC P1
    #[test]
    fn each_vm_of_root_has_a_user_of_its_own() {
        let user = |vm| match choose(&root(), vm) {
            Credentials::User { id, group: None, keep_groups: false, bounding: true } => id,
            other => panic!("{other:?}"),
        };
        assert_ne!(user("0123"), user("0124"));
        assert_eq!(user("0123"), user("0123"));
        assert!((FIRST_ID..1 << 31).contains(&user("0123")));
    }

    #[test]
    fn where_users_are_few_it_is_nobody_or_the_own_one() {
        let docker = Facts { uid_map: "0 100000 65536".into(), gid_map: "0 100000 65536".into(), ..root() };
        assert!(matches!(choose(&docker, "a"), Credentials::User { id: NOBODY, .. }));
        let rootless = Facts { uid_map: "0 1000 1".into(), gid_map: "0 1000 1".into(), ..root() };
        assert_eq!(choose(&rootless, "a"), Credentials::Own);
        assert_eq!(choose(&Facts { capabilities: 1 << CAP_SETUID, ..root() }, "a"), Credentials::Own);
        assert_eq!(choose(&Facts { root: false, ..root() }, "a"), Credentials::Own);
    }

    #[test]
    fn options_give_up_all_that_can_be() {
        let text = |facts: &Facts| {
            choose(facts, "a")
                .options()
                .iter()
                .map(|o| o.to_string_lossy().into_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert!(text(&root()).ends_with(" --clear-groups --bounding-set=-all"));
        assert!(text(&Facts { kvm: Some(105), ..root() }).contains(" --groups=105 "));
        assert!(text(&Facts { groups_fixed: true, ..root() }).contains(" --keep-groups "));
        let own = text(&Facts::default());
        assert!(own.starts_with("--pdeathsig KILL --no-new-privs") && !own.contains("reuid"));
    }

    #[test]
    fn maps_modes_and_capabilities_are_read() {
        assert!(contains("0 0 1000\n 5000 7 10", 5009) && !contains("0 0 1000\n 5000 7 10", 5010));
        assert!(!contains("nonsense", 0) && !contains("", 0));
        assert_eq!(group_for(0o660, 105), Some(105));
        assert_eq!((group_for(0o666, 105), group_for(0o600, 105), group_for(0o660, 0)), (None, None, None));
        assert_eq!(effective("Name:\tx\nCapEff:\t00000000000000c0\n"), 0xc0);
    }
}
