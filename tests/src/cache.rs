//! Where slow products live: the user's cache folder, shared by builds, tests and benchmarks.

use std::path::{Path, PathBuf};

fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// `$XDG_CACHE_HOME/arca`, else `~/.cache/arca`.
fn user() -> PathBuf {
    let base = set("XDG_CACHE_HOME").unwrap_or_else(|| set("HOME").unwrap_or_default().join(".cache"));
    base.join("arca")
}

/// Slow products of builds and tests: `ARCA_CACHE`, else the user's cache folder.
#[must_use]
pub fn dir() -> PathBuf {
    set("ARCA_CACHE").unwrap_or_else(user)
}

/// Kernel, initramfs and tools of the last build, where every daemon of this user looks; `ARCA_CACHE` does not move it.
#[must_use]
pub fn current() -> PathBuf {
    user().join("current")
}

/// Folder of the test images (`cargo run -p tests --bin test-images`).
#[must_use]
pub fn images() -> PathBuf {
    dir().join("test-images")
}

/// Root of the checkout.
#[must_use]
pub fn checkout() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The `arca` binary under test: `ARCA_BIN`, else the release build.
#[must_use]
pub fn arca() -> PathBuf {
    std::env::var_os("ARCA_BIN").map_or_else(|| checkout().join("target/release/arca"), PathBuf::from)
}

/// The docker CLI: on PATH, else the one that set-up unpacked.
#[must_use]
pub fn docker_cli() -> PathBuf {
    let on_path = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join("docker").is_file()));
    if on_path { PathBuf::from("docker") } else { dir().join("tools/docker-cli/usr/bin/docker") }
}

/// Copies a program that is to be run at once. `cp` does it: with a file that this process has open for writing, a child that
/// another thread starts just then would hold it open too, and the kernel runs no such program (`ETXTBSY`).
///
/// # Errors
/// When it cannot be copied.
pub fn copy_program(from: &Path, to: &Path) -> std::io::Result<()> {
    let done = std::process::Command::new("cp").arg("--").args([from, to]).status()?;
    if done.success() { Ok(()) } else { Err(std::io::Error::other(format!("cp {}: {done}", from.display()))) }
}
