//! PID 1's side of a launch.
//!
//! A thread of its own sets the PID namespace of its next child (unshare(2) and setns(2) touch only the calling thread's
//! children there) and starts the launcher with posix_spawn(3): the child is at once PID 1, or a member, of the container's
//! PID namespace and still a direct child of ours, so that our one reaper gets its exit.

use std::{
    io::{self, Write},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns, unshare};
use tokio::sync::oneshot;

use super::{
    ARGV0,
    config::{Config, FdRole},
    failure::Failure,
    word,
};
use crate::{
    process::reaper::{Exit, Reaper},
    sys::fdpass,
};

/// A launcher works for some milliseconds; a slow disk may make it seconds.
const DEADLINE: Duration = Duration::from_secs(60);
/// Longest failure report.
const MAX_REPORT: usize = 64 * 1024;

/// What to launch.
pub(crate) struct Launch {
    /// `config.fds` is filled from `fds`.
    pub(crate) config: Config,
    /// Passed descriptors.
    pub(crate) fds: Vec<(FdRole, Arc<OwnedFd>)>,
    /// Join the PID namespace of this pidfd instead of making one.
    pub(crate) pid_namespace: Option<Arc<OwnedFd>>,
}

/// A process that runs.
pub(crate) struct Launched {
    /// As PID 1 sees it.
    pub(crate) pid: i32,
    /// Of its terminal.
    pub(crate) master: Option<OwnedFd>,
    /// Its end.
    pub(crate) exit: oneshot::Receiver<Exit>,
}

/// Launches; blocks until the command runs or has failed.
pub(crate) fn launch(reaper: &Arc<Reaper>, launch: Launch) -> Result<Launched, Failure> {
    let worker = std::thread::Builder::new().name("launch".into());
    let reaper = Arc::clone(reaper);
    let handle =
        worker.spawn(move || on_thread(&reaper, launch)).map_err(|e| Failure::setup("start thread", e))?;
    handle.join().map_err(|_| Failure::plain("launch thread failed"))?
}

fn on_thread(reaper: &Arc<Reaper>, mut launch: Launch) -> Result<Launched, Failure> {
    let failed = |step: &'static str| move |e: io::Error| Failure::setup(step, e);
    match &launch.pid_namespace {
        Some(pidfd) => setns(&**pidfd, CloneFlags::CLONE_NEWPID),
        None => unshare(CloneFlags::CLONE_NEWPID),
    }
    .map_err(|e| Failure::setup("PID namespace", e))?;
    let (ours, theirs) = UnixStream::pair().map_err(failed("socket pair"))?;
    let hold = reaper.hold();
    let mut command = Command::new("/proc/self/exe");
    command.arg0(ARGV0).env_clear().stdin(Stdio::from(OwnedFd::from(theirs)));
    let child = command.spawn().map_err(failed("start launcher"))?;
    let pid = child.id().cast_signed();
    // Its end of the socket must be the launcher's alone: its end of file is the news that the command runs.
    drop(command);

    launch.config.fds = launch.fds.iter().map(|(role, _)| *role).collect();
    let raw: Vec<RawFd> = launch.fds.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
    let result = send(&ours, &launch.config, &raw)
        .map_err(failed("send launch configuration"))
        .and_then(|()| receive(&ours));
    match result {
        Ok(master) => Ok(Launched { pid, master, exit: hold.register(pid) }),
        Err(failure) => {
            reaper.kill_unregistered(pid);
            Err(failure)
        }
    }
}

fn send(mut socket: &UnixStream, config: &Config, fds: &[RawFd]) -> io::Result<()> {
    let body = serde_json::to_vec(config)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    socket.set_write_timeout(Some(DEADLINE))?;
    fdpass::send(socket, &length.to_le_bytes(), fds)?;
    socket.write_all(&body)
}

/// Waits for the launcher's words; answers the terminal's master.
fn receive(socket: &UnixStream) -> Result<Option<OwnedFd>, Failure> {
    let deadline = Instant::now() + DEADLINE;
    let mut master = None;
    let mut ready = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(left)).map_err(|e| Failure::setup("launch socket", e))?;
        // One byte: the words are not framed.
        let mut first = [0];
        let (n, mut fds) = match fdpass::receive(socket, &mut first) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let stage = if ready { "the command's execution" } else { "the container's set-up" };
                return Err(Failure::plain(format_args!("launch timed out after {DEADLINE:?} in {stage}")));
            }
            // A child ended: with a timeout set, its signal interrupts the call, SA_RESTART or not (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // A launcher that died with unread words resets the socket.
            Err(_) => (0, Vec::new()),
            Ok(received) => received,
        };
        match (n, first[0]) {
            (0, _) if ready => return Ok(master),
            (0, _) => return Err(Failure::plain("the launcher was killed during the container's set-up")),
            (_, word::TERMINAL) => master = fds.pop(),
            (_, word::READY) => ready = true,
            _ => return Err(report(socket)),
        }
    }
}

fn report(socket: &UnixStream) -> Failure {
    let mut body = Vec::new();
    let read = io::Read::read_to_end(&mut io::Read::take(socket, MAX_REPORT as u64), &mut body);
    match read.map_err(serde_json::Error::io).and_then(|_| serde_json::from_slice(&body)) {
        Ok(failure) => failure,
        Err(error) => Failure::plain(format_args!("launcher failed without a report: {error}")),
    }
}
