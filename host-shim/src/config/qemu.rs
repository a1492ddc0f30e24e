//! The QEMU of this host: where it is, and whether its version will do.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{Lookup, find_program};
use crate::error::{Error, Result};

/// The oldest version that is supported.
const OLDEST: (u32, u32) = (7, 2);
/// What QEMU may take to tell its version.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes of its answer that are read.
const MOST: u64 = 64 << 10;

/// A QEMU that runs and is not too old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu {
    /// The program.
    pub path: PathBuf,
    /// Major and minor version.
    pub version: (u32, u32),
}

impl Qemu {
    /// The search for the program.
    #[must_use]
    pub fn lookup() -> Lookup {
        find_program("qemu-system-x86_64", "install the package qemu-system-x86")
    }

    /// Finds it and asks for its version.
    ///
    /// # Errors
    /// With what to do: when it is missing, does not run, or is too old.
    pub fn find() -> Result<Self> {
        let lookup = Self::lookup();
        let path = lookup.found.clone().ok_or_else(|| Error::system(lookup.advice()))?;
        let shown = path.display();
        let text = ask(&path).map_err(|why| {
            Error::system(format!("{shown} does not run: {why}; reinstall the package qemu-system-x86"))
        })?;
        let version = version(&text).ok_or_else(|| {
            Error::system(format!("{shown} does not tell its version: reinstall the package qemu-system-x86"))
        })?;
        if version < OLDEST {
            return Err(Error::system(format!(
                "{shown} is QEMU {}.{}, which is too old: install {}.{} or later (10 is recommended)",
                version.0, version.1, OLDEST.0, OLDEST.1
            )));
        }
        Ok(Self { path, version })
    }
}

/// What `qemu --version` prints; else why it does not.
fn ask(path: &Path) -> Result<String, String> {
    let mut child = Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let deadline = Instant::now() + ANSWER;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("no answer to --version within {ANSWER:?}"));
            }
            Err(error) => return Err(error.to_string()),
        }
    };
    let text = |source: Option<&mut dyn Read>| {
        let mut all = Vec::new();
        let _ = source.map(|source| source.take(MOST).read_to_end(&mut all));
        String::from_utf8_lossy(&all).trim().to_owned()
    };
    if status.success() {
        return Ok(text(child.stdout.as_mut().map(|s| s as &mut dyn Read)));
    }
    let words = text(child.stderr.as_mut().map(|s| s as &mut dyn Read));
    Err(if words.is_empty() { status.to_string() } else { format!("{status}: {words}") })
}

/// `QEMU emulator version 10.0.2 (Debian ...)`
fn version(text: &str) -> Option<(u32, u32)> {
    let version = text.lines().next()?.split("version ").nth(1)?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright";
        assert_eq!(version(debian), Some((7, 2)));
        assert_eq!(version("QEMU emulator version 10.0.2 (Debian)"), Some((10, 0)));
        assert_eq!(version("qemu: error"), None);
    }
}
