//! Reading and checking `config.json`: whatever is not understood is refused, with the file, the key and what it may be.

use std::{
    fs::File,
    io::{self, Read},
    ops::RangeInclusive,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use super::{Config, LogLevel, NetworkBackend, parse_size};
use crate::{engine::clock::parse_duration, home::Home};

/// Every key, for the message about an unknown one.
const KEYS: [&str; 13] = [
    "networkBackend",
    "kernelPath",
    "initramfsPath",
    "socketPath",
    "logLevel",
    "registryMirrors",
    "insecureRegistries",
    "dns",
    "defaultCpus",
    "defaultMemory",
    "bootTimeout",
    "maxLayerSize",
    "maxLayerFiles",
];
/// Less does not boot.
const LEAST_MEMORY: u64 = 128 << 20;
/// More bytes of memory than any host has: a typing mistake.
const MOST_MEMORY: u64 = 64 << 40;
/// What the machine model takes.
const MOST_CPUS: u64 = 255;
/// No guest boots in less than the first, nobody waits longer than the second.
const BOOT_TIMEOUTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// Less holds no image's layer; more than ext4 and EROFS were made for is a typing mistake.
const LAYER_SIZES: RangeInclusive<u64> = 1 << 20..=16 << 40;
/// Each file of a layer takes some hundred bytes of memory while it is unpacked.
const LAYER_FILES: RangeInclusive<u64> = 1..=100_000_000;

/// No configuration is longer.
const MOST_BYTES: u64 = 1 << 20;

/// Why `config.json` was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It exists and cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// Everybody may change it.
    #[error("{} may be written by every user: `chmod o-w` it", .0.display())]
    Open(PathBuf),
    /// It is not JSON.
    #[error("{} is not valid JSON", .0.display())]
    Json(PathBuf, #[source] serde_json::Error),
    /// It is JSON, not an object.
    #[error("{}: must be a JSON object, like {{\"logLevel\": \"info\"}}", .0.display())]
    NotAnObject(PathBuf),
    /// A key nobody knows.
    #[error("{}: unknown key {key:?}; allowed keys: {}", .path.display(), KEYS.join(", "))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A value the key cannot have.
    #[error("{}: {key} is {value}; allowed: {allowed}", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What it says, as JSON.
        value: String,
        /// What it may say.
        allowed: &'static str,
    },
}

impl Config {
    /// Reads the configuration of `home`; a missing file is an empty one.
    ///
    /// # Errors
    /// [`ConfigError`]: unreadable, not JSON, an unknown key or a bad value.
    pub fn load(home: &Home) -> Result<Self, ConfigError> {
        let path = home.config();
        let read = || -> io::Result<_> {
            let mut text = Vec::new();
            let file = File::open(&path)?;
            let found = file.metadata()?;
            file.take(MOST_BYTES).read_to_end(&mut text)?;
            Ok((text, found))
        };
        match read() {
            // It names the kernel of all VMs.
            Ok((_, found)) if found.mode() & 0o002 != 0 => Err(ConfigError::Open(path)),
            Ok((text, _)) => Self::parse(&path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(ConfigError::Read(path, error)),
        }
    }

    /// Checks the text of a configuration; `path` is for messages and for relative paths in it.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, ConfigError> {
        let value: Value = serde_json::from_slice(text).map_err(|e| ConfigError::Json(path.to_owned(), e))?;
        let Value::Object(object) = value else { return Err(ConfigError::NotAnObject(path.to_owned())) };
        let mut config = Self::default();
        for (key, value) in &object {
            config.set(path, key, value)?;
        }
        Ok(config)
    }

    fn set(&mut self, file: &Path, key: &str, value: &Value) -> Result<(), ConfigError> {
        let bad = |allowed| ConfigError::Value {
            path: file.to_owned(),
            key: key.to_owned(),
            value: value.to_string(),
            allowed,
        };
        let a_path = || absolute(file, value).ok_or_else(|| bad("a path; ~ is the home folder"));
        match key {
            "networkBackend" => {
                self.network_backend = match value.as_str() {
                    Some("ovs") => NetworkBackend::Ovs,
                    Some("vmnet") => NetworkBackend::Vmnet,
                    _ => return Err(bad("\"ovs\", \"vmnet\"")),
                }
            }
            "kernelPath" => self.kernel_path = Some(a_path()?),
            "initramfsPath" => self.initramfs_path = Some(a_path()?),
            "socketPath" => {
                let path = a_path()?;
                if path.as_os_str().len() > 100 {
                    return Err(bad("a path of at most 100 bytes (sockaddr_un)"));
                }
                self.socket_path = Some(path);
            }
            "logLevel" => {
                let levels = [LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error];
                self.log_level = levels
                    .into_iter()
                    .find(|l| value.as_str() == Some(l.as_str()))
                    .ok_or_else(|| bad("\"debug\", \"info\", \"warn\", \"error\""))?;
            }
            "registryMirrors" => {
                self.registry_mirrors = strings(value)
                    .filter(|all| all.iter().all(|m| m.starts_with("http://") || m.starts_with("https://")))
                    .ok_or_else(|| bad("a list of URLs that begin with http:// or https://"))?;
            }
            "insecureRegistries" => {
                self.insecure_registries = strings(value)
                    .filter(|all| all.iter().all(|r| !r.is_empty() && !r.contains("://")))
                    .ok_or_else(|| bad("a list of host[:port], without http://"))?;
            }
            "dns" => {
                self.dns = strings(value)
                    .and_then(|all| all.iter().map(|ip| ip.parse().ok()).collect())
                    .ok_or_else(|| bad("a list of IP addresses"))?;
            }
            "defaultCpus" => {
                let cpus = value.as_u64().filter(|n| (1..=MOST_CPUS).contains(n));
                self.default_cpus = Some(
                    cpus.and_then(|n| u32::try_from(n).ok()).ok_or_else(|| bad("a number from 1 to 255"))?,
                );
            }
            "defaultMemory" => {
                self.default_memory =
                    size(value).filter(|n| (LEAST_MEMORY..=MOST_MEMORY).contains(n)).ok_or_else(|| {
                        bad("a size like \"4g\" or \"512m\", or a number of bytes; at least 128m")
                    })?;
            }
            "bootTimeout" => {
                self.boot_timeout = value
                    .as_u64()
                    .map(Duration::from_secs)
                    .or_else(|| value.as_str().and_then(parse_duration))
                    .filter(|time| BOOT_TIMEOUTS.contains(time))
                    .ok_or_else(|| bad("a number of seconds, or a duration like \"90s\"; from 1s to 1h"))?;
            }
            "maxLayerSize" => {
                self.max_layer_size = size(value)
                    .filter(|n| LAYER_SIZES.contains(n))
                    .ok_or_else(|| bad("a size like \"20g\", or a number of bytes; from 1m to 16t"))?;
            }
            "maxLayerFiles" => {
                self.max_layer_files = value
                    .as_u64()
                    .filter(|n| LAYER_FILES.contains(n))
                    .ok_or_else(|| bad("a number from 1 to 100000000"))?;
            }
            _ => return Err(ConfigError::UnknownKey { path: file.to_owned(), key: key.to_owned() }),
        }
        Ok(())
    }
}

/// Bytes as a number, or as people write them.
fn size(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str().and_then(parse_size))
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|v| v.as_str().map(str::to_owned)).collect()
}

/// `~` expanded; relative paths count from the configuration's folder.
fn absolute(file: &Path, value: &Value) -> Option<PathBuf> {
    let text = value.as_str().filter(|t| !t.is_empty())?;
    let path = match text.strip_prefix('~') {
        Some("") => PathBuf::from(std::env::var_os("HOME")?),
        Some(rest) => PathBuf::from(std::env::var_os("HOME")?).join(rest.strip_prefix('/')?),
        None => file.parent().unwrap_or(Path::new("/")).join(text),
    };
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("/h/config.json"), text.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn missing_file_is_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path()).unwrap();
        assert_eq!(Config::load(&home).unwrap(), Config::default());
        std::fs::write(home.config(), "{}").unwrap();
        assert_eq!(Config::load(&home).unwrap(), Config::default());
    }

    #[test]
    fn all_keys_are_read() {
        let config = parse(
            r#"{"networkBackend":"vmnet","kernelPath":"/k","initramfsPath":"~/i","socketPath":"s.sock","logLevel":"warn",
            "registryMirrors":["http://127.0.0.1:5000"],"insecureRegistries":["10.0.0.1:5000"],"dns":["1.1.1.1","::1"],
            "defaultCpus":3,"defaultMemory":"4g","bootTimeout":"1m30s","maxLayerSize":"20g","maxLayerFiles":5000}"#,
        )
        .unwrap();
        assert_eq!(config.network_backend, NetworkBackend::Vmnet);
        assert_eq!(config.kernel_path.as_deref(), Some(Path::new("/k")));
        let home = std::env::var_os("HOME").unwrap();
        assert_eq!(config.initramfs_path, Some(PathBuf::from(home).join("i")));
        assert_eq!(config.socket_path.as_deref(), Some(Path::new("/h/s.sock")));
        assert_eq!(config.log_level, LogLevel::Warn);
        assert_eq!((config.dns.len(), config.default_cpus, config.default_memory), (2, Some(3), 4 << 30));
        assert_eq!(config.boot_timeout, Duration::from_secs(90));
        let limits = config.layer_limits();
        assert_eq!((limits.max_bytes, limits.max_inodes, limits.max_entries), (20 << 30, 5000, 20_000));
    }

    #[test]
    fn refusals_name_file_key_and_allowed_values() {
        for (text, want) in [
            (
                r#"{"kernel":"/k"}"#,
                r#"/h/config.json: unknown key "kernel"; allowed keys: networkBackend, kernelPath"#,
            ),
            (
                r#"{"logLevel":"loud"}"#,
                r#"/h/config.json: logLevel is "loud"; allowed: "debug", "info", "warn", "error""#,
            ),
            (r#"{"networkBackend":null}"#, r#"networkBackend is null; allowed: "ovs", "vmnet""#),
            (r#"{"defaultCpus":0}"#, "defaultCpus is 0; allowed: a number from 1 to 255"),
            (r#"{"defaultMemory":"4x"}"#, r#"defaultMemory is "4x"; allowed: a size"#),
            (r#"{"defaultMemory":1024}"#, "at least 128m"),
            (r#"{"dns":["nine"]}"#, "allowed: a list of IP addresses"),
            (r#"{"registryMirrors":"http://x"}"#, "registryMirrors is"),
            (r#"{"kernelPath":"~other/k"}"#, "kernelPath is"),
            (r#"{"bootTimeout":0}"#, "bootTimeout is 0; allowed: a number of seconds"),
            (r#"{"bootTimeout":-1}"#, "bootTimeout is -1"),
            (r#"{"bootTimeout":"10"}"#, r#"bootTimeout is "10""#),
            (r#"{"bootTimeout":"2h"}"#, "from 1s to 1h"),
            (r#"{"bootTimeout":1e300}"#, "bootTimeout is"),
            (r#"{"maxLayerSize":"1k"}"#, "from 1m to 16t"),
            (r#"{"maxLayerSize":18446744073709551615}"#, "from 1m to 16t"),
            (r#"{"maxLayerFiles":0}"#, "maxLayerFiles is 0; allowed: a number from 1 to"),
            (r#"{"maxLayerFiles":"many"}"#, "maxLayerFiles is"),
            ("[]", "/h/config.json: must be a JSON object"),
            ("{", "/h/config.json is not valid JSON"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
