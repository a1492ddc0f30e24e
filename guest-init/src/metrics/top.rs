//! `Top`: the processes of a container as a table. There may be no `ps` in its image, so the guest makes the table of its
//! own /proc: pids are those of the VM, as dockerd shows those of its host.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use proto::sandbox::{TopResponse, TopRow};

use super::cgroup::{pids, text};
use super::columns::Context;
use super::process::{HZ, Process};
use super::ps::columns;
use super::stats::memory_total;
use crate::users;

/// Bytes of all command lines together, and of one.
const ARGUMENTS: u64 = 2 << 20;
const MIN_ARGUMENTS: u64 = 64;
const MAX_ARGUMENTS: u64 = 128 << 10;
/// Most processes in a table.
const MAX_ROWS: usize = 20_000;

/// Why there is no table; all are `INVALID_ARGUMENT`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TopError {
    /// What `ps` would say.
    #[error("error running ps: exit status 1: {0}")]
    Ps(String),
    /// Docker's words: it finds the container's processes by that column.
    #[error("Couldn't find PID field in ps output")]
    NoPid,
    /// Docker's words for another column that is called PID.
    #[error("specifying {0:?} is not allowed")]
    Misleading(String),
}

/// The processes in `cgroup` and below. Users are called as in the container whose root is `root`; numbers without one.
///
/// # Errors
/// For `ps` arguments that are not known.
pub(crate) fn top(cgroup: &Path, root: Option<&Path>, args: &[String]) -> Result<TopResponse, TopError> {
    top_in(Path::new("/proc"), cgroup, root, args)
}

/// [`top`] with another `/proc`.
pub(crate) fn top_in(
    proc: &Path,
    cgroup: &Path,
    root: Option<&Path>,
    args: &[String],
) -> Result<TopResponse, TopError> {
    let columns = columns(args)?;
    let context = Context {
        users: root.map(users::names).unwrap_or_default(),
        memory: memory_total(proc),
        uptime: uptime(&text(&proc.join("uptime"))),
        now: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(0)),
    };
    let row = |process: &Process| TopRow {
        columns: columns.iter().map(|(column, _)| column.value(process, &context)).collect(),
    };
    let pids = pids(cgroup);
    // A thousand children of one process share the pages of its arguments, and would fill the guest here.
    let arguments = (ARGUMENTS / (pids.len() as u64).max(1)).clamp(MIN_ARGUMENTS, MAX_ARGUMENTS);
    let rows = pids
        .into_iter()
        .take(MAX_ROWS)
        .filter_map(|pid| Some(row(&Process::read(proc, pid, arguments)?)))
        .collect();
    Ok(TopResponse { titles: columns.into_iter().map(|(_, title)| title).collect(), rows })
}

/// Clock ticks since boot, from `SECONDS.HUNDREDTHS IDLE`.
fn uptime(text: &str) -> u64 {
    let Some((seconds, rest)) = text.split_once('.') else { return 0 };
    let hundredths = rest.get(..2).and_then(|digits| digits.parse::<u64>().ok()).unwrap_or(0);
    seconds.parse::<u64>().unwrap_or(0).saturating_mul(HZ).saturating_add(hundredths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_this_process() {
        let temp = tempfile::tempdir().unwrap();
        let pid = std::process::id();
        // A pid that cannot exist: gone between the two reads.
        std::fs::write(temp.path().join("cgroup.procs"), format!("{pid}\n4194305\n")).unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        std::fs::write(root.path().join("etc/passwd"), format!("captain:x:{uid}:0::/:\n")).unwrap();
        let table = top(temp.path(), Some(root.path()), &[]).unwrap();
        assert_eq!(table.titles, ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
        assert_eq!(table.rows.len(), 1);
        let columns = &table.rows[0].columns;
        assert_eq!((columns[0].as_str(), columns[1].clone()), ("captain", pid.to_string()));
        assert_eq!(columns.len(), table.titles.len());
        let numbered = top(temp.path(), None, &["-o".into(), "pid,user".into()]).unwrap();
        assert_eq!(numbered.rows[0].columns, [pid.to_string(), uid.to_string()]);
    }

    #[test]
    fn uptimes() {
        assert_eq!(uptime("123.45 99.00\n"), 12_345);
        for bad in ["", "x", "1.", ".é"] {
            assert!(uptime(bad) <= HZ, "{bad}");
        }
    }
}
