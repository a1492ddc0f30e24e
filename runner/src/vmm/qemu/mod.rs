//! QEMU: one process for the machine; its vsock device is served by a thread of this one.

pub(in crate::vmm) mod args;
mod console;
mod credentials;
mod files;
mod limits;
mod monitor;
mod process;
mod tsc;

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use proto::dial;
use tokio::{
    process::Child,
    sync::{Notify, watch},
    time::timeout,
};
use tonic::transport::Channel;
use vsock_device::Device;

use self::{
    console::Console,
    files::Files,
    process::{Shared, ending, record},
};
pub(super) use self::{
    credentials::Credentials,
    files::{Inherited, readable},
    process::{Launch, spawn},
};
use super::{Vm, Vmm};
use crate::{Accelerator, Error, VmSpec, spec::CONSOLE_LOG};

/// Time the pipes of a dead child may take to run dry (a grandchild could hold them).
const DRAIN: Duration = Duration::from_millis(200);
/// Time a killed QEMU's device has to close its clients.
const CLOSED: Duration = Duration::from_secs(2);
/// Context id of every guest: each has a vsock device of its own.
const GUEST_CID: u64 = 3;

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
    console: Shared,
    messages: Shared,
    kill: Arc<Notify>,
    ended: watch::Receiver<Option<String>>,
    /// The host's disk has no room for what the guest writes.
    full: Arc<AtomicBool>,
}

async fn boot(spec: &VmSpec) -> Result<QemuVm, Error> {
    let console_path = spec.state_dir.join(CONSOLE_LOG);
    let console = Console::create(&console_path)?;
    let console = Arc::new(Mutex::new(console));
    let messages = Arc::new(Mutex::new(Console::default()));
    let vsock = spec.vsock_socket();
    // Nothing else can ever connect to the device: the pair has no name.
    let (ours, theirs) = UnixStream::pair().map_err(Error::file("create", Path::new("socket pair")))?;
    let device = Device::attach(GUEST_CID, &vsock, ours)?;
    let (monitor, monitored) = UnixStream::pair().map_err(Error::file("create", Path::new("socket pair")))?;
    let full = monitor::watch(monitor).map_err(Error::file("watch", Path::new("QEMU's monitor")))?;
    let credentials = Credentials::of_vm(&spec.vm_id, spec.accelerator);
    let (files, inherited) = Files::open(spec, theirs, monitored, credentials.is_foreign())?;
    let tsc_khz = match spec.accelerator {
        Accelerator::Tcg => tsc::khz().await,
        Accelerator::Kvm => None,
    };
    let mut qemu = spawn(Launch {
        program: &spec.qemu,
        args: &args::arguments(spec, &files, tsc_khz),
        credentials: &credentials,
        files: inherited,
        largest: files.largest.max(spec.memory_mib << 20),
    })?;
    let pid = qemu.id().unwrap_or_default();
    let output = [record(qemu.stdout.take(), &console), record(qemu.stderr.take(), &messages)];
    let kill = Arc::new(Notify::new());
    let (sender, ended) = watch::channel(None);
    let killed = Arc::clone(&kill);
    tokio::spawn(async move {
        let how = guard(qemu, device, &killed).await;
        for pipe in output {
            // The console's last words belong to the reason.
            let _ = timeout(DRAIN, pipe).await;
        }
        sender.send_replace(Some(how));
    });
    Ok(QemuVm { pid, vsock, console, messages, kill, ended, full })
}

/// Holds the VM until one of its halves ends or it shall be killed; then ends and reaps both. Neither can go on without the
/// other.
async fn guard(mut qemu: Child, device: Device, kill: &Notify) -> String {
    let how = tokio::select! {
        // QEMU's end closes the device's connection too: its own status says more.
        biased;
        status = qemu.wait() => ending("QEMU", &status),
        end = device.ended() => match timeout(DRAIN, qemu.wait()).await {
            Ok(status) => ending("QEMU", &status),
            Err(_) => format!("its vsock device ended: {end:?}"),
        },
        () = kill.notified() => String::from("killed"),
    };
    if let Err(error) = qemu.start_kill() {
        tracing::debug!(%error, "QEMU was gone already");
    }
    // Not by QEMU's end only: one in a call of a file system that hangs is not gone for long.
    device.request_stop();
    let _ = qemu.wait().await;
    if timeout(CLOSED, device.ended()).await.is_err() {
        tracing::error!("the vsock device does not end: QEMU holds it up");
    }
    // Its thread is over, or is not waited for: it must not hold up this one.
    device.abandon();
    tracing::info!("VM ended: {how}");
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

    fn waits_for_room(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    fn condition(&self) -> String {
        if self.waits_for_room() {
            return ": the host's disk is full, free some space on it".into();
        }
        match process::state(self.pid) {
            Some('T' | 't') => ": QEMU is stopped".into(),
            Some('D') => ": QEMU waits for the host's disk".into(),
            _ => String::new(),
        }
    }

    fn tail(&self, lines: usize) -> String {
        let words = |shared: &Shared| shared.lock().unwrap_or_else(PoisonError::into_inner).tail(lines);
        let (messages, console) = (words(&self.messages), words(&self.console));
        [messages, console].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
    }
}
