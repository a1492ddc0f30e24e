//! The parsers that meet what an image or a container wrote, for fuzz targets. Not an interface.

use std::{io::Read, path::Path};

use crate::{files, launch::seccomp, metrics, users};

/// Resolves `user` and `group` in the root at `root`, whose passwd and group files are the input; answers uid and gid.
pub fn account(root: &Path, user: &str, groups: &[String]) -> Option<(u32, u32)> {
    users::resolve(root, user, groups).ok().map(|account| (account.uid, account.gid))
}

/// Unpacks a tar into the directory `path` of the root at `root`; whether it was taken.
pub fn unpack(root: &Path, path: &str, tar: impl Read) -> bool {
    let options = files::PutOptions { chown: Some(current()), ..files::PutOptions::default() };
    files::put(root, path, tar, &options).is_ok()
}

/// Compiles a custom seccomp profile; how many programs came of it.
pub fn seccomp(json: &[u8], capabilities: &[String]) -> Option<usize> {
    let profile = proto::sandbox::SeccompProfile {
        kind: proto::sandbox::seccomp_profile::Kind::Custom.into(),
        json: json.to_vec().into(),
    };
    seccomp::programs(Some(&profile), capabilities).ok().map(|programs| programs.len())
}

/// Formats the processes of a `/proc`-like folder whose `cgroup.procs` is in `cgroup`; how many rows there are.
pub fn ps(proc: &Path, cgroup: &Path, root: &Path, args: &[String]) -> Option<usize> {
    metrics::top_in(proc, cgroup, Some(root), args).ok().map(|table| table.rows.len())
}

/// Reads the statistics of a cgroup folder and a `/proc`-like folder.
pub fn stats(proc: &Path, cgroup: &Path, pid: Option<u32>) -> proto::sandbox::StatsResponse {
    metrics::stats_in(proc, cgroup, pid)
}

fn current() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}
