//! The folder of one daemon: configuration and all state. One daemon, one `ARCA_HOME`; several run side by side.

use std::{
    fs::{self, DirBuilder, Metadata},
    io,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink},
        prelude::OsStrExt,
    },
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// Longest run folder that leaves room for `/<12 hex>/runner.sock` in a `sockaddr_un` (108 bytes, unix(7); 104 on macOS).
const MAX_RUN_DIR: usize = 70;
/// Longest path of a socket.
pub(crate) const MAX_SOCKET: usize = 100;
/// Longest home that leaves room for the log of a container (4096 bytes, and names of 64 in it twice).
const MAX_ROOT: usize = 3800;

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
    /// When the current folder is gone and `root` is relative, or for a path that cannot be passed on.
    pub fn new(root: &Path) -> io::Result<Self> {
        let refuse = |why: &str| {
            let text = format!("ARCA_HOME {root:?} {why}: set it to another folder");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        };
        // It is shown to users and passed on in JSON.
        match root.to_str() {
            None => return Err(refuse("is not UTF-8")),
            Some(text) if text.contains(|c: char| c.is_control()) => {
                return Err(refuse("has a control character in it"));
            }
            Some(_) => {}
        }
        let root = std::path::absolute(root).map_err(|e| {
            io::Error::new(
                e.kind(),
                format!("ARCA_HOME {root:?} counts from the current folder, which is gone: {e}"),
            )
        })?;
        if root.as_os_str().len() > MAX_ROOT {
            let text = format!("ARCA_HOME is longer than {MAX_ROOT} bytes: set it to another folder");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let own = root.join("run");
        // The link that `furnish` made for a deep home.
        let run = fs::read_link(&own).ok().filter(|target| target.is_absolute()).unwrap_or(own);
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

    /// Makes the folder itself (0700: container data is private), and makes sure that nobody else can put anything there.
    ///
    /// # Errors
    /// When it cannot be made, or is another user's, or may be written by everybody.
    pub fn create(&self) -> Result<()> {
        let root = self.root.display();
        if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(&self.root) {
            let text = match fs::read_link(&self.root) {
                Ok(target) if !self.root.exists() => format!(
                    "ARCA_HOME {root} is a symbolic link to {}, which is not there: make that folder, or set ARCA_HOME to \
                     another",
                    target.display()
                ),
                _ if self.root.exists() => {
                    format!("ARCA_HOME {root} is not a folder: set ARCA_HOME to another")
                }
                _ => format!("cannot make the folder {root}: {error}; {}", advice(&error)),
            };
            return Err(Error::system(text).because(error));
        }
        let found = fs::metadata(&self.root).map_err(|e| unusable(&self.root, e))?;
        let me = nix::unistd::geteuid().as_raw();
        if found.uid() != me {
            let text = format!(
                "ARCA_HOME {root} belongs to user {}, this is user {me}: run arca as that user, or set ARCA_HOME to another \
                 folder",
                found.uid()
            );
            return Err(Error::system(text));
        }
        refuse_writable(&self.root, &found, "ARCA_HOME")
    }

    /// Makes the folders in it. Only the daemon that holds the lock may: the run folder of a deep home is chosen here.
    ///
    /// # Errors
    /// When a folder cannot be made.
    pub fn furnish(&mut self) -> Result<()> {
        for dir in [self.images(), self.containers(), self.templates()] {
            make_private(&dir)?;
        }
        let own = self.root.join("run");
        if own.as_os_str().len() <= MAX_RUN_DIR {
            self.run = own;
            return make_private(&self.run);
        }
        // A deep home: sockets live in a short folder, which a link in the home names. The name is random and the folder is
        // checked at each start: /tmp is everybody's.
        if self.run == own || !is_private(&self.run) {
            let failed = |e: io::Error| unusable(&own, e);
            self.run = short_folder().map_err(|error| {
                let text = "cannot make a short folder for the sockets of a deep ARCA_HOME: set ARCA_HOME to a shorter path";
                Error::system(text).because(error)
            })?;
            match fs::remove_file(&own) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => symlink(&self.run, &own).map_err(failed)?,
            }
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

    /// The API socket unless the configuration names another. That of a deep home is known once a daemon has run.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        let path = self.root.join("arca.sock");
        if path.as_os_str().len() <= MAX_SOCKET { path } else { self.run.join("arca.sock") }
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

/// Refuses what every user of the host may change.
pub(crate) fn refuse_writable(path: &Path, found: &Metadata, what: &str) -> Result<()> {
    if found.mode() & 0o002 == 0 {
        return Ok(());
    }
    let text = format!(
        "{what} {} may be written by every user (mode {:o}): `chmod o-w` it, or use another",
        path.display(),
        found.mode() & 0o7777
    );
    Err(Error::system(text))
}

/// What a user can do about an error of the file system.
pub(crate) fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space on that disk",
        io::ErrorKind::ReadOnlyFilesystem => {
            "make that file system writable, or set ARCA_HOME to a folder on another"
        }
        io::ErrorKind::PermissionDenied => "run as the user that may, or set ARCA_HOME to another folder",
        io::ErrorKind::Unsupported => "set ARCA_HOME to a folder on a local disk",
        io::ErrorKind::FileTooLarge => "raise the limit of file sizes (`ulimit -f unlimited`)",
        _ => "set ARCA_HOME to another folder",
    }
}

/// The error for a path of the home that cannot be used.
pub(crate) fn unusable(path: &Path, error: io::Error) -> Error {
    Error::system(format!("cannot use {}: {error}; {}", path.display(), advice(&error))).because(error)
}

/// A folder of this user only; one that is more open is closed.
fn make_private(dir: &Path) -> Result<()> {
    let make = || -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        if fs::metadata(dir)?.mode() & 0o077 != 0 {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        }
        Ok(())
    };
    make().map_err(|e| unusable(dir, e))
}

/// Whether it is a folder, no link, of this user and nobody else's business.
fn is_private(dir: &Path) -> bool {
    let me = nix::unistd::geteuid().as_raw();
    fs::symlink_metadata(dir).is_ok_and(|m| m.is_dir() && m.uid() == me && m.mode() & 0o077 == 0)
}

/// A new folder with a random short name in `XDG_RUNTIME_DIR`, else in `/tmp`.
fn short_folder() -> io::Result<PathBuf> {
    let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let session =
        session.filter(|dir| dir.is_absolute() && dir.as_os_str().as_bytes().len() < MAX_RUN_DIR - 20);
    let session = session.filter(|dir| is_private(dir));
    let mut private = tempfile::Builder::new();
    private.prefix("arca-").permissions(fs::Permissions::from_mode(0o700));
    let make = |dir: &Path| Ok(private.tempdir_in(dir)?.keep());
    session.map_or_else(|| make(Path::new("/tmp")), |dir| make(&dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deep(dir: &Path) -> Home {
        let root = dir.join("d".repeat(120));
        let mut home = Home::new(&root).unwrap();
        home.create().unwrap();
        home.furnish().unwrap();
        home
    }

    #[test]
    fn sockets_of_a_deep_home_stay_short_and_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let home = deep(dir.path());
        let socket = home.vm_run(&"a".repeat(64)).join("runner.sock");
        assert!(socket.as_os_str().len() < 104, "{}", socket.display());
        assert!(home.socket().as_os_str().len() < 104);
        let again = Home::new(home.root()).unwrap();
        assert_eq!((again.run(), again.socket()), (home.run(), home.socket()));
        fs::remove_dir_all(home.run()).unwrap();
    }

    /// SPEC E12
    #[test]
    fn a_short_folder_that_another_made_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let mut home = deep(dir.path());
        let first = home.run().to_owned();
        // After a reboot somebody else makes it anew, open to all; or as a link to where he may write.
        fs::set_permissions(&first, fs::Permissions::from_mode(0o777)).unwrap();
        home.furnish().unwrap();
        let second = home.run().to_owned();
        assert_ne!(second, first);
        fs::remove_dir(&second).unwrap();
        symlink(&first, &second).unwrap();
        home.furnish().unwrap();
        let third = home.run().to_owned();
        assert!(third != first && third != second);
        assert_eq!(Home::new(home.root()).unwrap().run(), third);
        assert_eq!(fs::metadata(&third).unwrap().mode() & 0o777, 0o700);
        for path in [first, third] {
            fs::remove_dir(path).unwrap();
        }
        fs::remove_file(second).unwrap();
    }

    #[test]
    fn two_deep_homes_do_not_share_a_run_folder() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (deep(&dir.path().join("a")), deep(&dir.path().join("b")));
        assert_ne!(one.run(), other.run());
        for home in [one, other] {
            fs::remove_dir(home.run()).unwrap();
        }
    }

    /// SPEC E11
    #[test]
    fn a_home_that_is_none_is_refused_with_what_to_do() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "").unwrap();
        symlink("/nowhere/at/all", path("link")).unwrap();
        fs::create_dir(path("open")).unwrap();
        fs::set_permissions(path("open"), fs::Permissions::from_mode(0o777)).unwrap();
        for (root, words) in [
            (path("file"), "is not a folder"),
            (path("file").join("below"), "cannot make the folder"),
            (path("link"), "symbolic link to /nowhere/at/all, which is not there"),
            (path("open"), "may be written by every user (mode 777)"),
        ] {
            let error = Home::new(&root).unwrap().create().unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("another"), "{error}");
        }
        let raw = std::ffi::OsStr::from_bytes(b"/tmp/\xff");
        for (root, words) in [
            (Path::new("/tmp/a\nb"), "control character"),
            (Path::new(raw), "not UTF-8"),
            (Path::new(&format!("/{}", "x/".repeat(2000))), "longer than"),
        ] {
            let error = Home::new(root).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("another folder"), "{error}");
        }
    }

    #[test]
    fn folders_that_were_opened_are_closed() {
        let dir = tempfile::tempdir().unwrap();
        let mut home = Home::new(dir.path()).unwrap();
        home.create().unwrap();
        home.furnish().unwrap();
        fs::set_permissions(home.containers(), fs::Permissions::from_mode(0o755)).unwrap();
        home.furnish().unwrap();
        assert_eq!(fs::metadata(home.containers()).unwrap().mode() & 0o777, 0o700);
    }
}
