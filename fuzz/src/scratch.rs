//! A folder for targets that need files, in memory where there is such a place.

use std::{
    env,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use tempfile::TempDir;

/// Names the folder; its owner removes it.
pub const VARIABLE: &str = "ARCA_FUZZ_SCRATCH";

/// A new folder, removed when dropped.
///
/// # Errors
/// When none can be made.
pub fn new() -> std::io::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let prefix = "arca-fuzz.";
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    builder.tempdir_in(memory).or_else(|_| builder.tempdir())
}

/// The process's folder: the one its driver made, else one of its own that stays behind.
pub fn dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| match env::var_os(VARIABLE) {
        Some(dir) => dir.into(),
        None => new().map_or_else(|_| PathBuf::from("/tmp"), TempDir::keep),
    })
}
