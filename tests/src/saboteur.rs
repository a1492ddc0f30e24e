//! The program that does all it should not (`tests/guest`): in containers, and as the PID 1 of VMs.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tar::{Builder, Header};

use crate::{cache, daemon::Daemon, image::Image};

/// Guests are static programs.
const TARGET: &str = "x86_64-unknown-linux-musl";
const HEADER: usize = 110;

/// The program, built once by each test process that wants it (cargo does nothing when it is fresh).
///
/// # Errors
/// When it cannot be built.
pub fn program() -> Result<&'static Path> {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    if let Some(program) = PROGRAM.get() {
        return Ok(program);
    }
    let root = cache::checkout().canonicalize()?;
    // As initramfs/build.sh has them, so that neither build undoes the other's.
    let cargo_home = std::env::var("CARGO_HOME")
        .or_else(|_| Ok::<_, std::env::VarError>(format!("{}/.cargo", std::env::var("HOME")?)))?;
    let flags =
        format!("--remap-path-prefix={cargo_home}=/cargo --remap-path-prefix={}=/arca", root.display());
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let build = Command::new("cargo")
        .args(["build", "--quiet", "--profile", "guest", "-p", "saboteur", "--target", TARGET])
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS", flags)
        .current_dir(&root)
        .output()
        .context("cargo")?;
    ensure!(build.status.success(), "build saboteur: {}", String::from_utf8_lossy(&build.stderr));
    let program = target.join(TARGET).join("guest/saboteur");
    Ok(PROGRAM.get_or_init(|| program))
}

/// Loads the image `saboteur`: busybox with `/saboteur`.
///
/// # Errors
/// When it cannot be made or loaded.
pub fn load(daemon: &Daemon) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let busybox = folder.path().join("busybox.tar");
    let mut archive = tar::Archive::new(File::open(cache::images().join("busybox.docker.tar"))?);
    let mut found = archive
        .entries()?
        .filter_map(Result::ok)
        .find(|entry| entry.path().is_ok_and(|path| path == Path::new("0/layer.tar")));
    std::io::copy(found.as_mut().context("busybox has no layer")?, &mut File::create(&busybox)?)?;
    let layer = folder.path().join("saboteur.tar");
    let mut tar = Builder::new(File::create(&layer)?);
    let program = fs::read(program()?)?;
    let mut header = Header::new_gnu();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    tar.append_data(&mut header, "saboteur", program.as_slice())?;
    tar.into_inner()?.sync_all()?;
    let archive = folder.path().join("saboteur.docker.tar");
    Image::new("saboteur:latest", vec![busybox, layer], &json!({ "Cmd": ["sh"] }))
        .write_docker_archive(&archive)?;
    let out = daemon.docker().run(&["load", "-q", "-i", &archive.to_string_lossy()]);
    ensure!(out.code == 0, "docker load saboteur: {}", out.stderr);
    Ok(())
}

/// Puts an initramfs at `path`, atomically, whose PID 1 does what the word `mode` says.
///
/// # Errors
/// When a file cannot be read or written.
pub fn initramfs(mode: &str, path: &Path) -> Result<()> {
    let mut archive = Vec::new();
    for folder in ["dev", "proc", "sys", "run", "root"] {
        member(&mut archive, folder, 0o040_755, (0, 0), &[]);
    }
    member(&mut archive, "dev/console", 0o020_600, (5, 1), &[]);
    member(&mut archive, "init", 0o100_755, (0, 0), &fs::read(program()?)?);
    member(&mut archive, "mode", 0o100_644, (0, 0), mode.as_bytes());
    if matches!(mode, "kill" | "stop") {
        let real = real_init()?;
        member(&mut archive, "arca-init", 0o100_755, (0, 0), &real);
    }
    member(&mut archive, "TRAILER!!!", 0, (0, 0), &[]);
    install(&archive, path)
}

/// Puts the real initramfs at `path`, atomically.
///
/// # Errors
/// When it is not built, or cannot be copied.
pub fn real_initramfs(path: &Path) -> Result<()> {
    install(&fs::read(cache::current().join("initramfs.cpio"))?, path)
}

fn install(bytes: &[u8], path: &Path) -> Result<()> {
    let partial = path.with_extension("new");
    fs::write(&partial, bytes)?;
    Ok(fs::rename(&partial, path)?)
}

/// A member of the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst).
fn member(archive: &mut Vec<u8>, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
    let inode = u32::try_from(archive.len()).unwrap_or(0) + 1;
    let size = u32::try_from(content.len()).unwrap_or(0);
    let length = u32::try_from(name.len() + 1).unwrap_or(0);
    let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, length, 0];
    archive.extend_from_slice(b"070701");
    for field in fields {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

/// arca-init, out of the initramfs that daemons use.
fn real_init() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(cache::current().join("initramfs.cpio"))?.read_to_end(&mut bytes)?;
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + HEADER) {
        let field = |number: usize| -> Result<usize> {
            let from = 6 + number * 8;
            Ok(usize::from_str_radix(std::str::from_utf8(&header[from..from + 8])?, 16)?)
        };
        let (size, length) = (field(6)?, field(11)?);
        let name = bytes.get(at + HEADER..at + HEADER + length - 1).context("cpio name")?;
        let content = (at + HEADER + length).next_multiple_of(4);
        if name == b"init" {
            return Ok(bytes.get(content..content + size).context("cpio content")?.to_vec());
        }
        at = (content + size).next_multiple_of(4);
    }
    bail!("the initramfs has no init")
}
