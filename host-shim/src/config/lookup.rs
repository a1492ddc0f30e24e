//! Where the kernel, the initramfs and programs are looked for.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::Config;
use crate::home::Home;

/// What to do when something of `make build` is missing.
const BUILD: &str = "run `make build` in Arca's source folder";
/// What to do when the configuration names something else.
const CORRECT: &str = "correct it in config.json";

/// The result of a search, with every place looked at.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// What was looked for.
    pub what: &'static str,
    /// The first place that had it.
    pub found: Option<PathBuf>,
    /// All places up to that, in order.
    pub looked: Vec<Place>,
    /// What to do when it is missing.
    pub remedy: &'static str,
}

/// A place that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub path: PathBuf,
    /// Why it was not taken, unless it was just missing.
    pub problem: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            None => write!(f, "{}", self.path.display()),
            Some(problem) => write!(f, "{} ({problem})", self.path.display()),
        }
    }
}

impl Lookup {
    fn new(
        what: &'static str,
        remedy: &'static str,
        mut paths: Vec<PathBuf>,
        check: impl Fn(&Path) -> io::Result<()>,
    ) -> Self {
        // A PATH may name a folder twice.
        let mut seen = std::collections::HashSet::new();
        paths.retain(|path| seen.insert(path.clone()));
        let mut looked = Vec::new();
        for path in paths {
            let problem = match check(&path) {
                Ok(()) => return Self { what, found: Some(path), looked, remedy },
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => Some(error.to_string()),
            };
            looked.push(Place { path, problem });
        }
        Self { what, found: None, looked, remedy }
    }

    /// The places, for a message.
    #[must_use]
    pub fn places(&self) -> String {
        self.looked.iter().map(Place::to_string).collect::<Vec<_>>().join(", ")
    }

    /// One sentence for the user when nothing was found.
    #[must_use]
    pub fn advice(&self) -> String {
        format!("{} not found; looked at {}; {}", self.what, self.places(), self.remedy)
    }
}

/// Folder of what was built last on this host: `${XDG_CACHE_HOME:-$HOME/.cache}/arca/current`.
#[must_use]
pub fn cache_current() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|h| h.join(".cache")))?;
    Some(cache.join("arca/current"))
}

/// Kernel of all VMs: `kernelPath`, else `ARCA_HOME/bzImage`, else the build's.
#[must_use]
pub fn find_kernel(config: &Config, home: &Home) -> Lookup {
    match &config.kernel_path {
        Some(path) => Lookup::new("kernelPath", CORRECT, vec![path.clone()], kernel),
        None => Lookup::new("kernel bzImage", BUILD, places(home, "bzImage"), kernel),
    }
}

/// Initramfs of all VMs: `initramfsPath`, else `ARCA_HOME/initramfs.cpio`, else the build's.
#[must_use]
pub fn find_initramfs(config: &Config, home: &Home) -> Lookup {
    match &config.initramfs_path {
        Some(path) => Lookup::new("initramfsPath", CORRECT, vec![path.clone()], readable),
        None => Lookup::new("initramfs initramfs.cpio", BUILD, places(home, "initramfs.cpio"), readable),
    }
}

/// A program in `PATH`, and in the `sbin` folders that an ordinary user's `PATH` lacks.
#[must_use]
pub fn find_program(name: &'static str, remedy: &'static str) -> Lookup {
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let paths = path_folders().into_iter().chain(sbin).map(|d| d.join(name)).collect();
    Lookup::new(name, remedy, paths, executable)
}

fn path_folders() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|p| std::env::split_paths(&p).collect()).unwrap_or_default()
}

/// Only where nothing is configured: a silent fallback would boot something else than what was asked for.
fn places(home: &Home, name: &str) -> Vec<PathBuf> {
    [Some(home.root().to_owned()), cache_current()].into_iter().flatten().map(|d| d.join(name)).collect()
}

fn file(path: &Path) -> io::Result<()> {
    let found = std::fs::metadata(path)?;
    let problem = if found.is_dir() {
        "is a folder"
    } else if !found.is_file() {
        "is no file"
    } else if found.len() == 0 {
        "is empty"
    } else {
        return Ok(());
    };
    Err(io::Error::other(problem))
}

fn readable(path: &Path) -> io::Result<()> {
    file(path)?;
    File::open(path).map(drop).map_err(|error| io::Error::other(format!("cannot be read: {error}")))
}

fn executable(path: &Path) -> io::Result<()> {
    file(path)?;
    nix::unistd::access(path, nix::unistd::AccessFlags::X_OK)
        .map_err(|_| io::Error::other("may not be executed"))
}

/// On x86 QEMU boots a bzImage (`HdrS` at 0x202) or an ELF image; something else is told here and not by a VM that stays
/// silent.
fn kernel(path: &Path) -> io::Result<()> {
    readable(path)?;
    let mut head = Vec::new();
    File::open(path)?.take(0x206).read_to_end(&mut head)?;
    if cfg!(target_arch = "x86_64") && head.get(0x202..) != Some(b"HdrS") && !head.starts_with(b"\x7fELF") {
        return Err(io::Error::other("is not a kernel: neither a bzImage nor an ELF image"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_path_has_no_fallback() {
        let dir = tempfile::tempdir().unwrap();
        let mut image = vec![0; 0x202];
        image.extend(b"HdrS");
        std::fs::write(dir.path().join("bzImage"), &image).unwrap();
        let home = Home::new(dir.path()).unwrap();
        let found = find_kernel(&Config::default(), &home);
        assert_eq!(found.found, Some(dir.path().join("bzImage")));
        let config = Config { kernel_path: Some("/nowhere/k".into()), ..Config::default() };
        let lookup = find_kernel(&config, &home);
        assert_eq!(lookup.found, None);
        assert!(lookup.advice().contains("kernelPath") && lookup.advice().contains("/nowhere/k"));
    }

    #[test]
    fn advice_names_all_places() {
        let lookup = find_program("no-such-program-here", "buy it");
        assert!(lookup.found.is_none());
        assert!(lookup.advice().contains("/usr/sbin/no-such-program-here"));
        assert!(lookup.advice().ends_with("buy it"));
    }

    #[test]
    fn a_place_says_why_it_was_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("folder")).unwrap();
        std::fs::write(path("garbage"), vec![7; 4096]).unwrap();
        std::fs::write(path("empty"), "").unwrap();
        let home = Home::new(dir.path()).unwrap();
        for (name, words) in [
            ("folder", "is a folder"),
            ("garbage", "is not a kernel"),
            ("empty", "is empty"),
            ("garbage/x", "Not a directory"),
        ] {
            let config = Config { kernel_path: Some(path(name)), ..Config::default() };
            let advice = find_kernel(&config, &home).advice();
            assert!(advice.contains(words) && advice.ends_with("correct it in config.json"), "{advice}");
        }
        assert!(executable(&path("garbage")).unwrap_err().to_string().contains("may not be executed"));
    }
}
