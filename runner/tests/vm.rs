//! Real VMs. They need the kernel (`make kernel`), QEMU and vhost-device-vsock: run with `--ignored`.
//!
//! `ARCA_TEST_KERNEL`, `ARCA_TEST_INITRAMFS` and `ARCA_TEST_VSOCK` name the files where they are not at their usual places.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use proto::runner::{GetStatusRequest, ShutdownRequest, Stage, WaitStageRequest};
use runner::{Accelerator, Handle, VmSpec};
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

const PATIENCE: Duration = Duration::from_secs(90);

fn file(variable: &str, usual: &str) -> PathBuf {
    let path = env::var_os(variable).map_or_else(|| PathBuf::from(usual), PathBuf::from);
    assert!(path.is_file() || !usual.contains('/'), "{} lacks: set {variable}", path.display());
    path
}

/// The example `runner`, which cargo builds beside this test.
fn executable() -> PathBuf {
    let test = env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().join("examples/runner")
}

fn spec(dir: &Path, id: &str) -> VmSpec {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    VmSpec {
        vm_id: id.into(),
        run_dir: dir.join("run"),
        state_dir: dir.join("state"),
        kernel: file("ARCA_TEST_KERNEL", &format!("{root}/build/kernel/bzImage")),
        initramfs: file("ARCA_TEST_INITRAMFS", &format!("{root}/build/initramfs.cpio")),
        qemu: env::var_os("ARCA_TEST_QEMU").map_or_else(|| "qemu-system-x86_64".into(), PathBuf::from),
        vhost_device_vsock: file("ARCA_TEST_VSOCK", "vhost-device-vsock"),
        accelerator: Accelerator::Tcg,
        cpus: 2,
        memory_mib: 512,
        disks: Vec::new(),
        boot_timeout_ms: 60_000,
    }
}

/// Whether a process is there and no zombie.
fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn gone(handle: &Handle, pids: &[u32]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while handle.is_alive() || pids.iter().any(|pid| lives(*pid)) {
        assert!(Instant::now() < deadline, "runner alive: {}, pids {pids:?}", handle.is_alive());
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
#[ignore = "boots a VM"]
async fn a_kernel_without_init_fails_with_the_consoles_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(dir.path(), "noinit");
    spec.initramfs = dir.path().join("empty");
    fs::write(&spec.initramfs, b"").unwrap();
    let handle = runner::launch(&executable(), &spec).await.unwrap();
    let ready = WaitStageRequest { stage: Stage::Ready.into() };
    let refused = timeout(PATIENCE, handle.client().wait_stage(ready)).await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("Kernel panic"), "{}", refused.message());
    gone(&handle, &[]).await;
    assert!(!spec.runner_socket().exists() && !spec.vsock_socket().exists());
    assert_eq!(runner::read_exit(&spec.state_dir).unwrap(), None);
    assert!(runner::adopt(&spec.run_dir, &spec.vm_id).await.unwrap().is_none());
}

#[tokio::test]
#[ignore = "boots a VM"]
async fn nothing_is_left_of_a_killed_runner_nor_of_one_shut_down_early() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(dir.path(), "killed");
    for kill in [true, false] {
        runner::launch(&executable(), &spec).await.unwrap();
        assert!(runner::adopt(&spec.run_dir, "other").await.unwrap().is_none());
        let handle = runner::adopt(&spec.run_dir, &spec.vm_id).await.unwrap().unwrap();
        let booting = WaitStageRequest { stage: Stage::Booting.into() };
        let status =
            timeout(PATIENCE, handle.client().wait_stage(booting)).await.unwrap().unwrap().into_inner();
        assert!(runner::launch(&executable(), &spec).await.is_err(), "one runner a VM");
        assert!(lives(status.hypervisor_pid));
        if kill {
            handle.kill().await;
        } else {
            timeout(PATIENCE, handle.client().shutdown(ShutdownRequest { grace_ms: 5000 }))
                .await
                .unwrap()
                .unwrap();
        }
        gone(&handle, &[status.hypervisor_pid, status.runner_pid]).await;
        assert!(handle.client().get_status(GetStatusRequest {}).await.is_err());
    }
}
