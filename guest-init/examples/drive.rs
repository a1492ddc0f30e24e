//! Drives a guest by hand, without a daemon: boots QEMU with a kernel and an initramfs, prepares one container and runs
//! commands in it.
//!
//! ```text
//! drive KERNEL INITRAMFS [--vsock-device PATH] [--lower FILE.erofs]... [--writable FILE.ext4] [--console]
//!       [--user U] [--tty] [--init] [--cap CAP]... [--memory BYTES] [--readonly] [--tmpfs PATH] [--sysctl K=V]
//!       [--stdin-bytes N] [--md5] [--hold-output] [--exec 'CMD ARG...']... -- COMMAND ARG...
//! ```

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    reason = "a program for a terminal"
)]

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use proto::sandbox::{
    sandbox_client::SandboxClient, stdio_request::Kind as In, stdio_response::Kind as Out, *,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const QUIET: &str = "console=ttyS0 quiet panic=-1 tsc=reliable";
const VERBOSE: &str = "console=ttyS0 loglevel=8 panic=-1 tsc=reliable arca.log=debug";
const CONTAINER: &str = "c0ffee000000000000000000";

#[derive(Default)]
struct Options {
    kernel: PathBuf,
    initramfs: PathBuf,
    vsock_device: PathBuf,
    lower: Vec<PathBuf>,
    writable: Option<PathBuf>,
    console: bool,
    user: String,
    tty: bool,
    init: bool,
    caps: Vec<String>,
    memory: Option<i64>,
    readonly: bool,
    tmpfs: Vec<String>,
    sysctls: Vec<(String, String)>,
    stdin_bytes: usize,
    quiet: bool,
    rounds: usize,
    execs: Vec<String>,
    command: Vec<String>,
}

fn options() -> Result<Options> {
    let mut o = Options { vsock_device: "vhost-device-vsock".into(), rounds: 1, ..Options::default() };
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().ok_or("an argument is missing");
    o.kernel = next()?.into();
    o.initramfs = next()?.into();
    loop {
        match next()?.as_str() {
            "--vsock-device" => o.vsock_device = next()?.into(),
            "--lower" => o.lower.push(next()?.into()),
            "--writable" => o.writable = Some(next()?.into()),
            "--console" => o.console = true,
            "--user" => o.user = next()?,
            "--tty" => o.tty = true,
            "--init" => o.init = true,
            "--cap" => o.caps.push(next()?),
            "--memory" => o.memory = Some(next()?.parse()?),
            "--readonly" => o.readonly = true,
            "--tmpfs" => o.tmpfs.push(next()?),
            "--sysctl" => {
                let word = next()?;
                let (name, value) = word.split_once('=').ok_or("--sysctl NAME=VALUE")?;
                o.sysctls.push((name.to_owned(), value.to_owned()));
            }
            "--stdin-bytes" => o.stdin_bytes = next()?.parse()?,
            "--quiet" => o.quiet = true,
            "--rounds" => o.rounds = next()?.parse()?,
            "--exec" => o.execs.push(next()?),
            "--" => break,
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    o.command = args.collect();
    Ok(o)
}

/// QEMU and the vsock device; killed when dropped.
struct Machine {
    children: Vec<Child>,
    _folder: tempfile::TempDir,
    socket: PathBuf,
}

impl Drop for Machine {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn boot(o: &Options) -> Result<Machine> {
    let folder = tempfile::tempdir()?;
    let (vhost, socket) = (folder.path().join("v"), folder.path().join("h"));
    let device = Command::new(&o.vsock_device)
        .args(["--guest-cid", "3", "--socket"])
        .arg(&vhost)
        .arg("--uds-path")
        .arg(&socket)
        .stderr(Stdio::null())
        .spawn()?;
    let start = Instant::now();
    while !vhost.exists() && start.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-object", "memory-backend-memfd,id=mem,size=512M,share=on", "-m", "512M"])
        .args([
            "-machine",
            "q35,memory-backend=mem,accel=tcg",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-nodefaults",
            "-display",
            "none",
        ])
        .args(["-chardev", &format!("socket,id=vs,path={}", vhost.display())])
        .args(["-device", "vhost-user-vsock-pci,chardev=vs", "-no-reboot"])
        .arg("-kernel")
        .arg(&o.kernel)
        .arg("-initrd")
        .arg(&o.initramfs)
        .args(["-append", if o.console { VERBOSE } else { QUIET }]);
    if o.console {
        qemu.args(["-serial", "stdio"]);
    }
    let mut disk = |file: &Path, serial: &str, readonly: &str| {
        qemu.args([
            "-drive",
            &format!("if=none,id={serial},format=raw,file={},readonly={readonly}", file.display()),
        ]);
        qemu.args(["-device", &format!("virtio-blk-pci,drive={serial},serial={serial}")]);
    };
    for (index, file) in o.lower.iter().enumerate() {
        disk(file, &format!("lower{index}"), "on");
    }
    if let Some(file) = &o.writable {
        disk(file, "writable", "off");
    }
    let qemu = qemu.stdin(Stdio::null()).spawn()?;
    Ok(Machine { children: vec![qemu, device], _folder: folder, socket })
}

fn capabilities(o: &Options) -> Vec<String> {
    let default = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT \
                   KILL AUDIT_WRITE";
    default.split(' ').map(|name| format!("CAP_{name}")).chain(o.caps.iter().cloned()).collect()
}

fn spec(o: &Options, args: Vec<String>) -> ProcessSpec {
    ProcessSpec {
        args,
        env: vec!["HOSTNAME=driven".into()],
        cwd: "/".into(),
        user: o.user.clone(),
        terminal: o.tty,
        console_width: 100,
        console_height: 40,
        capabilities: capabilities(o),
        stdin: o.stdin_bytes > 0,
        stdout: true,
        stderr: true,
        ..ProcessSpec::default()
    }
}

fn prepare(o: &Options) -> PrepareRequest {
    let managed = |target: &str, content: &str| ManagedFile {
        target: target.into(),
        content: content.to_owned().into(),
        mode: 0o644,
    };
    let list = |words: &str| words.split(' ').map(str::to_owned).collect();
    PrepareRequest {
        container_id: CONTAINER.into(),
        rootfs: Some(Rootfs {
            lower: (0..o.lower.len()).map(|index| format!("lower{index}")).collect(),
            writable: o.writable.as_ref().map(|_| "writable".to_owned()).unwrap_or_default(),
            readonly: o.readonly,
        }),
        hostname: "driven".into(),
        mounts: o
            .tmpfs
            .iter()
            .map(|target| Mount { kind: 0, target: target.clone(), options: vec!["size=1m".into()] })
            .collect(),
        managed_files: vec![
            managed("/etc/hosts", "127.0.0.1 localhost\n"),
            managed("/etc/hostname", "driven\n"),
        ],
        sysctls: o.sysctls.iter().cloned().collect(),
        resources: Some(Resources { memory: o.memory, pids_limit: Some(100), ..Resources::default() }),
        masked_paths: list("/proc/kcore /proc/keys /proc/timer_list /proc/acpi /sys/firmware"),
        readonly_paths: list("/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"),
        ..PrepareRequest::default()
    }
}

/// Runs one process to its end; answers its exit code.
async fn run(
    client: &mut SandboxClient<Channel>,
    o: &Options,
    id: &str,
    mut spec: ProcessSpec,
) -> Result<i32> {
    let (container_id, process_id) = (CONTAINER.to_owned(), id.to_owned());
    let start = Instant::now();
    spec.init = o.init && id == "init";
    let create = CreateProcessRequest {
        container_id: container_id.clone(),
        process_id: process_id.clone(),
        spec: Some(spec),
    };
    client.create_process(create).await?;
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    let open = StdioOpen {
        container_id: container_id.clone(),
        process_id: process_id.clone(),
        ..StdioOpen::default()
    };
    sender.send(StdioRequest { kind: Some(In::Open(open)) }).await?;
    let mut responses = client.stdio(ReceiverStream::new(receiver)).await?.into_inner();
    let name = StartProcessRequest { container_id: container_id.clone(), process_id: process_id.clone() };
    client.start_process(name).await.map_err(|status| {
        let code = proto::detail::of(&status).exit_code;
        format!("{:?} (exit code {code}): {}", status.code(), status.message())
    })?;
    let started = start.elapsed();
    let acks = sender.clone();
    let size = o.stdin_bytes;
    let window = std::sync::Arc::new(tokio::sync::Semaphore::new(4));
    let permits = window.clone();
    if size > 0 {
        tokio::spawn(async move {
            let mut offset = 0;
            while offset <= size {
                let Ok(permit) = permits.acquire().await else { return };
                permit.forget();
                let n = (size - offset).min(60_000);
                let data: Vec<u8> = (offset..offset + n).map(|i| (i * 31 % 251) as u8).collect();
                let chunk = StdinChunk { offset: offset as u64, data: data.into(), eof: n == 0 };
                if sender.send(StdioRequest { kind: Some(In::Stdin(chunk)) }).await.is_err() || n == 0 {
                    return;
                }
                offset += n;
            }
        });
    }
    let mut total = [0_usize; 3];
    let (mut sum, mut acked) = (0_u64, 0_u64);
    while let Some(response) = responses.message().await? {
        match response.kind {
            Some(Out::Output(chunk)) => {
                let stream = usize::try_from(chunk.stream)?;
                if chunk.offset != total[stream] as u64 {
                    return Err(
                        format!("stream {stream}: offset {} after {}", chunk.offset, total[stream]).into()
                    );
                }
                total[stream] += chunk.data.len();
                if o.quiet && o.stdin_bytes > 0 {
                    sum = chunk
                        .data
                        .iter()
                        .fold(sum, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
                } else if !o.quiet {
                    print!("{}", String::from_utf8_lossy(&chunk.data));
                }
                let ack = OutputAck { stdout_offset: total[1] as u64, stderr_offset: total[2] as u64 };
                let _ = acks.send(StdioRequest { kind: Some(In::Ack(ack)) }).await;
            }
            Some(Out::StdinAck(ack)) => {
                while acked + 60_000 <= ack.offset {
                    acked += 60_000;
                    window.add_permits(1);
                }
            }
            _ => {}
        }
    }
    let wait = WaitProcessRequest { container_id: container_id.clone(), process_id: process_id.clone() };
    let end = client.wait_process(wait).await?.into_inner();
    if o.quiet && o.stdin_bytes > 0 {
        let want = (0..size).fold(0_u64, |sum, i| sum.wrapping_mul(31).wrapping_add((i * 31 % 251) as u64));
        println!("echo is {}", if want == sum { "equal" } else { "DIFFERENT" });
    }
    println!(
        "[{id}: exit {}{}, {} + {} bytes out, started in {started:?}, ended after {:?}]",
        end.exit_code,
        if end.oom_killed { ", OOM" } else { "" },
        total[1],
        total[2],
        start.elapsed()
    );
    client.delete_process(DeleteProcessRequest { container_id, process_id }).await?;
    Ok(end.exit_code)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let o = options()?;
    let start = Instant::now();
    let mut machine = boot(&o)?;
    // A connection asked for before the guest's driver is there is never answered: ask again soon.
    while start.elapsed() < Duration::from_secs(60) {
        let dial = proto::dial::connect(&machine.socket, proto::ports::GUEST_CONTROL);
        match tokio::time::timeout(Duration::from_millis(200), dial).await {
            Ok(Ok(_)) => break,
            Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(_) => println!("[no handshake after {:?}]", start.elapsed()),
        }
    }
    let mut client =
        SandboxClient::new(proto::dial::guest_channel(machine.socket.clone(), proto::ports::GUEST_CONTROL));
    let info = client.get_info(GetInfoRequest {}).await?.into_inner();
    println!("[GetInfo after {:?}: {info:?}]", start.elapsed());
    client.seed_random(SeedRandomRequest { seed: vec![7; 32].into() }).await?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    client.set_time(SetTimeRequest { seconds: now.as_secs().cast_signed(), nanoseconds: 0 }).await?;
    let step = Instant::now();
    client.prepare(prepare(&o)).await?;
    println!("[Prepare took {:?}]", step.elapsed());
    let container_id = CONTAINER.to_owned();
    if o.execs.is_empty() {
        for round in 0..o.rounds {
            let id = if round == 0 { "init".to_owned() } else { format!("init{round}") };
            if let Err(error) = run(&mut client, &o, &id, spec(&o, o.command.clone())).await {
                println!("[init: {error}]");
            }
        }
    } else {
        // The command runs beside the execs.
        let name = || ("init".to_owned(), CONTAINER.to_owned());
        let (process_id, container) = name();
        let mut first = spec(&o, o.command.clone());
        first.init = o.init;
        client
            .create_process(CreateProcessRequest { container_id: container, process_id, spec: Some(first) })
            .await?;
        let (process_id, container) = name();
        client.start_process(StartProcessRequest { container_id: container, process_id }).await?;
        for (index, command) in o.execs.iter().enumerate() {
            match command.as_str() {
                "@pause" => drop(client.pause(PauseRequest { container_id: container_id.clone() }).await?),
                "@resume" => drop(client.resume(ResumeRequest { container_id: container_id.clone() }).await?),
                "@top" => println!(
                    "{:?}",
                    client.top(TopRequest { container_id: container_id.clone(), args: vec![] }).await?
                ),
                "@stats" => {
                    println!(
                        "{:?}",
                        client.stats(StatsRequest { container_id: container_id.clone() }).await?
                    );
                }
                "@stop" => {
                    let (process_id, container_id) = name();
                    let signal = SignalProcessRequest { container_id, process_id, signal: 15, all: false };
                    client.signal_process(signal).await?;
                    let (process_id, container_id) = name();
                    println!(
                        "{:?}",
                        client
                            .wait_process(WaitProcessRequest { container_id, process_id })
                            .await?
                            .into_inner()
                    );
                }
                command => {
                    let args = command.split(' ').map(str::to_owned).collect();
                    if let Err(error) = run(&mut client, &o, &format!("exec{index}"), spec(&o, args)).await {
                        println!("[exec{index}: {error}]");
                    }
                }
            }
        }
    }
    let mut changes =
        client.changes(ChangesRequest { container_id: container_id.clone() }).await?.into_inner();
    while let Some(part) = changes.message().await? {
        for change in part.changes {
            println!("[{} {}]", ["C", "A", "D"].get(change.kind as usize).unwrap_or(&"?"), change.path);
        }
    }
    let step = Instant::now();
    client.power_off(PowerOffRequest {}).await?;
    println!("[PowerOff answered after {:?}]", step.elapsed());
    let status = machine.children[0].wait()?;
    println!("[QEMU ended after {:?}: {status}]", step.elapsed());
    Ok(())
}
