//! Kernel boot, hypervisor start to PID 1's first line, against Debian's cloud kernel: the same machine, the same initramfs,
//! turn by turn.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use tests::cache;

use crate::figures::Series;

const ROUNDS: usize = 7;
const MARK: &str = "pid1-is-here";

pub(crate) fn bench() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let initramfs = marker_initramfs(dir.path())?;
    let ours = cache::current().join("bzImage");
    let peer = cloud_kernel()?;
    let (mut our_times, mut peer_times) = (Series::default(), Series::default());
    for _ in 0..ROUNDS {
        boot(&ours, &initramfs, &mut our_times)?;
        boot(&peer, &initramfs, &mut peer_times)?;
    }
    println!("our kernel              {our_times}");
    println!("Debian's cloud kernel   {peer_times}");
    println!("ratio                   {:8.2}", our_times.ratio(&peer_times));
    Ok(())
}

/// q35 under TCG with our devices' minimum, until PID 1 writes its line.
fn boot(kernel: &Path, initramfs: &Path, times: &mut Series) -> Result<()> {
    let started = Instant::now();
    let mut qemu = Command::new("qemu-system-x86_64")
        .args([
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
            "-machine",
            "q35,accel=tcg",
            "-m",
            "512",
            "-serial",
            "stdio",
        ])
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("qemu-system-x86_64")?;
    let mut console = qemu.stdout.take().context("console")?;
    let mut seen = Vec::new();
    let mut chunk = [0; 512];
    loop {
        let n = console.read(&mut chunk)?;
        if n == 0 {
            bail!("{} ended without a line of PID 1: {}", kernel.display(), String::from_utf8_lossy(&seen));
        }
        seen.extend_from_slice(&chunk[..n]);
        if seen.windows(MARK.len()).any(|window| window == MARK.as_bytes()) {
            break;
        }
    }
    times.push(started.elapsed());
    qemu.kill()?;
    qemu.wait()?;
    Ok(())
}

/// An initramfs whose PID 1 writes one line: the workspace's packer around a C program of three calls.
fn marker_initramfs(dir: &Path) -> Result<PathBuf> {
    let source = dir.join("init.c");
    std::fs::write(
        &source,
        format!(
            "#include <unistd.h>\nint main(void) {{ write(1, \"{MARK}\\n\", {}); for (;;) pause(); }}\n",
            MARK.len() + 1
        ),
    )?;
    let init = dir.join("init");
    run(Command::new("gcc").args(["-Os", "-static", "-s", "-o"]).arg(&init).arg(&source))?;
    let out = dir.join("initramfs.cpio");
    let packer = cache::checkout().join("target/debug/initramfs");
    run(Command::new(packer).arg(&init).arg(&out)).context("the packer is built by `make initramfs`")?;
    Ok(out)
}

/// Debian's cloud kernel, unpacked once into the cache.
fn cloud_kernel() -> Result<PathBuf> {
    let dir = cache::dir().join("cloud-kernel");
    let find = || -> Option<PathBuf> {
        let boot = std::fs::read_dir(dir.join("boot")).ok()?;
        boot.flatten().map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("/vmlinuz-"))
    };
    if let Some(kernel) = find() {
        return Ok(kernel);
    }
    std::fs::create_dir_all(&dir)?;
    let depends = Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]).output()?;
    let text = String::from_utf8(depends.stdout)?;
    let package = text
        .split_whitespace()
        .find(|word| word.starts_with("linux-image-6"))
        .context("linux-image-cloud-amd64")?;
    run(Command::new("sh")
        .arg("-c")
        .arg(format!("apt-get download -q {package} && dpkg -x {package}_*.deb . && rm -f {package}_*.deb"))
        .current_dir(&dir))?;
    find().context("no vmlinuz in the package")
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
