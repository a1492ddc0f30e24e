//! Fuzz targets: one function for each place where Arca reads bytes that somebody else made.
//!
//! Two drivers use them: `fuzz short` (a mutator of its own, some seconds for each target, in CI) and `libfuzzer`
//! (coverage-guided, `make fuzz`). A finding is a panic, an overflow, an input that takes seconds, or too much memory. What
//! else a target asserts stands in its module: most read back what was accepted.

#![forbid(unsafe_code)]

pub mod mutate;
pub mod random;
pub mod scratch;
pub mod short;
pub mod targets;

use std::{fs, io, path::Path};

/// How far an input came. A target most of whose inputs are refused by the first parser tests only that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// The first stage (JSON, protobuf, a tar header, ...) did not understand it.
    Refused,
    /// The first stage did.
    Parsed,
    /// All stages did.
    Accepted,
}

impl Reach {
    /// Of an input that `parsed` by the first stage, and was `accepted` by the last.
    #[must_use]
    pub fn of(parsed: bool, accepted: bool) -> Self {
        match (parsed, accepted) {
            (_, true) => Self::Accepted,
            (true, false) => Self::Parsed,
            (false, false) => Self::Refused,
        }
    }
}

/// One place that is fuzzed.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Feeds one input.
    pub run: fn(&[u8]) -> Reach,
    /// Inputs to start from, made in code.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words that mutations insert.
    pub words: &'static [&'static str],
    /// Inputs are JSON behind so many bytes.
    pub json: Option<usize>,
    /// Makes checksums right again, so that a mutation is looked at.
    pub repair: Option<fn(&mut [u8])>,
}

impl Target {
    /// Writes the seeds into `folder`, for a driver that wants files.
    ///
    /// # Errors
    /// When that fails.
    pub fn write_seeds(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        for (number, seed) in (self.seeds)().iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
        Ok(())
    }
}

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    targets::ALL.iter().find(|target| target.name == name)
}
