//! Numbers of a container: `docker stats` and `docker top`, from its cgroup and /proc. Everything here is read without
//! blocking for long; what is missing counts as zero.

mod cgroup;
mod columns;
mod process;
mod ps;
mod stats;
mod top;

pub(crate) use stats::{stats, stats_in};
pub(crate) use top::{top, top_in};
