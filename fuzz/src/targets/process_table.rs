//! `docker top` and `docker stats` in the guest: files of /proc and of a cgroup, in which a container writes names.

use std::fs;

use super::line;
use crate::{Reach, scratch};

/// Arguments of `ps`, a newline, then the files one after the other, with NUL bytes between them.
pub(super) fn target(data: &[u8]) -> Reach {
    const FILES: [&str; 10] = [
        "7/stat",
        "7/cmdline",
        "7/status",
        "stat",
        "uptime",
        "memory.stat",
        "cpu.stat",
        "io.stat",
        "memory.max",
        "7/net/dev",
    ];
    let dir = scratch::dir().join("proc");
    let (args, files) = line(data);
    if fs::create_dir_all(dir.join("7/net")).is_err() || fs::write(dir.join("cgroup.procs"), "7\n").is_err() {
        return Reach::Refused;
    }
    let mut contents = files.split(|byte| *byte == 0);
    for name in FILES {
        let _ = fs::write(dir.join(name), contents.next().unwrap_or_default());
    }
    let args: Vec<String> = args
        .split(|b| *b == b' ')
        .filter(|a| !a.is_empty())
        .take(10)
        .map(|a| String::from_utf8_lossy(a).into_owned())
        .collect();
    let rows = guest_init::fuzzing::ps(&dir, &dir, &dir, &args);
    let stats = guest_init::fuzzing::stats(&dir, &dir, Some(7));
    // What it makes of them, the daemon gets.
    let shown = host_shim::fuzzing::guest_stats(&stats);
    Reach::of(rows.is_some(), shown && rows.is_some_and(|rows| rows > 0))
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let stat = "7 (a (b) c) S 1 7 7 34816 7 4194560 100 0 0 0 5 3 0 0 20 0 1 0 12345 1000000 200 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0";
    let files = [
        stat,
        "sh -c true",
        "Name:\tsh\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n",
        "cpu 1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 4\n",
        "123.45 99.00\n",
        "anon 5\nfile 6\ninactive_file 7\n",
        "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 1\nnr_throttled 1\nthrottled_usec 9\n",
        "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
        "max\n",
        "Inter-|   Receive\n face |bytes\n  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n",
    ]
    .join("\0");
    ["", "aux", "-eo pid,user,args", "-ef", "-o pid,rss,vsz,etime,time,stat"]
        .map(|args| format!("{args}\n{files}").into_bytes())
        .to_vec()
}
