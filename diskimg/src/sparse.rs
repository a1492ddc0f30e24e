//! Sparse copies of disk templates.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Error, Result};

/// Copies `template` to the new file `dest` (mode 0600), sharing or skipping what needs no space. Some
/// milliseconds for an empty ext4: a reflink where the file system has it, else only the allocated ranges.
///
/// # Errors
/// [`Error::Io`]; `dest` is removed again then. An existing `dest` is an error.
pub fn clone_sparse(template: &Path, dest: &Path) -> Result<()> {
    let from =
        File::open(template).map_err(Error::io(format!("open disk template {}", template.display())))?;
    let to = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(dest)
        .map_err(Error::io(format!("create disk {}", dest.display())))?;
    copy(&from, &to).map_err(|cause| {
        // The copy's own error matters more than a failed clean-up.
        let _ = fs::remove_file(dest);
        Error::Io { doing: format!("copy disk template to {}", dest.display()), cause }
    })
}

#[cfg(target_os = "linux")]
fn copy(from: &File, to: &File) -> io::Result<()> {
    use rustix::fs::{SeekFrom, seek};
    use rustix::io::Errno;

    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let size = from.metadata()?.len();
    to.set_len(size)?;
    let mut at = 0;
    while at < size {
        let start = match seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // No data behind this point.
            Err(Errno::NXIO) => break,
            Err(e) => return Err(e.into()),
        };
        let end = seek(from, SeekFrom::Hole(start))?;
        copy_range(from, to, start, end)?;
        at = end;
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    use rustix::io::Errno;

    let mut at = start;
    while at < end {
        let (mut read_at, mut write_at) = (at, at);
        let want = usize::try_from(end - at).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), want) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "template shrank")),
            Ok(n) => at += n as u64,
            Err(Errno::INTR) => {}
            // Across file systems, or on one that does not know the call.
            Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => {
                return copy_by_hand(from, to, at, end);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn copy_by_hand(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;

    let mut buf = vec![0; 1 << 20];
    let mut at = start;
    while at < end {
        let want = buf.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        from.read_exact_at(&mut buf[..want], at)?;
        to.write_all_at(&buf[..want], at)?;
        at += want as u64;
    }
    Ok(())
}

/// Elsewhere (macOS) blocks of zeros are skipped by looking at them.
#[cfg(not(target_os = "linux"))]
fn copy(from: &File, to: &File) -> io::Result<()> {
    use std::io::Read;
    use std::os::unix::fs::FileExt;

    to.set_len(from.metadata()?.len())?;
    let mut from = from;
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let n = from.read(&mut buf)?;
        if n == 0 {
            return Ok(());
        }
        if buf[..n].iter().any(|&b| b != 0) {
            to.write_all_at(&buf[..n], at)?;
        }
        at += n as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn clone_is_equal_and_sparse() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let file = File::create(&a).unwrap();
        file.set_len(1 << 30).unwrap();
        file.write_all_at(b"start", 0).unwrap();
        file.write_all_at(b"middle", 500 << 20).unwrap();
        clone_sparse(&a, &b).unwrap();
        let copy = File::open(&b).unwrap();
        let meta = copy.metadata().unwrap();
        assert_eq!(meta.len(), 1 << 30);
        assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
        assert_eq!(meta.mode() & 0o777, 0o600);
        let mut buf = [0; 6];
        copy.read_exact_at(&mut buf, 500 << 20).unwrap();
        assert_eq!(&buf, b"middle");
        copy.read_exact_at(&mut buf[..5], 0).unwrap();
        assert_eq!(&buf[..5], b"start");
    }

    #[test]
    fn existing_destination_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, "new").unwrap();
        fs::write(&b, "old").unwrap();
        let err = clone_sparse(&a, &b).unwrap_err();
        assert!(matches!(err, Error::Io { .. }), "{err}");
        assert_eq!(fs::read(&b).unwrap(), b"old");
    }
}
