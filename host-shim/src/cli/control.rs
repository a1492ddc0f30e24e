//! `arca daemon start` and `stop`

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    CliResult, client,
    lock::{Owner, Told, owner, pid_text},
    output::{complain, quoted, say},
};
use crate::{
    config::{Config, this_program},
    error::{Error, Result},
    home::{Home, unusable},
};

/// From spawning the daemon to its first answer: it may try KVM (10 s) and look after every VM that lives.
const START: Duration = Duration::from_secs(120);
/// From SIGTERM to the free lock.
const STOP: Duration = Duration::from_secs(20);
/// From SIGKILL to the free lock.
const KILL: Duration = Duration::from_secs(10);
/// Between two looks at what can only be polled: another process' socket or lock.
const LOOK: Duration = Duration::from_millis(20);
/// A log this long is put aside at a start.
const LONG_LOG: u64 = 10 << 20;
/// Bytes of log shown when a start fails.
const TAIL: u64 = 4 << 10;

pub(super) fn start() -> CliResult {
    let mut home = Home::from_env()?;
    home.create()?;
    let config = Config::load(&home)?;
    if let Owner::Daemon(_) = owner(&home)? {
        return Ok(already(&home)?);
    }
    let log = home.daemon_log();
    let open = || -> io::Result<(File, u64)> {
        if fs::metadata(&log).is_ok_and(|m| m.len() > LONG_LOG) {
            fs::rename(&log, log.with_extension("log.1"))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&log)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    };
    let (out, from) = open().map_err(|e| unusable(&log, e))?;
    let mut child = Command::new(this_program()?)
        .arg0("arca")
        .args(["daemon", "run", "--detached"])
        .env("ARCA_HOME", home.root())
        .current_dir("/")
        .stdin(Stdio::null())
        // Its last words, where the log cannot take them.
        .stdout(Stdio::piped())
        .stderr(out)
        .spawn()
        .map_err(|e| Error::system("cannot start the daemon's process").because(e))?;
    let mut last_words = child.stdout.take();
    let mut end = None;
    let answered = wait(START, || {
        end = ended(&mut child);
        end.is_some() || answers(&home, &config, child.id())
    });
    match end {
        None if answered => {
            home = Home::from_env()?;
            say(format_args!("arca: the daemon runs (pid {})", child.id()));
            say_socket(&socket(&home, &config));
            return Ok(ExitCode::SUCCESS);
        }
        // Another one was faster.
        Some(_) if matches!(owner(&home)?, Owner::Daemon(_)) => return Ok(already(&home)?),
        _ => {}
    }
    let what = match end {
        Some(how) => format!("the daemon ended at once{how}"),
        None => {
            // Half a daemon is worse than none.
            let _ = child.kill();
            let _ = child.wait();
            format!("the daemon did not answer within {} s", START.as_secs())
        }
    };
    let mut words = Vec::new();
    if let Some(pipe) = &mut last_words {
        let _ = pipe.take(TAIL).read_to_end(&mut words);
    }
    let words = String::from_utf8_lossy(&words);
    if let Some(reason) = words.trim().strip_prefix("arca: ") {
        return Err(Error::system(reason.trim()).into());
    }
    Err(Error::system(format!("{what}; {} ends with:\n{}", log.display(), tail(&log, from))).into())
}

/// How a child ended. Where this process was started with SIGCHLD ignored nobody knows more than that it did.
fn ended(child: &mut Child) -> Option<String> {
    match child.try_wait() {
        Ok(status) => status.map(|status| format!(" ({status})")),
        Err(_) => Some(String::new()),
    }
}

/// Whether the daemon `pid` answers.
fn answers(home: &Home, config: &Config, pid: u32) -> bool {
    let Ok(Owner::Daemon(told)) = owner(home) else { return false };
    let pid = i32::try_from(pid).ok();
    let socket = told.socket.unwrap_or_else(|| config.socket(home));
    // Another daemon may answer there, which keeps this one from it.
    told.pid == pid
        && client::server(&socket).is_none_or(|server| Some(server) == pid)
        && client::ping(&socket)
}

/// Where the daemon is reached: it says so itself; the configuration may have changed since its start.
fn socket(home: &Home, config: &Config) -> std::path::PathBuf {
    match owner(home) {
        Ok(Owner::Daemon(Told { socket: Some(socket), .. })) => socket,
        _ => config.socket(home),
    }
}

/// A daemon runs, or is starting this very moment.
fn already(home: &Home) -> Result<ExitCode> {
    let mut told = Told::default();
    let answered = wait(START, || match owner(home) {
        Ok(Owner::Daemon(found)) => {
            told = found;
            told.socket.as_deref().is_some_and(client::ping)
        }
        _ => true,
    });
    let Some(socket) = told.socket.filter(|_| answered) else {
        let text = format!(
            "a daemon{} holds {} but does not answer: `arca daemon stop` ends it; its log is {}",
            pid_text(told.pid),
            home.root().display(),
            home.daemon_log().display()
        );
        return Err(Error::system(text));
    };
    if !matches!(owner(home), Ok(Owner::Daemon(_))) {
        let text =
            format!("the daemon{} ended; its log is {}", pid_text(told.pid), home.daemon_log().display());
        return Err(Error::system(text));
    }
    say(format_args!("arca: the daemon runs already{}", pid_text(told.pid)));
    say_socket(&socket);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn stop() -> CliResult {
    let home = Home::from_env()?;
    let Owner::Daemon(told) = owner(&home)? else {
        say(format_args!("arca: no daemon runs for {}", home.root().display()));
        return Ok(ExitCode::SUCCESS);
    };
    let pid = told.pid.ok_or_else(|| {
        Error::system(format!("the daemon of {} is just starting: try again", home.root().display()))
    })?;
    send(pid, Signal::SIGTERM)?;
    // One that was stopped (^Z, SIGSTOP) would not see it.
    send(pid, Signal::SIGCONT)?;
    let gone = || match owner(&home) {
        Ok(Owner::Nobody) => true,
        // The next one.
        Ok(Owner::Daemon(now)) => now.pid.is_some_and(|now| now != pid),
        Err(_) => false,
    };
    if !wait(STOP, gone) {
        // Nothing is lost by that: every decision is in the store, and runners look after their VMs.
        complain(format_args!(
            "arca: the daemon (pid {pid}) did not end within {} s: killed",
            STOP.as_secs()
        ));
        send(pid, Signal::SIGKILL)?;
        if !wait(KILL, gone) {
            let text = format!(
                "the daemon (pid {pid}) was killed and still is there: it waits for a disk; its log is {}",
                home.daemon_log().display()
            );
            return Err(Error::system(text).into());
        }
    }
    say("arca: the daemon stopped; containers go on running, and the next daemon takes them over");
    Ok(ExitCode::SUCCESS)
}

fn send(pid: i32, signal: Signal) -> Result<()> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => {
            Err(Error::system(format!("cannot stop the daemon (pid {pid})")).because(io::Error::from(error)))
        }
    }
}

fn say_socket(socket: &Path) {
    say(format_args!("export DOCKER_HOST={}", quoted(&format!("unix://{}", socket.display()))));
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
