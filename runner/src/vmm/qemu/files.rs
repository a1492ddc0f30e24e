//! Files that QEMU gets open: it need not, and as another user cannot, open anything of a daemon by its path.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::MetadataExt, net::UnixStream},
    },
    path::Path,
};

use command_fds::FdMapping;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::{Error, VmSpec};

/// Descriptors from which a child's inherited ones are numbered: behind the standard streams.
const FIRST_FD: i32 = 3;

/// Descriptors a child inherits.
#[derive(Debug, Default)]
pub(in crate::vmm) struct Inherited(Vec<OwnedFd>);

impl Inherited {
    /// Adds one; its number in the child.
    pub(in crate::vmm) fn add(&mut self, file: impl Into<OwnedFd>) -> i32 {
        self.0.push(file.into());
        FIRST_FD - 1 + i32::try_from(self.0.len()).unwrap_or(i32::MAX)
    }

    pub(super) fn mappings(self) -> Vec<FdMapping> {
        (FIRST_FD..).zip(self.0).map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd }).collect()
    }
}

/// Numbers of a VM's files in QEMU.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) kernel: i32,
    pub(super) initramfs: i32,
    /// Its end of the connection to the vsock device.
    pub(super) vsock: i32,
    /// Its end of the connection to [`super::monitor`].
    pub(super) monitor: i32,
    /// In the order of the disks.
    pub(super) disks: Vec<i32>,
    /// Bytes of the largest file it may write.
    pub(super) largest: u64,
}

impl Files {
    /// Opens a VM's files. `foreign`: QEMU will not be the user who owns them.
    pub(super) fn open(
        spec: &VmSpec,
        vsock: UnixStream,
        monitor: UnixStream,
        foreign: bool,
    ) -> Result<(Self, Inherited), Error> {
        let mut inherited = Inherited::default();
        let mut files = Self {
            kernel: inherited.add(readable(&spec.kernel, foreign)?),
            initramfs: inherited.add(readable(&spec.initramfs, foreign)?),
            vsock: inherited.add(vsock),
            monitor: inherited.add(monitor),
            ..Self::default()
        };
        for disk in &spec.disks {
            let open = || {
                let file = OpenOptions::new().read(true).write(!disk.readonly).open(&disk.path)?;
                let size = if disk.readonly { 0 } else { file.metadata()?.len() };
                Ok((file, size))
            };
            let (file, size) = open().map_err(Error::file("open the disk", &disk.path))?;
            files.largest = files.largest.max(size);
            files.disks.push(inherited.add(file));
        }
        Ok((files, inherited))
    }
}

/// A file that a foreign user can open again through `/proc/self/fd`: that asks for no path, but for the file's own mode.
pub(in crate::vmm) fn readable(path: &Path, foreign: bool) -> Result<OwnedFd, Error> {
    let open = || -> io::Result<OwnedFd> {
        let mut file = File::open(path)?;
        if !foreign || file.metadata()?.mode() & 0o004 != 0 {
            return Ok(file.into());
        }
        let mut copy = File::from(memfd_create("arca", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        io::copy(&mut file, &mut copy)?;
        fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        // For reading only, as the others are.
        Ok(File::open(format!("/proc/self/fd/{}", copy.as_raw_fd()))?.into())
    };
    open().map_err(Error::file("open", path))
}

/// The name of an inherited file, for a program that wants one.
pub(in crate::vmm) fn name(fd: i32) -> String {
    format!("/proc/self/fd/{fd}")
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_private_file_is_copied_for_a_foreign_user() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        std::fs::write(&path, "kernel").unwrap();
        for (mode, foreign, copied) in [(0o600, true, true), (0o644, true, false), (0o600, false, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let mut file = File::from(readable(&path, foreign).unwrap());
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "kernel");
            assert_eq!(file.metadata().unwrap().ino() != std::fs::metadata(&path).unwrap().ino(), copied);
        }
        assert!(readable(&dir.path().join("none"), true).unwrap_err().to_string().contains("none"));
    }
}
