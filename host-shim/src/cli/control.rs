//! `arca daemon start` and `stop`

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    CliResult, client,
    lock::{Owner, owner},
};
use crate::{config::Config, error::Error, home::Home};

/// From spawning the daemon to its first answer.
const START: Duration = Duration::from_secs(30);
/// From SIGTERM to the free lock.
const STOP: Duration = Duration::from_secs(30);
/// Between two looks at what can only be polled: another process' socket or lock.
const LOOK: Duration = Duration::from_millis(20);
/// A log this long is put aside at a start.
const LONG_LOG: u64 = 10 << 20;
/// Bytes of log shown when a start fails.
const TAIL: u64 = 4 << 10;

pub(super) fn start() -> CliResult {
    let home = Home::from_env()?;
    let config = Config::load(&home)?;
    let socket = config.socket(&home);
    if let Owner::Daemon(pid) = owner(&home)? {
        // It may be starting this very moment.
        if !wait(START, || client::ping(&socket)) {
            let text = format!(
                "a daemon{} holds {} but does not answer on {}; its log is {}",
                pid_text(pid),
                home.root().display(),
                socket.display(),
                home.daemon_log().display()
            );
            return Err(Error::system(text).into());
        }
        println!("arca: the daemon runs already{}", pid_text(pid));
        say_socket(&socket);
        return Ok(ExitCode::SUCCESS);
    }
    home.create()?;
    let log = home.daemon_log();
    if fs::metadata(&log).is_ok_and(|m| m.len() > LONG_LOG) {
        fs::rename(&log, log.with_extension("log.1"))?;
    }
    let out = OpenOptions::new().create(true).append(true).open(&log)?;
    let from = out.metadata()?.len();
    let mut child = Command::new(std::env::current_exe()?)
        .args(["daemon", "run", "--detached"])
        .env("ARCA_HOME", home.root())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .spawn()?;
    let pid = child.id();
    let mut ended = None;
    let answered = wait(START, || {
        ended = child.try_wait().ok().flatten();
        ended.is_some() || client::ping(&socket)
    });
    let what = match ended {
        None if answered => {
            println!("arca: the daemon runs (pid {pid})");
            say_socket(&socket);
            return Ok(ExitCode::SUCCESS);
        }
        Some(status) => format!("the daemon ended at once ({status})"),
        None => {
            // Half a daemon is worse than none.
            let _ = child.kill();
            let _ = child.wait();
            format!("the daemon did not answer on {} within {} s", socket.display(), START.as_secs())
        }
    };
    Err(Error::system(format!("{what}; {} ends with:\n{}", log.display(), tail(&log, from))).into())
}

pub(super) fn stop() -> CliResult {
    let home = Home::from_env()?;
    let Owner::Daemon(pid) = owner(&home)? else {
        println!("arca: no daemon runs for {}", home.root().display());
        return Ok(ExitCode::SUCCESS);
    };
    let pid =
        pid.ok_or_else(|| Error::system(format!("{} has no pid in it: try again", home.lock().display())))?;
    kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(|error| {
        Error::system(format!("cannot stop the daemon (pid {pid})")).because(io::Error::from(error))
    })?;
    if !wait(STOP, || matches!(owner(&home), Ok(Owner::Nobody))) {
        let text = format!(
            "the daemon (pid {pid}) got SIGTERM and still runs after {} s; its log is {}",
            STOP.as_secs(),
            home.daemon_log().display()
        );
        return Err(Error::system(text).into());
    }
    println!("arca: the daemon stopped; containers go on running, and the next daemon takes them over");
    Ok(ExitCode::SUCCESS)
}

fn pid_text(pid: Option<i32>) -> String {
    pid.map(|p| format!(" (pid {p})")).unwrap_or_default()
}

fn say_socket(socket: &Path) {
    println!("export DOCKER_HOST=unix://{}", socket.display());
}

fn wait(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(LOOK);
    }
}

/// What the log got since `from`, at most the last [`TAIL`] bytes.
fn tail(path: &Path, from: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL))))?;
        let mut text = Vec::new();
        file.take(TAIL).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_begins_where_the_start_did() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "old\nnew\n").unwrap();
        assert_eq!(tail(&path, 4), "new");
        fs::write(&path, "x".repeat(10_000)).unwrap();
        assert_eq!(tail(&path, 0).len(), 4096);
        assert_eq!(tail(&dir.path().join("none"), 0), "");
    }
}
