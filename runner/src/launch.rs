//! The daemon's side: starting a runner, or finding one that lives.

use std::{
    fs::{self, OpenOptions},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use proto::{
    dial, ports,
    runner::{GetStatusRequest, runner_client::RunnerClient},
    sandbox::sandbox_client::SandboxClient,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};
use tonic::transport::Channel;

use crate::{
    Error, VmSpec, lock, silence,
    spec::{RUNNER_LOG, RUNNER_SOCKET, SPEC, VSOCK_SOCKET},
};

/// Time from spawning a runner to its first answer.
const LAUNCH: Duration = Duration::from_secs(15);
/// Time one `GetStatus` may take.
const STATUS: Duration = Duration::from_secs(2);
/// How often it is looked whether a watched runner still lives.
const ALIVE: Duration = Duration::from_secs(2);
/// Pause between two tries to reach a starting runner.
const RETRY: Duration = Duration::from_millis(2);

/// In a runner's environment: the pid of the daemon that started it.
const LAUNCHER: &str = "ARCA_LAUNCHER";

/// Whether the daemon that started this runner has ended. Asked once the lock is held: a later daemon finds the lock, or
/// this runner finds that it is an orphan; there is no moment in which a runner could be missed.
pub(crate) fn is_orphan() -> bool {
    let launcher = std::env::var(LAUNCHER).ok().and_then(|pid| pid.parse().ok());
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    launcher.is_some_and(|launcher: i32| parent != Some(launcher))
}

/// Identity of the VM whose runner lives in `run_dir`, if one does.
///
/// # Errors
/// When that cannot be told now.
pub fn resident(run_dir: &Path) -> io::Result<Option<String>> {
    Ok(lock::owner(run_dir)?.map(|owner| owner.vm_id))
}

/// A living runner. Cheap to clone; dropping it changes nothing for the runner.
#[derive(Debug, Clone)]
pub struct Handle {
    fate: Arc<Fate>,
    run_dir: PathBuf,
    vm_id: String,
    runner: Channel,
    guest: Channel,
}

/// What all clones of a handle know.
#[derive(Debug, Default)]
struct Fate {
    /// Why it was killed.
    killed: OnceLock<String>,
    /// Somebody watches it.
    watched: AtomicBool,
    /// The runner as it was seen: it can be killed when its lock cannot be read.
    seen: OnceLock<OwnedFd>,
}

/// Starts a runner for `spec` with the executable `arca` and waits until it answers. It is detached: it lives on when the
/// caller ends. The exit record of an earlier run in the same state folder is dropped.
///
/// # Errors
/// When files cannot be written, the executable cannot be run, or the runner ends or does not answer (with its log's tail).
pub async fn launch(arca: &Path, spec: &VmSpec) -> Result<Handle, Error> {
    spec.check()?;
    for folder in [&spec.run_dir, &spec.state_dir] {
        fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
    }
    if lock::owner(&spec.run_dir).map_err(Error::file("look into", &spec.run_dir))?.is_some() {
        return Err(Error::Busy { vm_id: spec.vm_id.clone(), run_dir: spec.run_dir.clone() });
    }
    let spec_path = spec.state_dir.join(SPEC);
    spec.write(&spec_path)?;
    let log_path = spec.state_dir.join(RUNNER_LOG);
    let log = || OpenOptions::new().create(true).append(true).open(&log_path);
    let out = log().map_err(Error::file("open", &log_path))?;
    let err = log().map_err(Error::file("open", &log_path))?;
    let mut child = Command::new(arca)
        // For lists of processes: the path may be that of the daemon's image.
        .arg0("arca")
        .arg("runner")
        .arg("--spec")
        .arg(&spec_path)
        .env(LAUNCHER, std::process::id().to_string())
        .current_dir(&spec.run_dir)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .map_err(|source| Error::Spawn { program: arca.to_owned(), source })?;

    let handle = Handle::new(&spec.run_dir, &spec.vm_id);
    let deadline = Instant::now() + LAUNCH;
    let failure = loop {
        if handle.answers().await {
            handle.remember();
            // The child is reaped when it ends; nothing else ties it to this process.
            tokio::spawn(async move { child.wait().await });
            return Ok(handle);
        }
        match child.try_wait() {
            Ok(Some(status)) => break Error::Lost(format!("runner: {status}{}", tail(&log_path))),
            Ok(None) if Instant::now() < deadline => sleep(RETRY).await,
            _ => {
                break Error::Timeout { stage: "answer of the runner", after: LAUNCH, tail: tail(&log_path) };
            }
        }
    };
    if let Err(error) = child.kill().await {
        tracing::debug!(%error, "runner was gone already");
    }
    Err(failure)
}

/// The runner that lives in `run_dir` for `vm_id`. `None`: there is none (lock free), or it is another VM's.
///
/// # Errors
/// When one lives but does not answer in time: kill it by [`Handle::kill`] of [`Handle::unverified`], or wait.
pub async fn adopt(run_dir: &Path, vm_id: &str) -> Result<Option<Handle>, Error> {
    let handle = Handle::new(run_dir, vm_id);
    let deadline = Instant::now() + STATUS;
    loop {
        match lock::owner(run_dir) {
            Ok(None) => return Ok(None),
            Ok(Some(owner)) if owner.vm_id != vm_id => return Ok(None),
            Ok(Some(_)) if handle.answers().await => {
                handle.remember();
                return Ok(Some(handle));
            }
            // It may just be starting, or just ending.
            _ if Instant::now() < deadline => sleep(RETRY).await,
            Ok(Some(owner)) => {
                let tail = format!(" (pid {})", owner.pid);
                return Err(Error::Timeout { stage: "answer of the runner", after: STATUS, tail });
            }
            Err(error) => return Err(Error::file("look into", run_dir)(error)),
        }
    }
}

impl Handle {
    fn new(run_dir: &Path, vm_id: &str) -> Self {
        Self {
            fate: Arc::default(),
            run_dir: run_dir.to_owned(),
            vm_id: vm_id.to_owned(),
            runner: dial::unix_channel(run_dir.join(RUNNER_SOCKET)),
            guest: dial::guest_channel(run_dir.join(VSOCK_SOCKET), ports::GUEST_CONTROL),
        }
    }

    /// A handle to a runner that was not asked who it is: for [`Handle::kill`] after [`adopt`] failed.
    #[must_use]
    pub fn unverified(run_dir: &Path, vm_id: &str) -> Self {
        Self::new(run_dir, vm_id)
    }

    /// The runner's service.
    #[must_use]
    pub fn client(&self) -> RunnerClient<Channel> {
        RunnerClient::new(self.runner.clone())
    }

    /// The guest's Sandbox service, reached without the runner's help.
    #[must_use]
    pub fn sandbox(&self) -> SandboxClient<Channel> {
        SandboxClient::new(self.guest.clone())
    }

    /// The channel to the guest's control port, for its other services.
    #[must_use]
    pub fn guest(&self) -> Channel {
        self.guest.clone()
    }

    /// The VM's identity.
    #[must_use]
    pub fn vm_id(&self) -> &str {
        &self.vm_id
    }

    /// The folder of the VM's sockets.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// Whether the runner still holds its lock, or that cannot be told.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        lock::owner(&self.run_dir).map_or(true, |owner| owner.is_some_and(|owner| owner.vm_id == self.vm_id))
    }

    /// Watches the runner until it ends; kills it when it does not answer any more. Only the first call for a runner watches, the
    /// others end at once.
    pub async fn watch(&self) {
        if self.fate.watched.swap(true, Ordering::AcqRel) {
            return;
        }
        let ended = async {
            let mut watched = None;
            loop {
                match lock::owner(&self.run_dir) {
                    // The next runner of this VM is not the one that is watched.
                    Ok(Some(owner)) if *watched.get_or_insert_with(|| owner.clone()) == owner => {
                        self.remember();
                    }
                    Ok(_) => return,
                    Err(error) => tracing::debug!(vm = self.vm_id, %error, "cannot look at a runner"),
                }
                sleep(ALIVE).await;
            }
        };
        tokio::select! {
            () = silence::until_silent(silence::LIMIT, || self.asked()) => {
                self.kill_because(&format!("its runner did not answer for {:?}", silence::LIMIT)).await;
            }
            () = ended => {}
        }
    }

    /// [`Handle::kill`], with the reason that [`Handle::killed`] then tells.
    pub async fn kill_because(&self, why: &str) {
        if self.is_alive() {
            tracing::warn!(vm = self.vm_id, "killed: {why}");
            // The first reason is the true one.
            let _ = self.fate.killed.set(why.to_owned());
        }
        self.kill().await;
    }

    /// Why the runner was killed, if it was by [`Handle::kill_because`] of this handle or a clone.
    #[must_use]
    pub fn killed(&self) -> Option<&str> {
        self.fate.killed.get().map(String::as_str)
    }

    /// Removes the sockets of a runner that was killed. Nothing is touched while one lives.
    pub fn sweep(&self) {
        if !matches!(lock::owner(&self.run_dir), Ok(None)) {
            return;
        }
        for name in [RUNNER_SOCKET, VSOCK_SOCKET] {
            // An orderly end has removed it.
            let _ = fs::remove_file(self.run_dir.join(name));
        }
    }

    /// Last resort: kills the runner, and with it all of its VM, if it still holds its lock. No exit record is written.
    pub async fn kill(&self) {
        // The runner leads its own session and group; its children carry a parent-death signal.
        let results = match lock::owner(&self.run_dir) {
            Ok(Some(owner)) if owner.vm_id == self.vm_id => {
                let Some(pid) = pid(&owner) else { return };
                [
                    rustix::process::kill_process_group(pid, Signal::KILL),
                    rustix::process::kill_process(pid, Signal::KILL),
                ]
            }
            Ok(_) => return,
            // No descriptor is left, or its lock is damaged: whoever was seen can still be killed, and nobody else.
            Err(error) => match self.fate.seen.get() {
                Some(seen) => [Ok(()), pidfd_send_signal(seen, Signal::KILL)],
                None => return tracing::error!(vm = self.vm_id, %error, "a runner cannot be killed"),
            },
        };
        for error in results.into_iter().filter_map(Result::err) {
            tracing::debug!(vm = self.vm_id, %error, "kill of a runner");
        }
        let deadline = Instant::now() + STATUS;
        while self.is_alive() && Instant::now() < deadline {
            sleep(RETRY).await;
        }
    }

    /// Keeps hold of the process that has the lock now.
    fn remember(&self) {
        let owner = || lock::owner(&self.run_dir).ok().flatten().filter(|owner| owner.vm_id == self.vm_id);
        if self.fate.seen.get().is_none()
            && let Some(before) = owner()
            && let Some(pid) = pid(&before)
            && let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
            // It held the lock before and after: the number was its own.
            && owner() == Some(before)
        {
            let _ = self.fate.seen.set(process);
        }
    }

    async fn answers(&self) -> bool {
        timeout(STATUS, self.asked()).await.unwrap_or(false)
    }

    async fn asked(&self) -> bool {
        let answer = self.client().get_status(GetStatusRequest {}).await;
        answer.is_ok_and(|answer| answer.get_ref().vm_id == self.vm_id)
    }
}

fn pid(owner: &lock::Owner) -> Option<Pid> {
    i32::try_from(owner.pid).ok().and_then(Pid::from_raw)
}

/// The last lines of a log, for an error message.
fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    match &lines[lines.len().saturating_sub(5)..] {
        [] => String::new(),
        last => format!("; its log ends with:\n{}", last.join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::LOCK;

    /// SPEC V6
    #[tokio::test]
    async fn a_runner_whose_lock_cannot_be_read_is_killed_if_it_was_seen_before() {
        let dir = tempfile::tempdir().unwrap();
        // Stands for a runner: one process that holds the lock.
        let words = "exec 9>runner.lock; flock 9 && echo locked && exec sleep 1000";
        let mut child = std::process::Command::new("sh")
            .args(["-c", words])
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 7];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        let text = format!("{{\"pid\":{},\"vm_id\":\"abc\"}}", child.id());
        fs::write(dir.path().join(LOCK), text).unwrap();
        let handle = Handle::new(dir.path(), "abc");
        handle.remember();
        fs::write(dir.path().join(LOCK), "{").unwrap();
        assert!(handle.is_alive());
        // One that never saw it touches nothing.
        Handle::unverified(dir.path(), "abc").kill().await;
        assert!(child.try_wait().unwrap().is_none());
        handle.kill().await;
        let ended = timeout(STATUS, async {
            while handle.is_alive() {
                sleep(RETRY).await;
            }
        })
        .await;
        let _ = child.kill();
        child.wait().unwrap();
        ended.unwrap();
    }
}
