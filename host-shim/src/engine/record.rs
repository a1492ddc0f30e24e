//! The durable truth about one container: what the store keeps.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    clock,
    model::{Config, HostConfig},
};

/// Version of the stored form; raised when an older daemon could misread it.
pub const VERSION: u32 = 1;

/// Docker's seven states.
///
/// ```text
/// created -> running            start
/// running <-> paused            pause, unpause
/// running, paused -> exited     the main process ended, or its VM was lost
/// exited -> running             start again
/// running <-> restarting        a restart policy waits (a later release)
/// any but running -> removing   rm; -> dead when that failed halfway
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Made, never successfully started.
    #[default]
    Created,
    /// Its main process runs.
    Running,
    /// Frozen.
    Paused,
    /// A restart policy waits to start it again.
    Restarting,
    /// Being removed.
    Removing,
    /// Its main process ended.
    Exited,
    /// Could not be removed completely.
    Dead,
}

impl Status {
    /// All of them, for filters.
    pub const ALL: [Self; 7] = [
        Self::Created,
        Self::Running,
        Self::Paused,
        Self::Restarting,
        Self::Removing,
        Self::Exited,
        Self::Dead,
    ];

    /// Docker's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }

    /// Whether a main process exists (frozen or not).
    #[must_use]
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }

    /// Whether the transition is one of those above.
    #[must_use]
    pub fn can_become(self, next: Self) -> bool {
        use Status::{Created, Dead, Exited, Paused, Removing, Restarting, Running};
        match next {
            Created => false,
            Running => matches!(self, Created | Exited | Paused | Restarting),
            Paused => self == Running,
            Restarting => self == Running,
            Exited => matches!(self, Running | Paused | Restarting),
            Removing => matches!(self, Created | Exited | Dead | Removing),
            Dead => self == Removing,
        }
    }
}

/// `State` of an inspect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Docker's state.
    pub status: Status,
    /// The kernel's OOM killer hit it in its last run.
    pub oom_killed: bool,
    /// Of the main process, as the guest's PID 1 sees it; 0 when none runs.
    pub pid: u32,
    /// Of the last run, or why it could not start (126, 127, 128).
    pub exit_code: i32,
    /// Why it could not start, or why its VM was lost.
    pub error: String,
    /// RFC 3339 with nanoseconds; [`clock::ZERO`] before the first start.
    pub started_at: String,
    /// RFC 3339 with nanoseconds; [`clock::ZERO`] before the first exit.
    pub finished_at: String,
}

impl State {
    /// The main process runs.
    pub(crate) fn started(&mut self, pid: u32, started_at: String) {
        debug_assert!(self.status.can_become(Status::Running), "{:?}", self.status);
        self.status = Status::Running;
        self.pid = pid;
        self.started_at = started_at;
        self.exit_code = 0;
        self.error.clear();
        self.oom_killed = false;
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            status: Status::Created,
            oom_killed: false,
            pid: 0,
            exit_code: 0,
            error: String::new(),
            started_at: clock::ZERO.into(),
            finished_at: clock::ZERO.into(),
        }
    }
}

/// Everything the store keeps about a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    /// RFC 3339 with nanoseconds.
    pub created: String,
    /// `sha256:...` of the image's configuration.
    pub image_id: String,
    /// Operating system of the image: `linux`.
    pub platform: String,
    /// What runs: entrypoint and command merged; never empty.
    pub args: Vec<String>,
    /// Merged with the image's.
    pub config: Config,
    /// As adapted at create.
    pub host: HostConfig,
    /// `NetworkingConfig` of the request, kept for the time when networks exist.
    pub networking: Value,
    /// Where it stands.
    pub state: State,
    /// Restarts by policy.
    pub restart_count: u32,
    /// Asked to stop by a user: a restart policy leaves it alone.
    pub manually_stopped: bool,
}

impl Record {
    /// The first 12 digits of the id.
    #[must_use]
    pub fn short_id(&self) -> &str {
        short(&self.id)
    }
}

/// The first 12 digits of an id.
#[must_use]
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// For fuzzing: whatever the bytes are, they are refused or become a record that can be stored, shown and started.
#[doc(hidden)]
#[allow(clippy::panic, reason = "a fuzz target tells by panicking")]
pub fn fuzz(bytes: &[u8]) -> bool {
    use super::{prepare, status, vm};
    use crate::store::stored::parse;
    let json: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let id = json["id"].as_str().unwrap_or("a");
    let Ok(record) = parse(id, bytes) else { return false };
    let Ok(again) = serde_json::to_vec(&record) else { panic!("a record that was read cannot be stored") };
    assert_eq!(parse(id, &again).as_ref(), Ok(&record), "a record changed between two readings");
    let _ = status::text(&record.state);
    let _ = prepare::start_request(&record, 1, proto::runner::LogConfig::default());
    let _ = prepare::log_config(&record, std::path::Path::new("log"));
    let _ = vm::size(&record);
    true
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A plain container, for tests.
    pub(crate) fn record(id: &str, name: &str) -> Record {
        Record {
            version: VERSION,
            id: id.into(),
            name: name.into(),
            created: "2026-01-02T03:04:05Z".into(),
            image_id: "sha256:abc".into(),
            platform: "linux".into(),
            args: vec!["sh".into()],
            config: Config { image: "busybox".into(), ..Config::default() },
            host: HostConfig::default(),
            networking: Value::Null,
            state: State::default(),
            restart_count: 0,
            manually_stopped: false,
        }
    }

    #[test]
    fn transitions_are_dockers() {
        use Status::{Created, Dead, Exited, Paused, Removing, Running};
        for (from, to) in [
            (Created, Running),
            (Running, Paused),
            (Paused, Running),
            (Paused, Exited),
            (Exited, Running),
            (Exited, Removing),
            (Removing, Dead),
        ] {
            assert!(from.can_become(to), "{from:?} -> {to:?}");
        }
        for (from, to) in
            [(Running, Removing), (Exited, Paused), (Created, Exited), (Running, Created), (Dead, Running)]
        {
            assert!(!from.can_become(to), "{from:?} -> {to:?}");
        }
    }
}
