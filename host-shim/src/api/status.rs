//! `GET /_arca/status`: not Docker's; for `arca daemon status`.

use std::{path::Path, sync::Arc, time::Duration};

use axum::{Router, extract::State, response::Response, routing::get};
use futures::future::join_all;
use proto::runner::GetStatusRequest;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::respond;
use crate::engine::{Engine, VmInfo};

/// Time a runner gets to answer.
const RUNNER: Duration = Duration::from_secs(2);

/// What the daemon tells of itself at `/_arca/status`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// kvm, tcg.
    pub accelerator: String,
    /// VMs of running containers.
    pub vms: Vec<VmStatus>,
    /// Containers that are not served, since their records cannot be read.
    #[serde(default)]
    pub unserved: Vec<UnservedStatus>,
}

/// A container whose record cannot be read.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct UnservedStatus {
    /// Container id.
    pub id: String,
    /// What is wrong with its record.
    pub why: String,
    /// Where its files are.
    pub files: String,
}

/// One VM.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct VmStatus {
    /// Container id.
    pub id: String,
    /// Container name.
    pub name: String,
    /// Container state.
    pub state: String,
    /// Process of the hypervisor; 0 where it is not known.
    pub pid: u32,
    /// Host memory it holds, in KiB.
    pub memory_kib: u64,
}

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new().route("/_arca/status", get(status))
}

async fn status(State(engine): State<Arc<Engine>>) -> Response {
    let vms = join_all(engine.vms().into_iter().map(vm)).await;
    let unserved = engine.unserved.iter().map(|container| UnservedStatus {
        id: container.id.clone(),
        why: container.why.to_string(),
        files: engine.home.container(&container.id).display().to_string(),
    });
    let accelerator = engine.machine.accelerator.as_str().to_owned();
    respond::ok(&Status { accelerator, vms, unserved: unserved.collect() })
}

async fn vm(vm: VmInfo) -> VmStatus {
    let runner = runner::Handle::unverified(&vm.run_dir, &vm.id);
    let answer = timeout(RUNNER, runner.client().get_status(GetStatusRequest {})).await;
    let pid = answer.ok().and_then(Result::ok).map_or(0, |answer| answer.into_inner().hypervisor_pid);
    VmStatus {
        id: vm.id,
        name: vm.name,
        state: vm.status.as_str().to_owned(),
        pid,
        memory_kib: resident(&Path::new("/proc").join(pid.to_string())).unwrap_or(0),
    }
}

/// Resident memory of a process in KiB, the guest's pages included.
fn resident(process: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(process.join("status")).ok()?;
    text.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory() {
        assert!(resident(Path::new("/proc/self")).unwrap() > 100);
        assert_eq!(resident(Path::new("/proc/0")), None);
    }
}
