//! QEMU: one process for the machine, one vhost-device-vsock for its channel.

pub mod args;
mod console;
mod process;
mod qmp;
mod tsc;

use std::{
    ffi::OsString,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use proto::dial;
use tokio::{
    net::UnixStream,
    process::Child,
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tonic::transport::Channel;

pub(super) use self::process::spawn;
pub(crate) use self::{args::VHOST_SOCKET, qmp::QMP_SOCKET};
use self::{
    console::Console,
    process::{Shared, ending, record},
};
use super::{Vm, Vmm};
use crate::{
    Accelerator, Error, VmSpec,
    spec::{CONSOLE_LOG, VSOCK_SOCKET},
};

/// Time vhost-device-vsock may take to listen.
const VSOCK_START: Duration = Duration::from_secs(5);
/// Time the pipes of a dead child may take to run dry (a grandchild could hold them).
const DRAIN: Duration = Duration::from_millis(200);
/// Time given to a guest whose driver cannot be seen.
const BLIND: Duration = Duration::from_secs(2);
/// Context id of every guest: each has a vhost-device-vsock of its own.
const GUEST_CID: &str = "3";

/// Makes VMs with QEMU.
#[derive(Debug, Default)]
pub struct Qemu;

#[async_trait]
impl Vmm for Qemu {
    async fn boot(&self, spec: &VmSpec) -> Result<Box<dyn Vm>, Error> {
        Ok(Box::new(boot(spec).await?))
    }
}

/// A VM of QEMU.
#[derive(Debug)]
struct QemuVm {
    pid: u32,
    vsock: PathBuf,
    qmp: PathBuf,
    console: Shared,
    messages: Shared,
    kill: Arc<Notify>,
    ended: watch::Receiver<Option<String>>,
}

async fn boot(spec: &VmSpec) -> Result<QemuVm, Error> {
    let console_path = spec.state_dir.join(CONSOLE_LOG);
    let console = Console::create(&console_path).map_err(Error::file("create", &console_path))?;
    let console = Arc::new(Mutex::new(console));
    let messages = Arc::new(Mutex::new(Console::memory()));
    for socket in [args::VHOST_SOCKET, VSOCK_SOCKET, QMP_SOCKET] {
        let path = spec.run_dir.join(socket);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::file("remove", &path)(error));
            }
            _ => {}
        }
    }

    let vsock_args: Vec<OsString> =
        ["--guest-cid", GUEST_CID, "--socket", args::VHOST_SOCKET, "--uds-path", VSOCK_SOCKET]
            .map(OsString::from)
            .into();
    let mut vsock = spawn(&spec.vhost_device_vsock, &vsock_args, &spec.run_dir)?;
    record(vsock.stdout.take(), &messages);
    record(vsock.stderr.take(), &messages);
    let rate = async {
        match spec.accelerator {
            Accelerator::Tcg => tsc::khz().await,
            Accelerator::Kvm => None,
        }
    };
    let (listens, tsc_khz) = tokio::join!(listening(spec, &mut vsock, &messages), rate);
    listens?;

    let mut qemu = spawn(&spec.qemu, &args::arguments(spec, tsc_khz), &spec.run_dir)?;
    let pid = qemu.id().unwrap_or_default();
    let output = [record(qemu.stdout.take(), &console), record(qemu.stderr.take(), &messages)];
    let kill = Arc::new(Notify::new());
    let (sender, ended) = watch::channel(None);
    let killed = Arc::clone(&kill);
    tokio::spawn(async move {
        let how = guard(qemu, vsock, &killed).await;
        for pipe in output {
            // The console's last words belong to the reason.
            let _ = timeout(DRAIN, pipe).await;
        }
        sender.send_replace(Some(how));
    });
    let [vsock, qmp] = [VSOCK_SOCKET, QMP_SOCKET].map(|name| spec.run_dir.join(name));
    Ok(QemuVm { pid, vsock, qmp, console, messages, kill, ended })
}

/// Waits until vhost-device-vsock listens for QEMU.
async fn listening(spec: &VmSpec, vsock: &mut Child, messages: &Shared) -> Result<(), Error> {
    let path = spec.run_dir.join(args::VHOST_SOCKET);
    let deadline = Instant::now() + VSOCK_START;
    let words = || messages.lock().unwrap_or_else(PoisonError::into_inner).tail(5);
    while !path.exists() {
        if let Ok(Some(status)) = vsock.try_wait() {
            return Err(Error::Lost(format!("vhost-device-vsock: {status}: {}", words())));
        }
        if Instant::now() >= deadline {
            let tail = format!(": {}", words());
            return Err(Error::Timeout { stage: "socket of vhost-device-vsock", after: VSOCK_START, tail });
        }
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Holds the children until one ends or they shall be killed; then ends and reaps both. Neither can go on without the other.
async fn guard(mut qemu: Child, mut vsock: Child, kill: &Notify) -> String {
    let (how, expected) = tokio::select! {
        status = qemu.wait() => (ending("QEMU", &status), true),
        status = vsock.wait() => (ending("vhost-device-vsock", &status), false),
        () = kill.notified() => (String::from("killed"), false),
    };
    for child in [&mut qemu, &mut vsock] {
        if let Err(error) = child.kill().await {
            tracing::debug!(%error, "child was gone already");
        }
    }
    tracing::info!(expected, "VM ended: {how}");
    how
}

impl Drop for QemuVm {
    fn drop(&mut self) {
        self.kill.notify_one();
    }
}

#[async_trait]
impl Vm for QemuVm {
    fn pid(&self) -> u32 {
        self.pid
    }

    async fn reachable(&self) {
        if let Err(error) = qmp::vsock_started(&self.qmp).await {
            // A later QEMU may not know the question: a guess is better than no boot.
            tracing::warn!(%error, "QEMU does not tell whether the guest's driver runs");
            sleep(BLIND).await;
        }
    }

    async fn dial(&self, port: u32) -> io::Result<UnixStream> {
        dial::connect(&self.vsock, port).await
    }

    fn channel(&self, port: u32) -> Channel {
        dial::guest_channel(self.vsock.clone(), port)
    }

    async fn wait(&self) -> String {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(how) => how.clone().unwrap_or_default(),
            Err(_) => String::from("its guard is gone"),
        }
    }

    fn kill(&self) {
        self.kill.notify_one();
    }

    fn tail(&self, lines: usize) -> String {
        let words = |shared: &Shared| shared.lock().unwrap_or_else(PoisonError::into_inner).tail(lines);
        let (messages, console) = (words(&self.messages), words(&self.console));
        [messages, console].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
    }
}
