//! VMs of containers: building a generic one, waiting until it answers, ending it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use proto::{
    detail::{self, words},
    runner::{ShutdownRequest, Stage, WaitStageRequest},
};
use runner::{DISK_SLOTS, Disk, Handle, VmSpec};
use tonic::{Code, Response, Status};

use super::{Engine, create::validate::highest_cpu, record::Record};
use crate::error::{Error, Kind, Result};

/// Serial of the writable disk.
pub(crate) const WRITABLE: &str = "writable";
/// What the runner needs around a boot.
const MARGIN: Duration = Duration::from_secs(10);
/// Any call to a guest that only looks or switches something.
pub(crate) const QUICK: Duration = Duration::from_secs(20);
/// Orderly end of a VM.
const GRACE: Duration = Duration::from_secs(10);
/// Memory of a guest beside its container's limit: kernel, arca-init, page tables.
const OVERHEAD_MIB: u64 = 128;

/// The writable disk in a container's folder.
pub(crate) fn disk_path(dir: &Path) -> PathBuf {
    dir.join("disk.img")
}

/// Serial of the n-th layer disk, lowest first.
pub(crate) fn layer_serial(n: usize) -> String {
    format!("layer{n}")
}

/// Waits for a call with a deadline; the error names the stage.
///
/// # Errors
/// As [`status_error`]; 500 on the deadline.
pub(crate) async fn call<T>(
    stage: &str,
    deadline: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) if is_lost(&status) => {
            Err(Error::system(format!("{stage}: the VM went away ({})", words(status.message())))
                .because(status))
        }
        Ok(Err(status)) => Err(status_error(&status)),
        Err(_) => Err(Error::system(format!("{stage}: no answer of the VM within {deadline:?}"))),
    }
}

/// Whether a status tells of the connection, not of the call: a status that the peer sent has no source.
fn is_lost(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// A guest's status as the API's error.
pub(crate) fn status_error(status: &Status) -> Error {
    let exit_code = detail::of(status).exit_code;
    if matches!(exit_code, 126 | 127) {
        // containerd puts the class it could not tell behind runc's words.
        return Error::invalid(format!("{}: unknown", words(status.message()))).because(status.clone());
    }
    let kind = match status.code() {
        Code::InvalidArgument => Kind::InvalidParameter,
        Code::NotFound => Kind::NotFound,
        Code::AlreadyExists | Code::FailedPrecondition => Kind::Conflict,
        Code::Unimplemented => Kind::NotImplemented,
        Code::PermissionDenied => Kind::Forbidden,
        _ => Kind::System,
    };
    Error::new(kind, words(status.message())).because(status.clone())
}

impl Engine {
    /// Boots a VM with the container's disks; waits its turn, then until the guest answers. `lowers` are the image's layer
    /// disks, lowest first; `state_dir` gets the VM's records.
    pub(crate) async fn boot(
        &self,
        record: &Record,
        lowers: &[PathBuf],
        state_dir: PathBuf,
    ) -> Result<Handle> {
        let spec = self.vm_spec(record, lowers, state_dir)?;
        let _turn = self.boots.acquire().await.map_err(|_| Error::system("the daemon is shutting down"))?;
        let handle = runner::launch(&self.machine.arca, &spec)
            .await
            .map_err(|error| Error::system(format!("start the VM: {error}")).because(error))?;
        watch(&handle);
        let mut client = handle.client();
        let ready = client.wait_stage(WaitStageRequest { stage: Stage::Ready.into() });
        match call("boot", self.config.boot_timeout + MARGIN, ready).await {
            Ok(status) => {
                tracing::debug!(id = record.short_id(), boot_ms = status.boot_ms, "VM is up");
                Ok(handle)
            }
            Err(error) => {
                handle.kill().await;
                handle.sweep();
                let cut = error
                    .source
                    .as_ref()
                    .and_then(|source| source.downcast_ref::<Status>())
                    .is_some_and(is_lost);
                let why = match handle.killed() {
                    Some(why) => why,
                    None if cut => "its runner ended (was it killed? see runner.log)",
                    None => &error.message,
                };
                Err(Error::system(format!("boot the VM: {why}")).because(error))
            }
        }
    }

    fn vm_spec(&self, record: &Record, lowers: &[PathBuf], state_dir: PathBuf) -> Result<VmSpec> {
        if lowers.len() >= DISK_SLOTS {
            return Err(Error::system(format!(
                "image has {} disks, a VM takes {}",
                lowers.len(),
                DISK_SLOTS - 1
            )));
        }
        let layers = lowers.iter().enumerate();
        let mut disks: Vec<Disk> = layers
            .map(|(n, path)| Disk { path: path.clone(), serial: layer_serial(n), readonly: true })
            .collect();
        let path = disk_path(&self.home.container(&record.id));
        disks.push(Disk { path, serial: WRITABLE.into(), readonly: false });
        let machine = &self.machine;
        let (cpus, memory_mib) = size(record);
        Ok(VmSpec {
            vm_id: record.id.clone(),
            run_dir: self.home.vm_run(&record.id),
            state_dir,
            kernel: machine.kernel.clone(),
            initramfs: machine.initramfs.clone(),
            qemu: machine.qemu.clone(),
            accelerator: machine.accelerator,
            cpus: machine.cpus.max(cpus),
            memory_mib: machine.memory_mib.max(memory_mib),
            disks,
            boot_timeout_ms: u64::try_from(self.config.boot_timeout.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

/// CPUs and memory in MiB that a container needs.
pub(crate) fn size(record: &Record) -> (u32, u64) {
    (cpus(record), memory_mib(record))
}

/// CPUs that `--cpus` and `--cpuset-cpus` need.
fn cpus(record: &Record) -> u32 {
    let host = &record.host;
    let quota = u32::try_from(host.nano_cpus.max(0).div_euclid(1_000_000_000)).unwrap_or(u32::MAX);
    let quota = quota.saturating_add(u32::from(host.nano_cpus % 1_000_000_000 > 0));
    let set = highest_cpu(&host.cpuset_cpus).flatten().map_or(0, |highest| highest.saturating_add(1));
    quota.max(u32::try_from(set).unwrap_or(u32::MAX)).clamp(1, 255)
}

/// Memory that the container's limit needs, in MiB.
fn memory_mib(record: &Record) -> u64 {
    u64::try_from(record.host.memory).unwrap_or(0).div_ceil(1 << 20) + OVERHEAD_MIB
}

/// Kills the runner once it does not answer any more: all that waits for it then ends. A guest that does not answer is its
/// runner's business.
pub(crate) fn watch(handle: &Handle) {
    let handle = handle.clone();
    tokio::spawn(async move { handle.watch().await });
}

/// Ends a VM: orderly, then by force.
pub(crate) async fn retire(handle: &Handle) {
    end(handle).await;
    handle.sweep();
}

async fn end(handle: &Handle) {
    if !handle.is_alive() {
        return;
    }
    let grace_ms = u32::try_from(GRACE.as_millis()).unwrap_or(u32::MAX);
    let mut client = handle.client();
    let shutdown = client.shutdown(ShutdownRequest { grace_ms });
    if let Err(error) = call("power off", GRACE + MARGIN, shutdown).await {
        // A runner that is gone already cannot answer.
        tracing::debug!(vm = handle.vm_id(), %error, "orderly end of a VM failed");
    }
    let deadline = tokio::time::Instant::now() + MARGIN;
    while handle.is_alive() {
        if tokio::time::Instant::now() >= deadline {
            tracing::warn!(vm = handle.vm_id(), "a runner did not end: killed");
            handle.kill().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::record::tests::record;

    #[test]
    fn machines_fit_the_limits() {
        let mut record = record("a", "web");
        assert_eq!((cpus(&record), memory_mib(&record)), (1, 128));
        record.host.nano_cpus = 1_500_000_000;
        record.host.memory = 64 << 20;
        assert_eq!((cpus(&record), memory_mib(&record)), (2, 192));
        record.host.cpuset_cpus = "0,3".into();
        assert_eq!(cpus(&record), 4);
    }

    #[test]
    fn a_command_that_cannot_run_is_the_users_fault() {
        let error = status_error(&detail::cannot_run(127, "exec: \"x\": executable file not found in $PATH"));
        assert_eq!(error.kind, Kind::InvalidParameter);
        assert_eq!(status_error(&Status::internal("boom")).kind, Kind::System);
    }
}
