//! A container's root: layer disks, writable disk, overlay, and the files that Arca manages.
//!
//! ```text
//! /run/c/<n>/l/<i>    layer i, lowest first (EROFS, read-only)
//!            rw       writable disk (ext4) or tmpfs, with upper/ and work/
//!            root     the overlay
//!            shm      /dev/shm
//!            files/i  contents of managed files
//! ```
//! Short names: the options of a mount fit in one page, and 127 layers are named in them.

use std::{
    fs, io,
    ops::Range,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use proto::sandbox::{ManagedFile, PrepareRequest};

use super::{
    disks::{self, DiskError},
    spare,
};
use crate::{log, sys::inroot};

/// Folder of all containers.
const BASE: &str = "/run/c";
/// For a disk that is being plugged in.
const DISK_WAIT: Duration = Duration::from_secs(10);
/// For the last mount of a dead container.
const RELEASE_WAIT: Duration = Duration::from_secs(2);
/// docker's default for /dev/shm.
const SHM_SIZE: u64 = 64 << 20;
/// Most layers: more do not fit in a page of options.
const MAX_LAYERS: usize = 200;

/// A root that could not be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootError {
    /// A disk is missing.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The chain must be merged by the host.
    #[error("{0} layers are too many, {MAX_LAYERS} can be stacked")]
    TooManyLayers(usize),
    /// A system call failed.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
}

fn at(step: impl std::fmt::Display) -> impl FnOnce(io::Error) -> RootError {
    let step = step.to_string();
    move |error| RootError::Io(step, error)
}

/// Whether a layer's root hides everything below it (kernel: Documentation/filesystems/overlayfs.rst).
fn is_opaque(layer: &Path) -> bool {
    let mut value = [0; 1];
    rustix::fs::getxattr(layer, "trusted.overlay.opaque", &mut value).is_ok() && value == *b"y"
}

/// The mounted root of one container.
#[derive(Debug)]
pub(crate) struct Root {
    base: PathBuf,
    /// Those of the image that show, by number.
    layers: Range<usize>,
    writable: Option<PathBuf>,
}

impl Root {
    /// Mounts everything. What was mounted is unmounted again when a step fails.
    pub(crate) fn build(number: u64, request: &PrepareRequest) -> Result<Self, RootError> {
        let rootfs = request.rootfs.clone().unwrap_or_default();
        if rootfs.lower.len() > MAX_LAYERS {
            return Err(RootError::TooManyLayers(rootfs.lower.len()));
        }
        let base = Path::new(BASE).join(number.to_string());
        let mut root = Self { base, layers: 0..rootfs.lower.len(), writable: None };
        let built = root.mount_all(&rootfs, request);
        if built.is_err() {
            root.unmount();
        }
        built.map(|()| root)
    }

    fn mount_all(
        &mut self,
        rootfs: &proto::sandbox::Rootfs,
        request: &PrepareRequest,
    ) -> Result<(), RootError> {
        for (index, serial) in rootfs.lower.iter().enumerate() {
            let device = disks::find(serial, DISK_WAIT)?;
            self.mount(
                &device,
                &format!("l/{index}"),
                "erofs",
                MsFlags::MS_RDONLY | MsFlags::MS_NOATIME,
                "",
            )?;
        }
        if rootfs.writable.is_empty() {
            self.mount(Path::new("tmpfs"), "rw", "tmpfs", MsFlags::empty(), "mode=0755")?;
        } else {
            let device = disks::find(&rootfs.writable, DISK_WAIT)?;
            self.mount(&device, "rw", "ext4", MsFlags::MS_NOATIME, "noinit_itable")?;
            self.writable = Some(device);
        }
        // overlayfs does not heed an opaque mark on the root of a layer: what lies below it is left out here.
        if let Some(opaque) =
            self.layers.clone().rev().find(|index| is_opaque(&self.base.join(format!("l/{index}"))))
        {
            self.layers.start = opaque;
        }
        let rw = self.base.join("rw");
        let folders = || {
            ["rw/upper", "rw/work", "l/empty"].iter().try_for_each(|f| fs::create_dir_all(self.base.join(f)))
        };
        folders().map_err(at("folders of the overlay"))?;
        // The first of lowerdir is the topmost.
        let mut lower: Vec<String> = self.lowers().iter().rev().map(|l| l.display().to_string()).collect();
        if lower.is_empty() {
            lower.push(self.base.join("l/empty").display().to_string());
        }
        let options =
            format!("lowerdir={},upperdir={1}/upper,workdir={1}/work", lower.join(":"), rw.display());
        let overlay = || self.mount(Path::new("overlay"), "root", "overlay", MsFlags::empty(), &options);
        match overlay() {
            Err(RootError::Io(_, error))
                if error.raw_os_error() == Some(libc::ENOSPC) && spare::release(&rw) =>
            {
                overlay()?;
            }
            result => result?,
        }
        if self.writable.is_some() {
            spare::keep(&rw);
        }
        let size = if request.shm_size == 0 { SHM_SIZE } else { request.shm_size };
        let secure = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
        self.mount(Path::new("shm"), "shm", "tmpfs", secure, &format!("mode=1777,size={size}"))?;
        let fd = inroot::open_root(&self.path()).map_err(|e| RootError::Io("open root".into(), e.into()))?;
        for folder in &request.directories {
            inroot::make_dirs(&fd, Path::new(folder))
                .map_err(|e| at(format_args!("directory {folder}"))(e.into()))?;
        }
        for (index, file) in request.managed_files.iter().enumerate() {
            self.manage(&fd, index, file).map_err(at(format_args!("managed file {}", file.target)))?;
        }
        Ok(())
    }

    fn mount(
        &self,
        source: &Path,
        name: &str,
        kind: &str,
        flags: MsFlags,
        data: &str,
    ) -> Result<(), RootError> {
        let target = self.base.join(name);
        let step = || format!("mount {} ({kind}) as {name}", source.display());
        fs::create_dir_all(&target).map_err(at(step()))?;
        mount(Some(source), &target, Some(kind), flags, Some(data)).map_err(|e| at(step())(e.into()))
    }

    /// Binds a managed file over its target in the root.
    fn manage(&self, root: &OwnedFd, index: usize, file: &ManagedFile) -> io::Result<()> {
        let folder = self.base.join("files");
        fs::create_dir_all(&folder)?;
        let source = folder.join(index.to_string());
        fs::write(&source, &file.content)?;
        fs::set_permissions(&source, fs::Permissions::from_mode(file.mode & 0o7777))?;
        let target = inroot::make_file(root, Path::new(&file.target), 0o755)?;
        let none = None::<&str>;
        Ok(mount(Some(&source), &inroot::proc_path(&target), none, MsFlags::MS_BIND, none)?)
    }

    /// The root directory.
    pub(crate) fn path(&self) -> PathBuf {
        self.base.join("root")
    }

    /// Mount point of /dev/shm.
    pub(crate) fn shm(&self) -> PathBuf {
        self.base.join("shm")
    }

    /// The directory with what differs from the image.
    pub(crate) fn upper(&self) -> PathBuf {
        self.base.join("rw/upper")
    }

    /// The layers, lowest first.
    pub(crate) fn lowers(&self) -> Vec<PathBuf> {
        self.layers.clone().map(|index| self.base.join(format!("l/{index}"))).collect()
    }

    /// Unmounts everything, the newest mount first, and waits until the writable disk is clean. Goes on after errors.
    pub(crate) fn unmount(&self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let prefix = format!("{}/", self.base.display());
        // mountinfo(5): the fifth word is the mount point, and later mounts come later.
        let ours =
            mounts.lines().rev().filter_map(|line| line.split(' ').nth(4)).filter(|p| p.starts_with(&prefix));
        for point in ours {
            if let Err(error) = umount2(point, MntFlags::empty()) {
                log::debug!("unmount {point}: {error}");
                let _ = umount2(point, MntFlags::MNT_DETACH);
            }
        }
        if let Some(device) = &self.writable
            && !disks::released(device, RELEASE_WAIT)
        {
            log::warning!("{} is still in use after {RELEASE_WAIT:?}", device.display());
        }
        // Plain folders and contents of managed files only; a mount that stayed is not entered.
        let _ = fs::remove_dir_all(self.base.join("files"));
        for folder in ["root", "shm", "rw", "l/empty"] {
            let _ = fs::remove_dir(self.base.join(folder));
        }
        for lower in self.lowers() {
            let _ = fs::remove_dir(lower);
        }
        let _ = fs::remove_dir(self.base.join("l"));
        let _ = fs::remove_dir(&self.base);
    }
}
