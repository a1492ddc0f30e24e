//! The guest contract (docs/guest-contract.md): a bare QEMU command line and a gRPC client, no daemon.

use std::{
    collections::HashMap,
    fs::File,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use diskimg::LayerDisk;
use futures::StreamExt;
use proto::{
    dial,
    ports::GUEST_CONTROL,
    sandbox::{
        CreateProcessRequest, DeleteProcessRequest, GetInfoRequest, OutputAck, PowerOffRequest,
        PrepareRequest, ProcessSpec, Rootfs, StartProcessRequest, StdinChunk, StdioOpen, StdioRequest,
        Stream, WaitProcessRequest, sandbox_client::SandboxClient, stdio_request, stdio_response,
    },
    tapforwarder::{GetStatusRequest, tap_forwarder_client::TapForwarderClient},
};
use tests::cache;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use vsock_device::{Config, Device};

struct Vm {
    dir: tempfile::TempDir,
    qemu: Child,
    _device: Device,
}

impl Vm {
    /// QEMU, and the vsock device served beside it.
    fn boot(disk: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let current = cache::current();
        let config =
            Config { guest_cid: 3, vhost_socket: at("device").into(), hybrid_socket: at("vsock").into() };
        let device = Device::start(&config).unwrap();
        let qemu = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "qemu-system-x86_64",
                "-nodefaults",
                "-display",
                "none",
                "-no-reboot",
            ])
            .args(["-machine", "q35,accel=tcg,memory-backend=mem", "-m", "256"])
            .args(["-object", "memory-backend-memfd,id=mem,size=256M,share=on"])
            .arg("-kernel")
            .arg(current.join("bzImage"))
            .arg("-initrd")
            .arg(current.join("initramfs.cpio"))
            .args(["-append", "console=ttyS0 quiet panic=-1"])
            .args(["-serial", &format!("file:{}", at("console"))])
            .args(["-chardev", &format!("socket,id=vsock,path={}", at("device"))])
            .args(["-device", "vhost-user-vsock-pci,chardev=vsock"])
            .args(["-drive", &format!("file={},format=raw,if=none,id=layer,readonly=on", disk.display())])
            .args(["-device", "virtio-blk-pci,drive=layer,serial=thelayer"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { dir, qemu, _device: device }
    }

    async fn channel(&self) -> Channel {
        let socket = self.dir.path().join("vsock");
        let deadline = Instant::now() + Duration::from_secs(60);
        if let Err(error) = dial::connect_until(&socket, GUEST_CONTROL, deadline).await {
            let console = std::fs::read_to_string(self.dir.path().join("console")).unwrap_or_default();
            panic!("the guest does not answer: {error}; its console: {console}");
        }
        dial::guest_channel(socket, GUEST_CONTROL)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// A layer disk of the busybox test image.
fn busybox_disk(dir: &Path) -> std::path::PathBuf {
    let archive = cache::images().join("busybox.docker.tar");
    assert!(Command::new("tar").arg("xf").arg(archive).arg("-C").arg(dir).status().unwrap().success());
    let path = dir.join("busybox.erofs");
    let out = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    let mut disk = LayerDisk::create(out, diskimg::Options::bottom()).unwrap();
    disk.apply(File::open(dir.join("0/layer.tar")).unwrap()).unwrap();
    disk.finish().unwrap();
    path
}

/// stdout of a process whose standard input is `input`, and its exit code.
async fn run(
    client: &mut SandboxClient<Channel>,
    process: &str,
    script: &str,
    input: &'static [u8],
) -> (Vec<u8>, i32) {
    let (container_id, process_id) = ("c1".to_owned(), process.to_owned());
    let spec = ProcessSpec {
        args: vec!["sh".into(), "-c".into(), script.into()],
        stdin: true,
        stdout: true,
        stderr: true,
        ..Default::default()
    };
    client
        .create_process(CreateProcessRequest {
            container_id: container_id.clone(),
            process_id: process_id.clone(),
            spec: Some(spec),
        })
        .await
        .unwrap();
    let (send, requests) = mpsc::channel(4);
    let say = |kind| StdioRequest { kind: Some(kind) };
    let open = StdioOpen {
        container_id: container_id.clone(),
        process_id: process_id.clone(),
        ..Default::default()
    };
    send.send(say(stdio_request::Kind::Open(open))).await.unwrap();
    let mut output = client.stdio(ReceiverStream::new(requests)).await.unwrap().into_inner();
    client
        .start_process(StartProcessRequest {
            container_id: container_id.clone(),
            process_id: process_id.clone(),
        })
        .await
        .unwrap();
    send.send(say(stdio_request::Kind::Stdin(StdinChunk { offset: 0, data: input.into(), eof: true })))
        .await
        .unwrap();
    let mut stdout = Vec::new();
    while let Some(message) = output.next().await {
        let Some(stdio_response::Kind::Output(chunk)) = message.unwrap().kind else { continue };
        if chunk.stream() == Stream::Stdout {
            assert_eq!(chunk.offset, stdout.len() as u64);
            stdout.extend_from_slice(&chunk.data);
            let ack = OutputAck { stdout_offset: stdout.len() as u64, stderr_offset: 0 };
            // The guest may be done with us already.
            let _ = send.send(say(stdio_request::Kind::Ack(ack))).await;
        }
    }
    let exit = client
        .wait_process(WaitProcessRequest {
            container_id: container_id.clone(),
            process_id: process_id.clone(),
        })
        .await
        .unwrap()
        .into_inner();
    client.delete_process(DeleteProcessRequest { container_id, process_id }).await.unwrap();
    (stdout, exit.exit_code)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_qemu_and_a_grpc_client_run_a_container() {
    if crate::support::arca().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = busybox_disk(dir.path());
    let mut vm = Vm::boot(&disk);
    let channel = vm.channel().await;

    let status =
        TapForwarderClient::new(channel.clone()).get_status(GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.active_networks, 0);
    assert!(!status.version.is_empty());

    let mut client = SandboxClient::new(channel);
    let info = client.get_info(GetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.disks, ["thelayer"]);
    assert!(info.containers.is_empty());

    let prepare = PrepareRequest {
        container_id: "c1".into(),
        hostname: "bare".into(),
        rootfs: Some(Rootfs { lower: vec!["thelayer".into()], ..Default::default() }),
        sysctls: HashMap::from([("kernel.msgmax".into(), "4242".into())]),
        ..Default::default()
    };
    client.prepare(prepare.clone()).await.unwrap();
    client.prepare(prepare).await.expect("a retry is safe");

    let (out, code) =
        run(&mut client, "c1", "hostname; cat; cat /proc/sys/kernel/msgmax; exit 7", b"through stdin\n")
            .await;
    assert_eq!(String::from_utf8_lossy(&out), "bare\nthrough stdin\n4242\n");
    assert_eq!(code, 7);

    client.power_off(PowerOffRequest {}).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while vm.qemu.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the VM did not power off");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
