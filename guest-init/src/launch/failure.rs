//! Why a process could not be launched, in the words docker's users know.

use std::{fmt::Display, io};

use serde::{Deserialize, Serialize};

/// A launcher's report.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// docker's exit code: 125 (the engine's fault), 126 (cannot be run) or 127 (not found).
    pub(crate) exit_code: i32,
    /// The last part of runc's message, or all of it when `plain`.
    pub(crate) message: String,
    /// The engine's own error: no runc prefix.
    pub(crate) plain: bool,
}

impl Failure {
    /// A step of the set-up that failed; the exit code follows the error number as dockerd reads it from runc's text.
    pub(crate) fn setup(step: impl Display, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        let exit_code = match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => 127,
            Some(libc::EACCES) => 126,
            _ => 125,
        };
        Self { exit_code, message: format!("{step}: {}", go_text(&error)), plain: false }
    }

    /// An error in the engine's own words.
    pub(crate) fn plain(message: impl Display) -> Self {
        Self { exit_code: 125, message: message.to_string(), plain: true }
    }

    /// The command is not there.
    pub(crate) fn not_found(message: String) -> Self {
        Self { exit_code: 127, message, plain: false }
    }

    /// The command is there but cannot be run.
    pub(crate) fn cannot_run(message: String) -> Self {
        Self { exit_code: 126, message, plain: false }
    }

    /// The whole text as dockerd puts it, for a container's first process or for an exec.
    pub(crate) fn text(&self, first: bool) -> String {
        if self.plain {
            self.message.clone()
        } else if first {
            format!(
                "failed to create task for container: failed to create shim task: OCI runtime create failed: runc \
                 create failed: unable to start container process: error during container init: {}",
                self.message
            )
        } else {
            format!(
                "OCI runtime exec failed: exec failed: unable to start container process: {}",
                self.message
            )
        }
    }
}

/// An error number as Go words it: lower case, without Rust's "(os error n)".
pub(crate) fn go_text(error: &io::Error) -> String {
    let Some(number) = error.raw_os_error() else { return error.to_string() };
    let text = nix::errno::Errno::from_raw(number).desc();
    // "No such file or directory" -> "no such file or directory"; but "RPC ..." stays.
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            let rest = text.strip_prefix(first).unwrap_or_default();
            format!("{}{rest}", first.to_ascii_lowercase())
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_codes_of_runc() {
        let failure =
            Failure::setup("chdir to cwd (\"/x\") set in config.json failed", nix::errno::Errno::ENOENT);
        assert_eq!(failure.exit_code, 127);
        assert_eq!(
            failure.text(false),
            "OCI runtime exec failed: exec failed: unable to start container process: \
             chdir to cwd (\"/x\") set in config.json failed: no such file or directory"
        );
        assert!(failure.text(true).contains("error during container init: chdir to cwd"));
        assert_eq!(Failure::plain("unable to find user bob").text(true), "unable to find user bob");
    }
}
