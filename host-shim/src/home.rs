//! The folder of one daemon: configuration and all state. One daemon, one `ARCA_HOME`; several run side by side.

use std::{
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// Longest run folder that leaves room for `/<12 hex>/runner.sock` in a `sockaddr_un` (108 bytes, unix(7); 104 on macOS).
const MAX_RUN_DIR: usize = 70;

/// Paths of one `ARCA_HOME`.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
    run: PathBuf,
}

impl Home {
    /// The home at `root` (made absolute). Nothing is touched yet.
    ///
    /// # Errors
    /// When the current folder is gone and `root` is relative.
    pub fn new(root: &Path) -> io::Result<Self> {
        let root = std::path::absolute(root)?;
        let run = root.join("run");
        let run = if run.as_os_str().len() <= MAX_RUN_DIR {
            run
        } else {
            // A deep home: sockets live in a short folder named after it.
            let hash = Sha256::digest(root.as_os_str().as_encoded_bytes());
            let short: String = hash[..6].iter().map(|b| format!("{b:02x}")).collect();
            PathBuf::from(format!("/tmp/arca-{}-{short}", nix::unistd::getuid()))
        };
        Ok(Self { root, run })
    }

    /// `ARCA_HOME` of the environment, else `~/.arca`.
    ///
    /// # Errors
    /// When neither `ARCA_HOME` nor `HOME` is set.
    pub fn from_env() -> io::Result<Self> {
        if let Some(root) = std::env::var_os("ARCA_HOME").filter(|v| !v.is_empty()) {
            return Self::new(Path::new(&root));
        }
        let home = std::env::var_os("HOME").filter(|v| !v.is_empty()).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "neither ARCA_HOME nor HOME is set: set ARCA_HOME to a folder",
            )
        })?;
        Self::new(&Path::new(&home).join(".arca"))
    }

    /// Makes the folders (0700: container data is private).
    ///
    /// # Errors
    /// When a folder cannot be made.
    pub fn create(&self) -> io::Result<()> {
        for dir in [&self.root, &self.run, &self.images(), &self.containers(), &self.templates()] {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        Ok(())
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `config.json`
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.root.join("config.json")
    }

    /// Lock held by the living daemon; holds its pid.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.root.join("daemon.lock")
    }

    /// The daemon's log when it was started in the background.
    #[must_use]
    pub fn daemon_log(&self) -> PathBuf {
        self.root.join("daemon.log")
    }

    /// The API socket unless the configuration names another.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.root.join("arca.sock")
    }

    /// The daemon's database.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.root.join("store.redb")
    }

    /// Root of the image store.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Empty writable disks that new containers' disks are cloned from.
    #[must_use]
    pub fn templates(&self) -> PathBuf {
        self.root.join("templates")
    }

    /// Folders of all containers.
    #[must_use]
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// Durable folder of one container: writable disk, log, exit record.
    #[must_use]
    pub fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// Folder of the runtime sockets of all VMs.
    #[must_use]
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Runtime folder of one VM: sockets and the runner's lock.
    #[must_use]
    pub fn vm_run(&self, vm_id: &str) -> PathBuf {
        self.run.join(vm_id.get(..12).unwrap_or(vm_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_a_deep_home_stay_short() {
        let deep = PathBuf::from(format!("/{}", "d".repeat(120)));
        let id = "a".repeat(64);
        for root in [Path::new("/h/.arca"), deep.as_path()] {
            let socket = Home::new(root).unwrap().vm_run(&id).join("runner.sock");
            assert!(socket.as_os_str().len() < 104, "{}", socket.display());
        }
    }

    #[test]
    fn two_deep_homes_do_not_share_a_run_folder() {
        let a = Home::new(Path::new(&format!("/{}", "a".repeat(120)))).unwrap();
        let b = Home::new(Path::new(&format!("/{}", "b".repeat(120)))).unwrap();
        assert_ne!(a.run(), b.run());
    }
}
