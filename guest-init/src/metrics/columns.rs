//! The columns of `ps`: names, headers, values (ps(1) of procps, the one dockerd runs).

use std::collections::HashMap;

use super::process::{HZ, Process};

/// What the values of a row depend on besides the process.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// Names of the container's users.
    pub(super) users: HashMap<u32, String>,
    /// Bytes of the guest's memory.
    pub(super) memory: u64,
    /// Clock ticks since boot.
    pub(super) uptime: u64,
    /// Now, seconds since 1970.
    pub(super) now: i64,
}

/// A column by what it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Pid,
    Ppid,
    Pgid,
    Sid,
    Uid,
    RealUid,
    Gid,
    User,
    RealUser,
    Comm,
    Args,
    Stat,
    State,
    Time,
    BsdTime,
    Elapsed,
    ElapsedSeconds,
    Tty,
    Rss,
    Vsz,
    Cpu,
    CpuPercent,
    MemoryPercent,
    Threads,
    Nice,
    Priority,
    StartTime,
    Started,
    /// Things a container's user cannot use (flags, addresses): `-`.
    Nothing,
}

/// The column of a format word and its header.
pub(super) fn by_name(name: &str) -> Option<(Column, &'static str)> {
    Some(match name {
        "pid" | "tgid" => (Column::Pid, "PID"),
        "ppid" => (Column::Ppid, "PPID"),
        "pgid" | "pgrp" => (Column::Pgid, "PGID"),
        "sid" | "sess" | "session" => (Column::Sid, "SID"),
        "uid" | "euid" => (Column::Uid, if name == "uid" { "UID" } else { "EUID" }),
        "ruid" => (Column::RealUid, "RUID"),
        "gid" | "egid" => (Column::Gid, if name == "gid" { "GID" } else { "EGID" }),
        "user" | "uname" => (Column::User, "USER"),
        "euser" => (Column::User, "EUSER"),
        "ruser" => (Column::RealUser, "RUSER"),
        "comm" | "ucomm" => (Column::Comm, "COMMAND"),
        "ucmd" => (Column::Comm, "CMD"),
        "args" | "command" => (Column::Args, "COMMAND"),
        "cmd" => (Column::Args, "CMD"),
        "stat" => (Column::Stat, "STAT"),
        "s" | "state" => (Column::State, "S"),
        "time" | "cputime" => (Column::Time, "TIME"),
        "bsdtime" => (Column::BsdTime, "TIME"),
        "etime" => (Column::Elapsed, "ELAPSED"),
        "etimes" => (Column::ElapsedSeconds, "ELAPSED"),
        "tty" | "tt" => (Column::Tty, "TT"),
        "tname" => (Column::Tty, "TTY"),
        "rss" | "rssize" | "rsz" => (Column::Rss, if name == "rss" { "RSS" } else { "RSZ" }),
        "vsz" | "vsize" => (Column::Vsz, "VSZ"),
        "c" => (Column::Cpu, "C"),
        "pcpu" | "%cpu" => (Column::CpuPercent, "%CPU"),
        "pmem" | "%mem" => (Column::MemoryPercent, "%MEM"),
        "nlwp" | "thcount" => (Column::Threads, if name == "nlwp" { "NLWP" } else { "THCNT" }),
        "ni" | "nice" => (Column::Nice, "NI"),
        "pri" => (Column::Priority, "PRI"),
        "stime" => (Column::StartTime, "STIME"),
        "start_time" | "bsdstart" => (Column::StartTime, "START"),
        "lstart" | "start" => (Column::Started, "STARTED"),
        "wchan" => (Column::Nothing, "WCHAN"),
        "f" | "flags" => (Column::Nothing, "F"),
        _ => return None,
    })
}

impl Column {
    /// The cell of a process.
    pub(super) fn value(self, process: &Process, context: &Context) -> String {
        let elapsed = context.uptime.saturating_sub(process.start);
        // In tenths of a percent; a process younger than a tick has used nothing yet.
        let cpu = process.cpu.saturating_mul(1000).checked_div(elapsed).unwrap_or(0).min(9999);
        let user = |uid: u32| context.users.get(&uid).cloned().unwrap_or_else(|| uid.to_string());
        match self {
            Self::Pid => process.pid.to_string(),
            Self::Ppid => process.ppid.to_string(),
            Self::Pgid => process.pgid.to_string(),
            Self::Sid => process.sid.to_string(),
            Self::Uid => process.uid.to_string(),
            Self::RealUid => process.ruid.to_string(),
            Self::Gid => process.gid.to_string(),
            Self::User => user(process.uid),
            Self::RealUser => user(process.ruid),
            Self::Comm if process.state == 'Z' => format!("{} <defunct>", process.comm),
            Self::Comm => process.comm.clone(),
            Self::Args => process.command(),
            Self::Stat => process.state(),
            Self::State => process.state.to_string(),
            Self::Time => {
                let seconds = process.cpu / HZ;
                let days = seconds / 86_400;
                let clock = clock(seconds % 86_400);
                if days > 0 { format!("{days}-{clock}") } else { clock }
            }
            Self::BsdTime => format!("{}:{:02}", process.cpu / HZ / 60, process.cpu / HZ % 60),
            Self::Elapsed => elapsed_text(elapsed / HZ),
            Self::ElapsedSeconds => (elapsed / HZ).to_string(),
            Self::Tty => process.tty(),
            Self::Rss => (process.rss / 1024).to_string(),
            Self::Vsz => (process.vsz / 1024).to_string(),
            Self::Cpu => (cpu / 10).to_string(),
            Self::CpuPercent => tenths(cpu),
            Self::MemoryPercent => {
                tenths(process.rss.saturating_mul(1000).checked_div(context.memory).unwrap_or(0).min(999))
            }
            Self::Threads => process.threads.to_string(),
            Self::Nice => process.nice.to_string(),
            // "Higher is better": the opposite of the kernel's number.
            Self::Priority => 39i64.saturating_sub(process.priority).to_string(),
            Self::StartTime => start_time(process, context),
            Self::Started => started(process, context),
            Self::Nothing => "-".to_owned(),
        }
    }
}

fn tenths(value: u64) -> String {
    format!("{}.{}", value / 10, value % 10)
}

fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// `[[DD-]HH:]MM:SS`
fn elapsed_text(seconds: u64) -> String {
    match seconds {
        86_400.. => format!("{}-{}", seconds / 86_400, clock(seconds % 86_400)),
        3600.. => clock(seconds),
        _ => format!("{:02}:{:02}", seconds / 60, seconds % 60),
    }
}

/// Seconds since 1970 at which the process started. From the age, since the guest's clock is set after its boot.
fn start_seconds(process: &Process, context: &Context) -> i64 {
    let age = i64::try_from(context.uptime.saturating_sub(process.start) / HZ).unwrap_or(0);
    context.now.saturating_sub(age)
}

/// `HH:MM` within a day, else `MonDD`, or the year (UTC).
fn start_time(process: &Process, context: &Context) -> String {
    let start = start_seconds(process, context);
    let (year, month, day) = date(start);
    if context.now.saturating_sub(start) < 86_400 && date(context.now).2 == day {
        let seconds = start.rem_euclid(86_400);
        format!("{:02}:{:02}", seconds / 3600, seconds / 60 % 60)
    } else if date(context.now).0 == year {
        format!("{month}{day:02}")
    } else {
        year.to_string()
    }
}

/// `Sat Nov 21 05:34:59 2026` (UTC).
fn started(process: &Process, context: &Context) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let start = start_seconds(process, context);
    let (year, month, day) = date(start);
    let weekday = DAYS[usize::try_from(start.div_euclid(86_400).rem_euclid(7)).unwrap_or(0)];
    format!("{weekday} {month} {day:2} {} {year}", clock(start.rem_euclid(86_400).unsigned_abs()))
}

/// Year, month and day of a time (proleptic Gregorian calendar, counted in years that begin in March).
fn date(seconds: i64) -> (i64, &'static str, i64) {
    const MONTHS: [&str; 12] =
        ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    let days = seconds.div_euclid(86_400) + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let name = MONTHS[usize::try_from(month).unwrap_or(0) % 12];
    (era * 400 + year + i64::from(month >= 10), name, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, expected) in [
            (0, (1970, "Jan", 1)),
            (951_782_400, (2000, "Feb", 29)),
            (951_868_800, (2000, "Mar", 1)),
            (1_795_239_299, (2026, "Nov", 21)),
            (-1, (1969, "Dec", 31)),
        ] {
            assert_eq!(date(seconds), expected);
        }
    }

    #[test]
    fn times() {
        let now = 1_795_239_299; // 2026-11-21 05:34:59
        let context = Context { now, uptime: 400 * 86_400 * HZ, memory: 1 << 30, ..Context::default() };
        let aged = |seconds: u64, cpu: u64| Process {
            start: context.uptime - seconds * HZ,
            cpu,
            rss: 1 << 20,
            ..Process::default()
        };
        let row = |process: &Process| {
            [Column::StartTime, Column::Elapsed, Column::Time, Column::BsdTime, Column::CpuPercent]
                .map(|column| column.value(process, &context))
        };
        assert_eq!(row(&aged(59, 1234)), ["05:34", "00:59", "00:00:12", "0:12", "20.9"]);
        assert_eq!(row(&aged(6 * 3600, 0)), ["Nov20", "06:00:00", "00:00:00", "0:00", "0.0"]);
        assert_eq!(row(&aged(86_461, 9_000_000)), ["Nov20", "1-00:01:01", "1-01:00:00", "1500:00", "104.0"]);
        assert_eq!(row(&aged(399 * 86_400, 0))[0], "2025");
        assert_eq!(Column::Started.value(&aged(0, 0), &context), "Sat Nov 21 05:34:59 2026");
        assert_eq!(Column::MemoryPercent.value(&aged(1, 0), &context), "0.0");
        assert_eq!(Column::Cpu.value(&aged(0, 5), &context), "0");
    }
}
