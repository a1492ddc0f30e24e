//! `arca doctor`: each prerequisite, what is wrong, what to do.

use std::{fmt, fs::OpenOptions, path::Path, process::ExitCode};

use super::{
    CliResult, client,
    lock::{Owner, owner, pid_text},
    output::say,
};
use crate::{
    api::{socket::is_served, status::Status},
    config::{Config, Lookup, Machine, Qemu, find_initramfs, find_kernel, find_program},
    home::{Home, advice},
};

/// QEMU that is recommended.
const QEMU_RECOMMENDED: u32 = 10;
/// Free space below which pulls will soon fail, in MiB.
const LITTLE_SPACE: u64 = 2048;

/// How a check came out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// Fine.
    Ok,
    /// Works, with a drawback; what to do.
    Warn(String),
    /// The daemon or its VMs cannot run; what to do.
    Fail(String),
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    name: &'static str,
    found: String,
    verdict: Verdict,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, found: found.into(), verdict: Verdict::Ok }
    }

    fn warn(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, found: found.into(), verdict: Verdict::Warn(remedy.into()) }
    }

    fn fail(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, found: found.into(), verdict: Verdict::Fail(remedy.into()) }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, remedy) = match &self.verdict {
            Verdict::Ok => ("ok", None),
            Verdict::Warn(remedy) => ("warn", Some(remedy)),
            Verdict::Fail(remedy) => ("FAIL", Some(remedy)),
        };
        write!(f, "{mark:<5} {:<20} {}", self.name, self.found)?;
        remedy.map_or(Ok(()), |remedy| write!(f, "\n{:27}-> {remedy}", ""))
    }
}

pub(super) fn run() -> CliResult {
    let home = Home::from_env()?;
    let mut checks = Vec::new();
    let config = match Config::load(&home) {
        Ok(config) => {
            checks.push(Check::ok("config.json", home.config().display().to_string()));
            config
        }
        Err(error) => {
            checks.push(Check::fail("config.json", super::chain(&error), "correct the file, or remove it"));
            Config::default()
        }
    };
    checks.push(folder(&home));
    checks.push(space(home.root()));
    checks.push(socket(&config, &home));
    checks.extend(containers(&home));
    checks.push(qemu());
    checks.push(lookup("kernel", &find_kernel(&config, &home)));
    checks.push(lookup("initramfs", &find_initramfs(&config, &home)));
    checks.push(lookup("mke2fs", &find_program("mke2fs", "install the package e2fsprogs")));
    // They start QEMU, with few rights.
    for program in ["setpriv", "prlimit"] {
        checks.push(lookup(program, &find_program(program, "install the package util-linux")));
    }
    checks.push(open_files());
    checks.push(kvm_device());
    // The test boot needs all of the above.
    if !checks.iter().any(|c| matches!(c.verdict, Verdict::Fail(_))) {
        checks.push(accelerator(&config, &home)?);
    }
    for check in &checks {
        say(check);
    }
    let failed = checks.iter().filter(|c| matches!(c.verdict, Verdict::Fail(_))).count();
    if failed == 0 {
        say("\nAll that the daemon needs is there.");
        return Ok(ExitCode::SUCCESS);
    }
    say(format_args!("\n{failed} of {} checks failed.", checks.len()));
    Ok(ExitCode::FAILURE)
}

fn lookup(name: &'static str, lookup: &Lookup) -> Check {
    match &lookup.found {
        Some(path) => Check::ok(name, path.display().to_string()),
        None => Check::fail(name, format!("not found at {}", lookup.places()), lookup.remedy),
    }
}

fn folder(home: &Home) -> Check {
    let name = "ARCA_HOME";
    if let Err(error) = home.create() {
        return Check::fail(name, super::chain(&error), "see there");
    }
    match tempfile::tempfile_in(home.root()) {
        Ok(_) => Check::ok(name, home.root().display().to_string()),
        Err(error) => Check::fail(name, format!("{}: {error}", home.root().display()), advice(&error)),
    }
}

fn space(path: &Path) -> Check {
    let name = "free space";
    match nix::sys::statvfs::statvfs(path) {
        Ok(found) => {
            #[allow(clippy::useless_conversion, reason = "narrower on macOS")]
            let mib = (u64::from(found.blocks_available()) * u64::from(found.fragment_size())) >> 20;
            let text = format!("{mib} MiB at {}", path.display());
            if mib < LITTLE_SPACE {
                Check::warn(name, text, "free some space, or set ARCA_HOME to a folder on a larger disk")
            } else {
                Check::ok(name, text)
            }
        }
        Err(error) => Check::warn(name, format!("unknown: {error}"), "check that ARCA_HOME exists"),
    }
}

fn socket(config: &Config, home: &Home) -> Check {
    let name = "API socket";
    let path = config.socket(home);
    let text = path.display().to_string();
    if let Ok(Owner::Daemon(told)) = owner(home) {
        let text = told.socket.map_or(text, |socket| socket.display().to_string());
        return Check::ok(name, format!("{text} (the daemon runs{})", pid_text(told.pid)));
    }
    if is_served(&path) {
        return Check::fail(
            name,
            format!("{text}: another daemon answers there"),
            "stop it, or set socketPath in config.json",
        );
    }
    // The daemon makes folders that are missing: the first that is there counts.
    let folder = path.ancestors().skip(1).find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    match nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK) {
        Ok(()) => Check::ok(name, text),
        Err(error) => Check::fail(
            name,
            format!("{text}: cannot write {}: {error}", folder.display()),
            "set socketPath in config.json",
        ),
    }
}

/// Containers that the living daemon does not serve; `None` when all are, or nobody can tell.
fn containers(home: &Home) -> Option<Check> {
    let Ok(Owner::Daemon(told)) = owner(home) else { return None };
    let text = client::get(&told.socket?, "/_arca/status").ok()?;
    let status: Status = serde_json::from_str(&text).ok()?;
    let first = status.unserved.first()?;
    let found = format!("{} not served; {}: {}", status.unserved.len(), first.id, first.why);
    let remedy = format!(
        "see `arca daemon status`; files are kept, to give them up remove {} and restart the daemon",
        first.files
    );
    Some(Check::warn("containers", found, remedy))
}

fn qemu() -> Check {
    let name = "qemu";
    let found = Qemu::lookup();
    let check = lookup(name, &found);
    if found.found.is_none() {
        return check;
    }
    match Qemu::find() {
        Err(error) => Check::fail(name, super::chain(&error), "see there"),
        Ok(Qemu { path, version: (major, minor) }) => {
            let text = format!("{} ({major}.{minor})", path.display());
            if major < QEMU_RECOMMENDED {
                Check::warn(
                    name,
                    text,
                    "works; QEMU 10 is recommended (on Debian 12: from bookworm-backports)",
                )
            } else {
                Check::ok(name, text)
            }
        }
    }
}

fn open_files() -> Check {
    let name = "open files";
    match super::limits::few_files() {
        None => Check::ok(name, format!("{} or more are allowed", super::limits::FEW_FILES)),
        Some(few) => {
            let (found, remedy) = (format!("only {few} are allowed"), "raise the limit (`ulimit -Hn`)");
            if few < super::limits::TOO_FEW_FILES {
                Check::fail(name, found, remedy)
            } else {
                Check::warn(name, found, remedy)
            }
        }
    }
}

fn kvm_device() -> Check {
    let name = "/dev/kvm";
    if let Ok(cpu) = std::fs::read_to_string("/proc/cpuinfo")
        && cfg!(target_arch = "x86_64")
        && !cpu.lines().any(|l| l.starts_with("flags") && l.split(' ').any(|f| f == "vmx" || f == "svm"))
    {
        let remedy = "switch virtualisation on in the firmware, or nested virtualisation in the host; until then VMs are \
                      emulated: they work, slowly";
        return Check::warn(name, "the CPU offers no virtualisation (no vmx or svm flag)", remedy);
    }
    match OpenOptions::new().read(true).write(true).open(name) {
        Ok(_) => Check::ok(name, "may be used"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Check::warn(
            name,
            "is not there",
            "load the module kvm_intel or kvm_amd; until then VMs are emulated: slowly",
        ),
        Err(error) => Check::warn(
            name,
            format!("may not be used: {error}"),
            "add yourself to its group: `adduser $USER kvm`, log in anew",
        ),
    }
}

/// Boots a test VM where KVM might work.
fn accelerator(config: &Config, home: &Home) -> Result<Check, Box<dyn std::error::Error>> {
    let name = "accelerator";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(match runtime.block_on(Machine::find(config, home)) {
        Ok(machine) if machine.accelerator == runner::Accelerator::Kvm => Check::ok(name, "kvm"),
        Ok(machine) => {
            let why = machine.accelerator_note.unwrap_or_default();
            let remedy = "everything works, slowly; see /dev/kvm above";
            Check::warn(name, format!("tcg: VMs are emulated: {why}"), remedy)
        }
        Err(error) => Check::fail(name, super::chain(&error), "see above"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_what_to_do() {
        let line = Check::fail("kernel", "not found at /k", "run `make build`").to_string();
        assert!(line.starts_with("FAIL  kernel") && line.ends_with("-> run `make build`"), "{line}");
        assert!(!Check::ok("x", "y").to_string().contains("->"));
    }
}
