//! Where the kernel, the initramfs and programs are looked for.

use std::path::{Path, PathBuf};

use super::Config;
use crate::home::Home;

/// What to do when something of `make build` is missing.
const BUILD: &str = "run `make build` in Arca's source folder";

/// The result of a search, with every place looked at.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// What was looked for.
    pub what: &'static str,
    /// The first place that had it.
    pub found: Option<PathBuf>,
    /// All places, in order.
    pub looked: Vec<PathBuf>,
    /// What to do when it is missing.
    pub remedy: &'static str,
}

impl Lookup {
    fn new(what: &'static str, remedy: &'static str, mut looked: Vec<PathBuf>) -> Self {
        // A PATH may name a folder twice.
        let mut seen = std::collections::HashSet::new();
        looked.retain(|path| seen.insert(path.clone()));
        let found = looked.iter().find(|p| p.is_file()).cloned();
        Self { what, found, looked, remedy }
    }

    /// One sentence for the user when nothing was found.
    #[must_use]
    pub fn advice(&self) -> String {
        let places: Vec<_> = self.looked.iter().map(|p| p.display().to_string()).collect();
        format!("{} not found; looked at {}; {}", self.what, places.join(", "), self.remedy)
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
    Lookup::new("kernel bzImage", BUILD, places(config.kernel_path.as_deref(), home, "bzImage"))
}

/// Initramfs of all VMs: `initramfsPath`, else `ARCA_HOME/initramfs.cpio`, else the build's.
#[must_use]
pub fn find_initramfs(config: &Config, home: &Home) -> Lookup {
    let looked = places(config.initramfs_path.as_deref(), home, "initramfs.cpio");
    Lookup::new("initramfs initramfs.cpio", BUILD, looked)
}

/// A program in `PATH`, and in the `sbin` folders that an ordinary user's `PATH` lacks.
#[must_use]
pub fn find_program(name: &'static str, remedy: &'static str) -> Lookup {
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    Lookup::new(name, remedy, path_folders().into_iter().chain(sbin).map(|d| d.join(name)).collect())
}

fn path_folders() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|p| std::env::split_paths(&p).collect()).unwrap_or_default()
}

/// A configured path is the only place: a silent fallback would boot something else than what was asked for.
fn places(configured: Option<&Path>, home: &Home, name: &str) -> Vec<PathBuf> {
    match configured {
        Some(path) => vec![path.to_owned()],
        None => [Some(home.root().to_owned()), cache_current()]
            .into_iter()
            .flatten()
            .map(|d| d.join(name))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_path_has_no_fallback() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("bzImage"), b"").unwrap();
        let home = Home::new(dir.path()).unwrap();
        let found = find_kernel(&Config::default(), &home);
        assert_eq!(found.found, Some(dir.path().join("bzImage")));
        let config = Config { kernel_path: Some("/nowhere/k".into()), ..Config::default() };
        let lookup = find_kernel(&config, &home);
        assert_eq!(lookup.found, None);
        assert!(lookup.advice().contains("/nowhere/k") && lookup.advice().contains("make build"));
    }

    #[test]
    fn advice_names_all_places() {
        let lookup = find_program("no-such-program-here", "buy it");
        assert!(lookup.found.is_none());
        assert!(lookup.advice().contains("/usr/sbin/no-such-program-here"));
        assert!(lookup.advice().ends_with("buy it"));
    }
}
