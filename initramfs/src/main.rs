//! `initramfs INIT OUT`: packs the guest's PID 1 into the initramfs of all VMs.
//!
//! The archive is uncompressed: the kernel then only copies it (60 ms less per boot under TCG).

#![forbid(unsafe_code)]

mod cpio;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cpio::{Archive, Kind};

/// Folders that arca-init mounts on before it does anything else, and /root for a rescue shell's home.
const FOLDERS: [&str; 5] = ["dev", "proc", "sys", "run", "root"];

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(init), Some(out), None) = (args.next(), args.next(), args.next()) else {
        eprintln!("usage: initramfs INIT OUT");
        return ExitCode::from(2);
    };
    match build(&init, &out) {
        Ok(bytes) => {
            eprintln!("{}: {bytes} bytes", out.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("initramfs: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes the archive with `init` as `/init` to `out`, by way of a temporary name, and returns its size.
fn build(init: &Path, out: &Path) -> Result<usize, Box<dyn Error>> {
    let program = std::fs::read(init).map_err(|e| format!("cannot read {}: {e}", init.display()))?;
    if !program.starts_with(b"\x7fELF") {
        return Err(format!("{} is not an ELF program", init.display()).into());
    }
    let bytes = image(&program)?;
    let mut partial = out.as_os_str().to_owned();
    partial.push(".new");
    std::fs::write(&partial, &bytes).and_then(|()| std::fs::rename(&partial, out))?;
    Ok(bytes.len())
}

/// The whole image: /init, the console that the kernel opens as PID 1's stdio, and the mount points.
fn image(init: &[u8]) -> Result<Vec<u8>, cpio::Error> {
    let mut archive = Archive::default();
    for folder in FOLDERS {
        archive.add(folder, Kind::Folder { mode: if folder == "root" { 0o700 } else { 0o755 } })?;
    }
    archive.add("dev/console", Kind::CharDevice { mode: 0o600, major: 5, minor: 1 })?;
    archive.add("init", Kind::File { mode: 0o755, content: init })?;
    Ok(archive.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_input_same_bytes_whatever_the_file_says_about_itself() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, mtime: u64| {
            let (init, out) = (dir.path().join(name), dir.path().join(format!("{name}.cpio")));
            std::fs::write(&init, b"\x7fELF program").unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(mtime);
            std::fs::File::options().write(true).open(&init).unwrap().set_modified(time).unwrap();
            build(&init, &out).unwrap();
            std::fs::read(out).unwrap()
        };
        assert_eq!(make("a", 1), make("b", 1_000_000_000));
    }

    #[test]
    fn another_program_gives_other_bytes() {
        assert_ne!(image(b"\x7fELF 1").unwrap(), image(b"\x7fELF 2").unwrap());
    }

    #[test]
    fn an_init_that_is_no_program_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let init = dir.path().join("init");
        std::fs::write(&init, "#!/bin/sh\n").unwrap();
        let error = build(&init, &dir.path().join("out")).unwrap_err();
        assert!(error.to_string().contains("not an ELF program"), "{error}");
    }

    #[test]
    fn gnu_cpio_lists_what_the_kernel_will_unpack() {
        use std::io::Write;
        let spawned = std::process::Command::new("cpio")
            .args(["-itv", "--quiet"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn();
        let Ok(mut child) = spawned else {
            eprintln!("skipped: no cpio on this machine (apt-get install cpio)");
            return;
        };
        child.stdin.take().unwrap().write_all(&image(b"\x7fELF").unwrap()).unwrap();
        let listing = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let has = |start: &str, end: &str| listing.lines().any(|l| l.starts_with(start) && l.ends_with(end));
        assert!(has("-rwxr-xr-x", " init"), "{listing}");
        assert!(has("crw-------", " dev/console") && listing.contains("5,   1"), "{listing}");
        assert!(FOLDERS.iter().all(|f| has("drwx", &format!(" {f}"))), "{listing}");
    }
}
