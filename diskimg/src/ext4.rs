//! Empty ext4 templates for writable disks.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::error::{Error, Result};

/// Size of a container's writable disk where nothing else is asked: 64 GiB, of which an empty one takes
/// less than 1 MiB on the host.
pub const DEFAULT_SIZE: u64 = 64 << 30;

/// Changes whenever the options below do, so that an old template is not taken for a new one.
const VERSION: u32 = 1;

/// mke2fs needs some 20 ms; a busy disk may take its time.
const DEADLINE: Duration = Duration::from_secs(60);

/// Named one by one (after `none`), as defaults differ between hosts and the guest's kernel must know them
/// all. No resize_inode: a disk never grows, and it would cost blocks in every clone.
const FEATURES: &str = "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,\
                        huge_file,dir_nlink,extra_isize,metadata_csum";

/// Lazy tables leave the file sparse (guests mount with `noinit_itable`); packing the bitmaps keeps a clone at
/// a few extents.
const EXTENDED: &str = "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1,nodiscard,packed_meta_blocks=1";

/// The empty sparse ext4 of `size` bytes in `dir`, made with `mke2fs` the first time. All templates and
/// clones of one size share a UUID; nothing looks disks up by it.
///
/// # Errors
/// [`Error::MkfsMissing`] without e2fsprogs, [`Error::MkfsFailed`], [`Error::MkfsTimeout`], [`Error::Io`].
pub fn ext4_template(dir: &Path, size: u64) -> Result<PathBuf> {
    let path = dir.join(format!("ext4-v{VERSION}-{size}.img"));
    if path.exists() {
        return Ok(path);
    }
    std::fs::create_dir_all(dir).map_err(Error::io(format!("create {}", dir.display())))?;
    let fail = || Error::io(format!("write disk template {}", path.display()));
    let temp = tempfile::Builder::new().prefix(".ext4-").suffix(".tmp").tempfile_in(dir).map_err(fail())?;
    temp.as_file().set_len(size).map_err(fail())?;
    mke2fs(temp.path())?;
    temp.as_file().sync_all().map_err(fail())?;
    // Two processes may get here at once: the later rename replaces an equal file.
    temp.persist(&path).map_err(|e| fail()(e.error))?;
    Ok(path)
}

fn mke2fs(path: &Path) -> Result<()> {
    let child = Command::new(program())
        .args([
            "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "16384", "-m", "0", "-J", "size=32",
        ])
        .args(["-O", FEATURES, "-E", EXTENDED])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Error::MkfsMissing),
        Err(cause) => return Err(Error::Io { doing: "run mke2fs".into(), cause }),
    };
    let Some(stderr) = output_until_exit(&mut child, DEADLINE) else {
        // It may have ended meanwhile: both calls may fail then.
        let _ = child.kill();
        let _ = child.wait();
        return Err(Error::MkfsTimeout { seconds: DEADLINE.as_secs(), path: path.to_owned() });
    };
    let status = child.wait().map_err(Error::io("wait for mke2fs"))?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::MkfsFailed { status: status.to_string(), stderr: stderr.trim().to_owned() })
    }
}

/// Reads stderr to its end, which comes when the program exits; `None` if that takes too long.
fn output_until_exit(child: &mut Child, deadline: Duration) -> Option<String> {
    let stderr = child.stderr.take()?;
    let (tell, told) = mpsc::channel();
    let read = move || {
        let mut text = Vec::new();
        // A broken pipe ends the output as well; the exit status tells the rest.
        let _ = stderr.take(64 << 10).read_to_end(&mut text);
        let _ = tell.send(String::from_utf8_lossy(&text).into_owned());
    };
    // Not thread::spawn, which panics when the system has no thread left.
    std::thread::Builder::new().spawn(read).ok()?;
    told.recv_timeout(deadline).ok()
}

/// Ordinary users often lack the sbin folders in PATH, and Homebrew keeps e2fsprogs out of it.
fn program() -> PathBuf {
    let known = ["/usr/sbin/mke2fs", "/sbin/mke2fs", "/opt/homebrew/opt/e2fsprogs/sbin/mke2fs"];
    known.into_iter().map(PathBuf::from).find(|path| path.exists()).unwrap_or_else(|| "mke2fs".into())
}
