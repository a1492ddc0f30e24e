//! The one place that waits for children.
//!
//! PID 1 is the parent of every container process it started and of all orphans. `waitpid(-1)` runs here only; an exit is
//! handed to whoever registered its pid. A process may end before its pid is registered, so while a launch is under way
//! ([`Reaper::hold`]) the exits of unknown pids are kept.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use nix::{
    errno::Errno,
    sys::{
        signal::kill,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::log;

/// How and when a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// 0..=255; 128 + signal number for a killed one.
    pub(crate) code: i32,
    /// When it was reaped.
    pub(crate) at: SystemTime,
}

#[derive(Default)]
struct State {
    waiting: HashMap<i32, oneshot::Sender<Exit>>,
    launches: usize,
    early: HashMap<i32, Exit>,
}

/// The reaper of this process.
#[derive(Default)]
pub(crate) struct Reaper {
    state: Mutex<State>,
}

/// While it lives, exits of unknown pids are kept for [`Hold::register`].
pub(crate) struct Hold(Arc<Reaper>);

impl Reaper {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reaps for ever.
    ///
    /// # Errors
    /// When SIGCHLD cannot be listened to.
    pub(crate) fn start(self: &Arc<Self>) -> io::Result<()> {
        let mut children = signal(SignalKind::child())?;
        let reaper = Arc::clone(self);
        tokio::spawn(async move {
            while children.recv().await.is_some() {
                reaper.reap();
            }
        });
        Ok(())
    }

    /// Takes every child that has ended.
    fn reap(&self) {
        // Under the lock: a pid is free for reuse once waitpid answered, and `signal` must not hit its next owner.
        let mut state = self.lock();
        loop {
            let (pid, code) = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            let exit = Exit { code, at: SystemTime::now() };
            if let Some(waiter) = state.waiting.remove(&pid.as_raw()) {
                let _ = waiter.send(exit);
            } else if state.launches > 0 {
                state.early.insert(pid.as_raw(), exit);
            } else {
                log::debug!("reaped orphan {pid}: {code}");
            }
        }
    }

    /// Announces a launch.
    pub(crate) fn hold(self: &Arc<Self>) -> Hold {
        self.lock().launches += 1;
        Hold(Arc::clone(self))
    }

    /// Sends a signal to a registered process that was not reaped yet.
    ///
    /// # Errors
    /// `ESRCH` when it has ended; kill(2)'s errors.
    pub(crate) fn signal(&self, pid: i32, number: i32) -> Result<(), Errno> {
        let state = self.lock();
        if !state.waiting.contains_key(&pid) {
            return Err(Errno::ESRCH);
        }
        // Not nix's Signal: real-time signals have no name there.
        // SAFETY: kill(2) takes two integers and has no memory to corrupt.
        Errno::result(unsafe { libc::kill(pid, number) }).map(drop)
    }

    /// Does something with a registered process that was not reaped yet.
    pub(crate) fn with(&self, pid: i32, work: impl FnOnce(rustix::process::Pid)) {
        let state = self.lock();
        if let Some(known) = rustix::process::Pid::from_raw(pid).filter(|_| state.waiting.contains_key(&pid))
        {
            work(known);
        }
    }

    /// Kills one of our children that nobody registered (a launcher that hangs).
    pub(crate) fn kill_unregistered(&self, pid: i32) {
        let state = self.lock();
        if !state.early.contains_key(&pid) {
            let _ = kill(Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

impl Hold {
    /// Asks for the exit of `pid`, which may lie in the past.
    pub(crate) fn register(&self, pid: i32) -> oneshot::Receiver<Exit> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.0.lock();
        match state.early.remove(&pid) {
            Some(exit) => drop(sender.send(exit)),
            None => drop(state.waiting.insert(pid, sender)),
        }
        receiver
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.launches -= 1;
        if state.launches == 0 {
            state.early.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_before_registration_is_kept_while_a_launch_runs() {
        let reaper = Arc::new(Reaper::default());
        let hold = reaper.hold();
        let exit = Exit { code: 3, at: SystemTime::UNIX_EPOCH };
        reaper.lock().early.insert(77, exit);
        assert_eq!(hold.register(77).try_recv(), Ok(exit));
        reaper.lock().early.insert(78, exit);
        drop(hold);
        assert!(reaper.hold().register(78).try_recv().is_err());
    }

    #[test]
    fn signals_reach_registered_pids_only() {
        let reaper = Reaper::default();
        assert_eq!(reaper.signal(1, 0), Err(Errno::ESRCH));
    }
}
