//! Children of the runner: started so that they die with it, watched, killed, reaped.

use std::{
    ffi::OsString,
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use command_fds::CommandFdExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    task::JoinHandle,
};

use super::{console::Console, credentials::Credentials, files::Inherited, limits};
use crate::Error;

/// Sets limits, then becomes another program (util-linux).
const PRLIMIT: &str = "prlimit";
/// Sets credentials and the parent-death signal, then becomes another program (util-linux).
const SETPRIV: &str = "setpriv";

/// A program to be started.
pub(in crate::vmm) struct Launch<'a> {
    pub(in crate::vmm) program: &'a Path,
    pub(in crate::vmm) args: &'a [OsString],
    pub(in crate::vmm) credentials: &'a Credentials,
    /// The only files it gets.
    pub(in crate::vmm) files: Inherited,
    /// Bytes of the largest file it may write.
    pub(in crate::vmm) largest: u64,
}

/// Starts a program in its own process group, with other credentials and limits, to be killed when this process dies. Its stdin
/// is empty; output is piped.
pub(in crate::vmm) fn spawn(launch: Launch<'_>) -> Result<Child, Error> {
    let failed = |source| Error::Spawn { program: PRLIMIT.into(), source };
    let mut command = Command::new(PRLIMIT);
    command
        // Each sets its own limits: another user's may be out of reach even for root.
        .args(limits::options(launch.largest))
        .args(["--", SETPRIV])
        .args(launch.credentials.options())
        .arg("--")
        .arg(launch.program)
        .args(launch.args)
        // Nothing that the daemon was started with: it may hold secrets.
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .fd_mappings(launch.files.mappings())
        .map_err(|error| failed(io::Error::other(error)))?;
    // Our copies of the files go with the command: a disk's lock must not outlive QEMU.
    let child = command.spawn().map_err(failed)?;
    if let Some(pid) = child.id() {
        limits::expendable(pid);
    }
    Ok(child)
}

/// A recorder shared with the task that fills it.
pub(super) type Shared = Arc<Mutex<Console>>;

/// Copies a child's output into a console until it ends.
pub(super) fn record<R>(source: Option<R>, console: &Shared) -> JoinHandle<()>
where
    R: AsyncRead + Unpin + Send + 'static,
{
    let console = Arc::clone(console);
    tokio::spawn(async move {
        let Some(mut source) = source else { return };
        let mut buffer = vec![0; 4096];
        while let Ok(n @ 1..) = source.read(&mut buffer).await {
            console.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..n]);
        }
    })
}

/// State of a process as proc(5) has it.
pub(super) fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may have anything in it.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// How a child ended, in words.
pub(super) fn ending(name: &str, status: &io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("{name}: {status}"),
        Err(error) => format!("{name}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SPEC P3
    #[tokio::test]
    async fn a_child_learns_nothing_of_the_daemons_environment() {
        assert!(std::env::vars_os().count() > 1, "cargo sets some");
        let child = spawn(Launch {
            program: Path::new("env"),
            args: &[],
            credentials: &Credentials::Own,
            files: Inherited::default(),
            largest: 1 << 20,
        });
        let out = child.unwrap().wait_with_output().await.unwrap();
        assert!(out.status.success(), "{out:?}");
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(text.lines().all(|line| line.starts_with("PATH=")) && !text.is_empty(), "{text}");
    }
}
