//! Real VMs. They need the kernel (`make kernel`) and QEMU: `cargo test -p runner -- --ignored`, without
//! a target's name, so that cargo builds the example they run.
//!
//! `ARCA_TEST_KERNEL` and `ARCA_TEST_INITRAMFS` name the files where they are not at their usual places.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::print_stdout,
    reason = "test data, times for a reader"
)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is missing")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use proto::{
    runner::{
        AttachOpen, AttachRequest, ExitRecord, GetStatusRequest, LogConfig, ShutdownRequest, Stage,
        StartContainerRequest, WaitExitRequest, WaitStageRequest, attach_request::Kind,
    },
    sandbox::{PrepareRequest, ProcessSpec, Rootfs},
};
use runner::{Accelerator, Disk, Handle, VmSpec};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
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
        initramfs: file("ARCA_TEST_INITRAMFS", &format!("{root}/build/initramfs/initramfs.cpio")),
        qemu: env::var_os("ARCA_TEST_QEMU").map_or_else(|| "qemu-system-x86_64".into(), PathBuf::from),
        accelerator: Accelerator::Tcg,
        cpus: 2,
        memory_mib: 512,
        disks: Vec::new(),
        boot_timeout_ms: 30_000,
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

/// A VM whose only layer is the image named by `ARCA_TEST_ROOTFS` (EROFS, with busybox), over a tmpfs.
fn container_spec(dir: &Path, id: &str) -> VmSpec {
    let rootfs = file("ARCA_TEST_ROOTFS", "build/test-rootfs.erofs");
    VmSpec { disks: vec![Disk { path: rootfs, serial: "l0".into(), readonly: true }], ..spec(dir, id) }
}

fn start(spec: &VmSpec, args: &[&str]) -> StartContainerRequest {
    let rootfs = Rootfs { lower: vec!["l0".into()], ..Rootfs::default() };
    StartContainerRequest {
        container_id: spec.vm_id.clone(),
        prepare: Some(PrepareRequest {
            container_id: spec.vm_id.clone(),
            rootfs: Some(rootfs),
            hostname: "box".into(),
            ..PrepareRequest::default()
        }),
        process: Some(ProcessSpec {
            args: args.iter().map(ToString::to_string).collect(),
            cwd: "/".into(),
            stdin: true,
            stdout: true,
            stderr: true,
            ..ProcessSpec::default()
        }),
        log: Some(LogConfig { path: log(spec).to_str().unwrap().into(), ..LogConfig::default() }),
        stdin_once: true,
    }
}

fn log(spec: &VmSpec) -> PathBuf {
    spec.state_dir.join("c.log")
}

async fn boot(spec: &VmSpec) -> Handle {
    let begin = Instant::now();
    let handle = runner::launch(&executable(), spec).await.unwrap();
    let ready = WaitStageRequest { stage: Stage::Ready.into() };
    let status = timeout(PATIENCE, handle.client().wait_stage(ready)).await.unwrap();
    let words = || fs::read_to_string(spec.state_dir.join("runner.log")).unwrap_or_default();
    let status = status.unwrap_or_else(|error| panic!("{}: {}", error.message(), words())).into_inner();
    println!("ready after {:?}, boot {} ms", begin.elapsed(), status.boot_ms);
    handle
}

/// Attaches, sends `stdin` and its end; answers what comes back until the end of the stream.
async fn attach(handle: &Handle, stdin: Bytes) -> tokio::task::JoinHandle<Vec<u8>> {
    let message = |kind| AttachRequest { kind: Some(kind) };
    let open = message(Kind::Open(AttachOpen { stdin: true, stdout: true, stderr: true }));
    let pieces: Vec<_> =
        stdin.chunks(50_000).map(|piece| message(Kind::Stdin(piece.to_vec().into()))).collect();
    let requests = [open].into_iter().chain(pieces).chain([message(Kind::StdinEof(true))]);
    let mut answers = handle
        .client()
        .attach(futures::stream::iter(requests.collect::<Vec<_>>()))
        .await
        .unwrap()
        .into_inner();
    assert!(answers.message().await.unwrap().unwrap().data.is_empty(), "subscribed");
    tokio::spawn(async move {
        let mut all = Vec::new();
        while let Some(answer) = answers.message().await.unwrap() {
            all.extend_from_slice(&answer.data);
        }
        all
    })
}

async fn logged(spec: &VmSpec) -> Vec<u8> {
    let entries = runner::logs::read(log(spec), runner::logs::Query::default(), watch::channel(true).1);
    entries
        .fold(Vec::new(), async |mut all, entry| {
            all.extend_from_slice(&entry.unwrap().line);
            all
        })
        .await
}

async fn wait_exit(handle: &Handle) -> ExitRecord {
    timeout(PATIENCE, handle.client().wait_exit(WaitExitRequest {})).await.unwrap().unwrap().into_inner()
}

#[tokio::test]
#[ignore = "boots a VM"]
async fn a_process_gives_its_output_and_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let spec = container_spec(dir.path(), "short");
    let handle = boot(&spec).await;
    let output = attach(&handle, Bytes::new()).await;
    let begin = Instant::now();
    let request = start(&spec, &["/bin/sh", "-c", "echo out; echo err >&2; printf end; exit 7"]);
    let started = handle.client().start_container(request).await.unwrap().into_inner();
    println!("started after {:?}", begin.elapsed());
    let record = wait_exit(&handle).await;
    println!("exit known after {:?}", begin.elapsed());
    assert_eq!((record.exit_code, record.pid, record.error.as_str()), (7, started.pid, ""));
    assert_eq!(
        runner::read_exit(&spec.state_dir).unwrap().unwrap(),
        record.into(),
        "durable before it is told"
    );
    let mut lines: Vec<_> = logged(&spec).await.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    lines.sort();
    assert_eq!(lines, [&b"end"[..], b"err", b"out"]);
    assert_eq!(output.await.unwrap().len(), 11);
    let status = handle.client().get_status(GetStatusRequest {}).await;
    gone(&handle, &status.map(|status| status.into_inner().hypervisor_pid).into_iter().collect::<Vec<_>>())
        .await;
    println!("gone after {:?}", begin.elapsed());
}

#[tokio::test]
#[ignore = "boots a VM"]
async fn input_comes_back_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let spec = container_spec(dir.path(), "cat");
    let handle = boot(&spec).await;
    let input: Bytes = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let output = attach(&handle, input.clone()).await;
    let begin = Instant::now();
    handle.client().start_container(start(&spec, &["/bin/cat"])).await.unwrap();
    assert_eq!(wait_exit(&handle).await.exit_code, 0);
    println!("3 MB in and out in {:?}", begin.elapsed());
    assert!(output.await.unwrap() == input);
    gone(&handle, &[]).await;
}

#[tokio::test]
#[ignore = "boots a VM"]
async fn a_hundred_megabytes_reach_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let spec = container_spec(dir.path(), "flood");
    let handle = boot(&spec).await;
    let begin = Instant::now();
    let size = 100 << 20;
    let command =
        format!("yes 0123456789012345678901234567890123456789012345678901234567890 | head -c {size}");
    handle.client().start_container(start(&spec, &["/bin/sh", "-c", &command])).await.unwrap();
    let status = handle.client().get_status(GetStatusRequest {}).await.unwrap().into_inner();
    let memory = || {
        let text = fs::read_to_string(format!("/proc/{}/status", status.runner_pid)).unwrap_or_default();
        text.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default().to_owned()
    };
    assert_eq!(wait_exit(&handle).await.exit_code, 0);
    println!("100 MB in {:?}, runner {}", begin.elapsed(), memory());
    assert_eq!(logged(&spec).await.len(), size);
    gone(&handle, &[]).await;
}

#[tokio::test]
#[ignore = "boots a VM"]
async fn a_lost_vm_and_a_shutdown_are_exits_with_137() {
    let dir = tempfile::tempdir().unwrap();
    let spec = container_spec(dir.path(), "lost");
    for shutdown in [true, false] {
        let handle = boot(&spec).await;
        let request = start(&spec, &["/bin/sh", "-c", "echo on; sleep 1000"]);
        handle.client().start_container(request).await.unwrap();
        let status = handle.client().get_status(GetStatusRequest {}).await.unwrap().into_inner();
        let follow = runner::logs::Query { follow: true, ..runner::logs::Query::default() };
        let (_running, ended) = watch::channel(false);
        let first = timeout(PATIENCE, runner::logs::read(log(&spec), follow, ended).next()).await.unwrap();
        assert_eq!(first.unwrap().unwrap().line, "on\n");
        let begin = Instant::now();
        if shutdown {
            handle.client().shutdown(ShutdownRequest { grace_ms: 8000 }).await.unwrap();
            println!("shut down in {:?}", begin.elapsed());
        } else {
            let pid = rustix::process::Pid::from_raw(status.hypervisor_pid as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        gone(&handle, &[status.hypervisor_pid, status.runner_pid]).await;
        let record = runner::read_exit(&spec.state_dir).unwrap().unwrap();
        assert_eq!(record.exit_code, 137);
        assert_eq!(record.error.is_empty(), shutdown, "{}", record.error);
        fs::remove_file(log(&spec)).unwrap();
    }
}

#[tokio::test]
#[ignore = "boots a VM"]
async fn a_command_that_is_not_there_is_127_and_the_vm_can_be_shut_down() {
    let dir = tempfile::tempdir().unwrap();
    let spec = container_spec(dir.path(), "nocmd");
    let handle = boot(&spec).await;
    for _ in 0..2 {
        let refused = handle.client().start_container(start(&spec, &["/nosuch"])).await.unwrap_err();
        assert_eq!(proto::detail::of(&refused).exit_code, 127, "{refused:?}");
    }
    let begin = Instant::now();
    handle.client().shutdown(ShutdownRequest { grace_ms: 0 }).await.unwrap();
    println!("shut down in {:?}", begin.elapsed());
    gone(&handle, &[]).await;
    assert_eq!(runner::read_exit(&spec.state_dir).unwrap(), None);
}

/// `ARCA_TEST_BOOTS` boots in a row, each with a process that is over at once: no boot hangs, no exit is lost.
#[tokio::test]
#[ignore = "boots many VMs"]
async fn many_short_lives() {
    let boots = env::var("ARCA_TEST_BOOTS").map_or(10, |boots| boots.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let spec = container_spec(dir.path(), "many");
    for n in 0..boots {
        let handle = boot(&spec).await;
        let request = start(&spec, &["/bin/sh", "-c", &format!("echo {n}; exit {}", n % 100)]);
        handle.client().start_container(request).await.unwrap();
        assert_eq!(wait_exit(&handle).await.exit_code, n % 100);
        assert!(logged(&spec).await.ends_with(format!("{n}\n").as_bytes()));
        gone(&handle, &[]).await;
    }
}
