//! The body of `arca runner`.

use std::{path::Path, process::ExitCode};

/// Runs one VM as `spec_path` says, until it is gone. Call it from the main thread of a process of its own.
#[must_use]
pub fn serve(spec_path: &Path) -> ExitCode {
    let _ = spec_path;
    ExitCode::FAILURE
}
