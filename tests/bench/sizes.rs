//! Sizes of what every VM loads.

use anyhow::{Context, Result};
use tests::cache;

pub(crate) fn bench() -> Result<()> {
    let target = cache::checkout().join("target/x86_64-unknown-linux-musl/guest");
    for path in [
        target.join("arca-init"),
        target.join("arca-helper"),
        cache::current().join("initramfs.cpio"),
        cache::current().join("bzImage"),
        cache::arca(),
    ] {
        match std::fs::metadata(&path) {
            Ok(meta) => {
                println!("{:>12} bytes  {}", meta.len(), path.file_name().context("name")?.to_string_lossy());
            }
            Err(_) => println!("{:>12}        {} is not built", "-", path.display()),
        }
    }
    Ok(())
}
