//! One process as /proc tells it.

use std::path::Path;

use super::cgroup::{head, text};

/// Clock ticks of a second (USER_HZ).
pub(super) const HZ: u64 = 100;

/// What the columns of `ps` are made of. Times are in clock ticks, sizes in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) ppid: u32,
    pub(super) pgid: i64,
    pub(super) sid: i64,
    /// Effective and real ids.
    pub(super) uid: u32,
    pub(super) ruid: u32,
    pub(super) gid: u32,
    pub(super) comm: String,
    /// Arguments with blanks between them; empty for a kernel thread or a zombie.
    pub(super) args: String,
    pub(super) state: char,
    pub(super) terminal: u32,
    pub(super) foreground: i64,
    pub(super) nice: i64,
    pub(super) priority: i64,
    pub(super) threads: u64,
    pub(super) cpu: u64,
    /// Since boot.
    pub(super) start: u64,
    pub(super) vsz: u64,
    pub(super) rss: u64,
}

impl Process {
    /// Reads a process with so many bytes of its arguments; `None` when it is gone.
    pub(super) fn read(proc: &Path, pid: u32, arguments: u64) -> Option<Self> {
        let directory = proc.join(pid.to_string());
        let mut process = Self::parse(&text(&directory.join("stat")))?;
        for line in text(&directory.join("status")).lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let mut ids = value.split_whitespace().filter_map(|field| field.parse().ok());
            match key {
                "Uid" => {
                    process.ruid = ids.next().unwrap_or(0);
                    process.uid = ids.next().unwrap_or(0);
                }
                "Gid" => process.gid = ids.nth(1).unwrap_or(0),
                _ => {}
            }
        }
        let args = head(&directory.join("cmdline"), arguments);
        // One line of a table: no control characters, as ps does.
        let printable = |c: char| if c.is_control() && c != '\0' { '?' } else { c };
        process.args =
            args.trim_end_matches('\0').chars().map(printable).collect::<String>().replace('\0', " ");
        Some(process)
    }

    /// proc(5), /proc/pid/stat. The name in parentheses may hold anything, parentheses and line ends too.
    fn parse(stat: &str) -> Option<Self> {
        let (pid, rest) = stat.split_once(" (")?;
        let (comm, rest) = rest.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // Field numbers of the manual page: the state is the third.
        let field = |number: usize| fields.get(number - 3).copied();
        let signed = |number| field(number).and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
        let unsigned = |number| u64::try_from(signed(number)).unwrap_or(0);
        Some(Self {
            pid: pid.trim().parse().ok()?,
            ppid: field(4)?.parse().ok()?,
            pgid: signed(5),
            sid: signed(6),
            comm: comm.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
            state: field(3)?.chars().next()?,
            terminal: u32::try_from(signed(7)).unwrap_or(0),
            foreground: signed(8),
            cpu: unsigned(14).saturating_add(unsigned(15)),
            priority: signed(18),
            nice: signed(19),
            threads: unsigned(20),
            start: unsigned(22),
            vsz: unsigned(23),
            rss: unsigned(24).saturating_mul(4096),
            ..Self::default()
        })
    }

    /// The command line, or the name in brackets when there is none.
    pub(super) fn command(&self) -> String {
        match (self.state, self.args.is_empty()) {
            ('Z', _) => format!("[{}] <defunct>", self.comm),
            (_, true) => format!("[{}]", self.comm),
            _ => self.args.clone(),
        }
    }

    /// The state with its marks: priority, session leader, threads, foreground.
    pub(super) fn state(&self) -> String {
        let mut state = String::from(self.state);
        match self.nice {
            ..0 => state.push('<'),
            1.. => state.push('N'),
            0 => {}
        }
        if self.sid == i64::from(self.pid) {
            state.push('s');
        }
        if self.threads > 1 {
            state.push('l');
        }
        if self.foreground == self.pgid && self.foreground > 0 {
            state.push('+');
        }
        state
    }

    /// The controlling terminal by its device number (devices.txt of the kernel), `?` for none.
    pub(super) fn tty(&self) -> String {
        let major = (self.terminal >> 8) & 0xfff;
        let minor = (self.terminal & 0xff) | ((self.terminal >> 12) & 0xfff00);
        match major {
            0 => "?".to_owned(),
            4 if minor < 64 => format!("tty{minor}"),
            4 => format!("ttyS{}", minor - 64),
            5 if minor == 1 => "console".to_owned(),
            136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
            229 => format!("hvc{minor}"),
            _ => "?".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "42 (a) b) S 1 42 42 34817 42 4194560 1 2 3 4 150 50 0 0 20 -5 3 0 1000 8192 2 18446744073709551615";

    #[test]
    fn stat_line() {
        let process = Process::parse(STAT).unwrap();
        assert_eq!((process.pid, process.ppid, process.comm.as_str()), (42, 1, "a) b"));
        assert_eq!((process.cpu, process.start, process.vsz, process.rss), (200, 1000, 8192, 8192));
        assert_eq!((process.state().as_str(), process.tty().as_str()), ("S<sl+", "pts/1"));
        assert_eq!(process.command(), "[a) b]");
        for bad in ["", "x", "1 (", "1 (a) ", "1 (a) S", "x (a) S 1 1"] {
            assert_eq!(Process::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn terminals() {
        for (device, name) in [
            (0, "?"),
            (0x401, "tty1"),
            (0x440, "ttyS0"),
            (0x501, "console"),
            (0xe500, "hvc0"),
            (0x8900, "pts/256"),
        ] {
            assert_eq!(Process { terminal: device, ..Process::default() }.tty(), name);
        }
    }

    #[test]
    fn this_process() {
        let process = Process::read(Path::new("/proc"), std::process::id(), 4096).unwrap();
        assert_eq!(process.pid, std::process::id());
        assert!(process.rss > 0 && process.threads > 0 && !process.args.is_empty() && process.start > 0);
    }

    proptest::proptest! {
        #[test]
        fn random_lines_never_panic(line: String, tail in "[0-9 -]{0,80}") {
            let _ = Process::parse(&line);
            if let Some(process) = Process::parse(&format!("1 ({line}) S 1 {tail}")) {
                let _ = (process.state(), process.tty(), process.command());
            }
        }
    }
}
