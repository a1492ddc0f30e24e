//! Children of the runner: started so that they die with it, watched, killed, reaped.

use std::{
    ffi::OsString,
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    task::JoinHandle,
};

use super::console::Console;
use crate::Error;

/// Starts `program` in its own process group, to be killed when this process dies. Its stdin is empty; output is piped.
///
/// The parent-death signal is set by `setpriv` of util-linux, which then becomes the program: no code of ours runs between
/// fork and exec. Where there is no setpriv the program is started as it is.
pub(in crate::vmm) fn spawn(program: &Path, args: &[OsString], cwd: &Path) -> Result<Child, Error> {
    let start = |mut command: Command| {
        command
            .args(args)
            .current_dir(cwd)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    };
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "KILL", "--"]).arg(program);
    match start(bound) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => start(Command::new(program)),
        result => result,
    }
    .map_err(|source| Error::Spawn { program: program.to_owned(), source })
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

/// How a child ended, in words.
pub(super) fn ending(name: &str, status: &io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("{name}: {status}"),
        Err(error) => format!("{name}: {error}"),
    }
}
