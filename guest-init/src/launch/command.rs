//! Which file a command name means, and the words when there is none: Go's `exec.LookPath`, which runc uses.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, AtFlags, CWD, accessat},
    io::Errno,
};

use super::failure::{Failure, go_text};

/// docker's PATH for images that set none.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The file to execute for `name`, searched in `path` (the process's PATH) when it has no slash. To be called as the
/// user the process will have.
pub(crate) fn look_up(name: &str, path: &str) -> Result<PathBuf, Failure> {
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(name.into()),
            Err(Reason::Stat(error)) => {
                let text = format!("exec: {name:?}: stat {name}: {}", go_text(&error));
                Err(match error.raw_os_error() {
                    Some(libc::ENOENT | libc::ENOTDIR) => Failure::not_found(text),
                    _ => Failure::cannot_run(text),
                })
            }
            Err(Reason::Refused(error)) => {
                Err(Failure::cannot_run(format!("exec: {name:?}: {}", go_text(&error.into()))))
            }
        };
    }
    for folder in path.split(':') {
        let folder = if folder.is_empty() { "." } else { folder };
        let candidate = Path::new(folder).join(OsStr::from_bytes(name.as_bytes()));
        if executable(&candidate).is_ok() {
            if candidate.is_absolute() {
                return Ok(candidate);
            }
            return Err(Failure::cannot_run(format!(
                "exec: {name:?}: cannot run executable found relative to current directory"
            )));
        }
    }
    Err(Failure::not_found(format!("exec: {name:?}: executable file not found in $PATH")))
}

enum Reason {
    Stat(io::Error),
    Refused(Errno),
}

fn executable(path: &Path) -> Result<(), Reason> {
    let meta = fs::metadata(path).map_err(Reason::Stat)?;
    if meta.is_dir() {
        return Err(Reason::Refused(Errno::ISDIR));
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).map_err(Reason::Refused)?;
    // For root access(2) is content with any execute bit, and so is execve(2).
    if meta.mode() & 0o111 == 0 { Err(Reason::Refused(Errno::ACCESS)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str, path: &str) -> (i32, String) {
        let failure = look_up(name, path).unwrap_err();
        (failure.exit_code, failure.message)
    }

    #[test]
    fn words_of_go() {
        assert_eq!(
            refusal("nosuch", DEFAULT_PATH),
            (127, "exec: \"nosuch\": executable file not found in $PATH".to_owned())
        );
        assert_eq!(refusal("", ""), (127, "exec: \"\": executable file not found in $PATH".to_owned()));
        assert_eq!(
            refusal("/nosuch", ""),
            (127, "exec: \"/nosuch\": stat /nosuch: no such file or directory".to_owned())
        );
        assert_eq!(refusal("/etc/passwd", ""), (126, "exec: \"/etc/passwd\": permission denied".to_owned()));
        assert_eq!(refusal("/etc", ""), (126, "exec: \"/etc\": is a directory".to_owned()));
    }

    #[test]
    fn the_first_folder_with_an_executable_wins() {
        let found = look_up("sh", "/nosuch:/etc:/bin:/usr/bin").unwrap();
        assert_eq!(found, Path::new("/bin/sh"));
    }
}
