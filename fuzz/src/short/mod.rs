//! The short driver: each target in a process of its own, so that a stack overflow, an abort or a hang is a finding like
//! any other. The inputs are the same each time for the same seed; how many there are depends on the time.

mod report;
mod worker;

use std::{
    env, fs,
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub use report::{Report, table};
pub use worker::{Budget, INPUT, work};

use crate::{Target, scratch};

/// Least share of inputs, in percent, that must get past the first stage: else the target tests only that one.
const LEAST_PARSED: u64 = 2;
/// Most memory of a target's process: inputs are at most 64 KiB.
const MAX_PEAK_KIB: u64 = 512 << 10;

/// Why a target failed.
#[derive(Debug)]
pub struct Finding {
    /// What happened, for a person.
    pub what: String,
    /// The input, if one is to blame.
    pub input: Option<PathBuf>,
}

/// Runs `target` in a process of its own: this program, called as `worker`.
///
/// # Errors
/// When that cannot be started.
pub fn run(
    program: &Path,
    target: &Target,
    budget: Budget,
    seed: u64,
) -> io::Result<Result<Report, Finding>> {
    let scratch = scratch::new()?;
    let mut child = Command::new(program)
        .args(["worker", target.name, &budget.to_string(), &seed.to_string()])
        .env(scratch::VARIABLE, scratch.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut out = String::new();
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_string(&mut out)?;
    }
    let status = child.wait()?;
    let input = scratch.path().join(INPUT);
    Ok(match out.parse::<Report>() {
        Ok(report) if status.success() => judge(report),
        _ => Err(Finding {
            what: format!("the process ended with {status}"),
            input: Some(keep(target, &input)?),
        }),
    })
}

fn judge(report: Report) -> Result<Report, Finding> {
    let Report { inputs, parsed, peak_kib, .. } = report;
    if parsed * 100 < inputs * LEAST_PARSED {
        let what =
            format!("only {parsed} of {inputs} inputs got past the first stage: are the seeds still right?");
        return Err(Finding { what, input: None });
    }
    if peak_kib > MAX_PEAK_KIB {
        return Err(Finding { what: format!("{peak_kib} KiB of memory"), input: None });
    }
    Ok(report)
}

/// Copies the input of a finding to where it stays.
fn keep(target: &Target, input: &Path) -> io::Result<PathBuf> {
    let folder = match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    };
    let folder = folder.join("fuzz-findings");
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{}-{}", target.name, std::process::id()));
    fs::copy(input, &path)?;
    Ok(path)
}
