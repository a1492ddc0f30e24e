//! The device under a real QEMU, with a real guest. Skipped, loudly, where there is none: it needs `qemu-system-x86_64` and
//! `bzImage` and `initramfs.cpio` in the folder `ARCA_GUEST`, or `~/.cache/arca/current`.
#![cfg(target_os = "linux")]

use std::{
    io::{self, ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use vsock_device::{Config, Device, End};

/// Where arca-init serves gRPC, that is HTTP/2.
const PORT: u32 = 5555;
const BOOT: Duration = Duration::from_secs(60);
/// HTTP/2's client preface with an empty SETTINGS frame (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn guest() -> Option<(PathBuf, PathBuf)> {
    let folder = match std::env::var_os("ARCA_GUEST") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cache/arca/current"),
    };
    let (kernel, initramfs) = (folder.join("bzImage"), folder.join("initramfs.cpio"));
    let qemu = Command::new("qemu-system-x86_64").arg("--version").stdout(Stdio::null()).status();
    (kernel.exists() && initramfs.exists() && qemu.is_ok()).then_some((kernel, initramfs))
}

/// QEMU; killed when dropped.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn boot(kernel: &Path, initramfs: &Path, vhost_socket: &Path) -> io::Result<Qemu> {
    let child = Command::new("qemu-system-x86_64")
        .args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-accel",
            "tcg",
            "-cpu",
            "max",
        ])
        .args(["-object", "memory-backend-memfd,id=mem,size=256M,share=on", "-m", "256M", "-smp", "2"])
        .args(["-machine", "q35,memory-backend=mem", "-device", "vhost-user-vsock-pci,chardev=vsock"])
        .arg("-chardev")
        .arg(format!("socket,id=vsock,path={}", vhost_socket.display()))
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "quiet panic=-1 tsc=reliable"])
        .stdin(Stdio::null())
        .spawn()?;
    Ok(Qemu(child))
}

/// Connects to a port of the guest.
fn dial(socket: &Path, patience: Duration) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(format!("CONNECT {PORT}\n").as_bytes())?;
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.extend(byte);
    }
    assert!(line.starts_with(b"OK "), "{line:?}");
    Ok(stream)
}

/// Clients that give up soon, from before the guest has a driver until it answers.
fn impatient(socket: &Path, until: &AtomicBool) -> u32 {
    let mut clients = 0;
    while !until.load(Ordering::Relaxed) {
        clients += 1;
        // From less than a boot's pauses to more than a handshake.
        drop(dial(socket, Duration::from_millis(u64::from(1 + clients * 7 % 60))));
    }
    clients
}

#[test]
fn a_guest_is_reached_however_early_and_often_it_is_dialled() {
    let Some((kernel, initramfs)) = guest() else {
        eprintln!(
            "SKIPPED: no QEMU, or no guest in ARCA_GUEST or ~/.cache/arca/current (run `make kernel initramfs`)"
        );
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (vhost_socket, hybrid_socket) = (folder.path().join("vhost"), folder.path().join("vsock"));
    let config = Config { guest_cid: 3, vhost_socket, hybrid_socket };
    let device = Device::start(&config).unwrap();
    let done = AtomicBool::new(false);
    let qemu = std::thread::scope(|scope| {
        let others: Vec<_> =
            (0..4).map(|_| scope.spawn(|| impatient(&config.hybrid_socket, &done))).collect();
        let qemu = boot(&kernel, &initramfs, &config.vhost_socket).unwrap();
        let start = Instant::now();
        let reached = loop {
            match dial(&config.hybrid_socket, Duration::from_secs(1)) {
                Ok(stream) => break Some(stream),
                Err(_) if start.elapsed() > BOOT => break None,
                // No event tells when a guest listens.
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        done.store(true, Ordering::Relaxed);
        let clients: u32 = others.into_iter().map(|other| other.join().unwrap()).sum();
        let mut stream =
            reached.unwrap_or_else(|| panic!("no answer after {BOOT:?} and {clients} other clients"));
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(PREFACE).unwrap();
        let mut frame = [0; 9];
        stream.read_exact(&mut frame).unwrap();
        assert_eq!((frame[3], &frame[5..9]), (4, &[0; 4][..]), "HTTP/2's SETTINGS");
        // The client has no more to say; the guest ends too, and what it still says comes through.
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        qemu
    });
    assert_eq!(device.has_ended(), None);
    drop(qemu);
    assert_eq!(device.wait(), End::Disconnected);
}
