//! The minimal init of containers run with `--init`: PID 1 of the container, which starts the command, forwards signals,
//! reaps orphans, and ends as the command ends.

use std::{
    ffi::CString,
    fs::File,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, tcsetpgrp},
};

/// Name it runs under, which is docker's.
pub(crate) const ARGV0: &str = "/sbin/docker-init";

/// Executes `program` (our own, which is not in the container's root) as the init of `args`. Returns only on failure.
pub(super) fn exec(program: &File, args: &[CString], env: &[CString]) -> Errno {
    let words = [ARGV0, "--"].map(|word| CString::new(word).unwrap_or_default());
    let args: Vec<&CString> = words.iter().chain(args).collect();
    match nix::unistd::fexecve(program, &args, env) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// The init's life.
pub(crate) fn main() -> ExitCode {
    let signals = SigSet::all();
    // Blocked signals wait for sigwait(3), also those that came before.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&signals), None);
    let mut args = std::env::args_os().skip(2);
    let Some(program) = args.next() else { return ExitCode::from(2) };
    let mut command = Command::new(&program);
    command.args(args);
    // A group of its own, in the foreground of the terminal: signals typed there are the command's, not ours as well.
    command.process_group(0);
    // SAFETY: tcsetpgrp, getpid and sigprocmask are async-signal-safe (signal-safety(7)).
    unsafe {
        command.pre_exec(|| {
            // SIGTTOU is still blocked here, so that a background group may take the terminal.
            let _ = tcsetpgrp(std::io::stdin(), nix::unistd::getpid());
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
            Ok(())
        });
    }
    let child = match command.spawn() {
        Ok(child) => Pid::from_raw(child.id().cast_signed()),
        Err(error) => {
            eprintln!("exec {} failed: {}", program.display(), super::failure::go_text(&error));
            return ExitCode::from(if error.raw_os_error() == Some(libc::ENOENT) { 127 } else { 126 });
        }
    };
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = reap(child) {
                    return ExitCode::from(code);
                }
            }
            // The terminal's own: forwarding them would stop the command for ever.
            Ok(Signal::SIGTTIN | Signal::SIGTTOU) | Err(_) => {}
            Ok(signal) => drop(kill(child, signal)),
        }
    }
}

/// Reaps all that ended; the exit code when the command was among them.
fn reap(child: Pid) -> Option<u8> {
    let mut code = None;
    loop {
        let (pid, result) = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, code),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(_) => return code,
            Ok(_) => continue,
        };
        if pid == child {
            code = u8::try_from(result).ok();
        }
    }
}
