//! A registry on loopback (Debian's `docker-registry`), filled from the test images.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::docker::finish;

/// A running registry; ends with the value.
#[derive(Debug)]
pub struct Registry {
    /// `127.0.0.1:PORT`
    pub address: String,
    process: Child,
    _dir: tempfile::TempDir,
}

impl Registry {
    /// An empty registry on a free port.
    ///
    /// # Errors
    /// When `docker-registry` is not installed or does not answer within 10 s.
    pub fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        // Another process may take the port between these two lines; the wait below tells.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let config = dir.path().join("config.yml");
        let data = dir.path().join("data");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: {address}}}\n",
                data.display()
            ),
        )?;
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("docker-registry (Debian package of that name)")?;
        let mut registry = Self { address, process, _dir: dir };
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(&registry.address).is_err() {
            if let Some(status) = registry.process.try_wait()? {
                bail!("docker-registry ended: {status}");
            }
            if Instant::now() > deadline {
                bail!("docker-registry does not answer on {}", registry.address);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }

    /// Puts a docker archive into it as `repository:tag`; the reference under which an engine finds it.
    ///
    /// # Errors
    /// When skopeo is missing or fails.
    pub fn push(&self, archive: &Path, repository: &str) -> Result<String> {
        let reference = format!("{}/{repository}", self.address);
        let mut skopeo = Command::new("skopeo");
        let archive: PathBuf = archive.to_owned();
        skopeo
            .args(["copy", "-q", "--insecure-policy", "-f", "v2s2", "--dest-tls-verify=false"])
            .arg(format!("docker-archive:{}", archive.display()))
            .arg(format!("docker://{reference}"));
        let out = finish(skopeo, Vec::new(), Duration::from_secs(120)).context("skopeo")?;
        if out.code != 0 {
            bail!("skopeo copy to {reference}: {}", out.stderr);
        }
        Ok(reference)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
