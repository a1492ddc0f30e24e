//! Masked and read-only paths (OCI runtime-spec, "maskedPaths" and "readonlyPaths"). A path that is not there is skipped.

use std::{fs, path::Path};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
};

use super::{failure::Failure, options};

/// Covers them.
pub(super) fn apply(masked: &[String], readonly: &[String]) -> Result<(), Failure> {
    let none = None::<&str>;
    for path in readonly {
        match mount(Some(path.as_str()), path.as_str(), none, MsFlags::MS_BIND | MsFlags::MS_REC, none) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
            other => other.map_err(|e| Failure::setup(format_args!("bind {path}"), e))?,
        }
        options::remount(Path::new(path), MsFlags::MS_RDONLY)
            .map_err(|e| Failure::setup(format_args!("make {path} read-only"), e))?;
    }
    for path in masked {
        let Ok(meta) = fs::metadata(path) else { continue };
        let result = if meta.is_dir() {
            mount(Some("tmpfs"), path.as_str(), Some("tmpfs"), MsFlags::MS_RDONLY, Some("size=0k"))
        } else {
            mount(Some("/dev/null"), path.as_str(), none, MsFlags::MS_BIND, none)
        };
        result.map_err(|e| Failure::setup(format_args!("mask {path}"), e))?;
    }
    Ok(())
}
