//! Mounts that the user asked for.

use std::{fs, path::Path};

use nix::mount::{MsFlags, mount};

use super::{
    config::Mount,
    failure::Failure,
    options::{self, Options},
};

/// Mounts one inside the container's root, making its mount point.
pub(super) fn apply(wanted: &Mount) -> Result<(), Failure> {
    let target = Path::new(&wanted.target);
    if !target.is_absolute() {
        return Err(Failure::plain(format_args!(
            "invalid mount path: {:?} mount path must be absolute",
            wanted.target
        )));
    }
    let options = match wanted.kind.as_str() {
        // Docker's defaults, which the user's words override.
        "tmpfs" => Options::parse(
            ["nosuid", "nodev", "noexec"].into_iter().chain(wanted.options.iter().map(String::as_str)),
        ),
        _ => Options::parse(wanted.options.iter().map(String::as_str)),
    };
    let failed =
        |e: std::io::Error| Failure::setup(format_args!("mount {} on {}", wanted.kind, wanted.target), e);
    let existing = fs::metadata(target).ok();
    if existing.is_none() {
        fs::create_dir_all(target).map_err(failed)?;
    }
    let mut data = options.data;
    if wanted.kind == "tmpfs" && !data.iter().any(|word| word.starts_with("mode=")) {
        // As runc: the mount point's own mode; tmpfs's default for a new one.
        let mode = existing.map_or(0o1777, |meta| std::os::unix::fs::MetadataExt::mode(&meta) & 0o7777);
        data.push(format!("mode={mode:o}"));
    }
    let read_only = options.flags.contains(MsFlags::MS_RDONLY);
    let flags = options.flags.difference(MsFlags::MS_RDONLY);
    mount(
        Some(wanted.kind.as_str()),
        target,
        Some(wanted.kind.as_str()),
        flags,
        Some(data.join(",").as_str()),
    )
    .map_err(|e| failed(e.into()))?;
    if read_only {
        options::remount(target, MsFlags::MS_RDONLY).map_err(|e| failed(e.into()))?;
    }
    Ok(())
}
