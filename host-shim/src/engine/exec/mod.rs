//! `docker exec`: more processes in a running container.

mod process;
mod stdio;

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    Engine,
    container::{Container, Run},
    create::env,
    model::string_or_list,
    names,
    record::Status,
};
use crate::error::{Error, Result};

/// The body of `POST /containers/{id}/exec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the Engine API documents them")]
pub struct ExecConfig {
    pub user: String,
    pub privileged: bool,
    pub tty: bool,
    pub console_size: Option<[u32; 2]>,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub detach_keys: String,
    pub env: Option<Vec<String>>,
    pub working_dir: String,
    #[serde(deserialize_with = "string_or_list")]
    pub cmd: Option<Vec<String>>,
}

/// An exec instance. It is gone when its container stops, or a while after its process ended.
#[derive(Debug)]
pub struct Exec {
    /// 64 hexadecimal digits; the process id in the guest as well.
    pub id: String,
    /// As asked for.
    pub config: ExecConfig,
    phase: watch::Sender<Phase>,
}

/// Where an exec stands: created -> running -> exited, or created -> exited when its command cannot be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Created,
    /// Pid 0 until the guest has started it.
    Running {
        pid: u32,
    },
    Exited {
        pid: u32,
        code: i32,
    },
}

impl Exec {
    /// Not run yet, or running: dockerd's inspect of a container lists only these.
    pub(crate) fn is_pending(&self) -> bool {
        !matches!(self.phase(), Phase::Exited { .. })
    }

    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    fn set(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Waits for a phase.
    async fn reaches(&self, wanted: impl FnMut(&Phase) -> bool) {
        // The sender lives as long as the exec.
        let _ = self.phase.subscribe().wait_for(wanted).await;
    }

    /// Takes the right to start it, once.
    fn begin(&self) -> Result<()> {
        let mut seen = Phase::Created;
        let begun = self.phase.send_if_modified(|phase| {
            seen = *phase;
            let first = *phase == Phase::Created;
            if first {
                *phase = Phase::Running { pid: 0 };
            }
            first
        });
        if begun { Ok(()) } else { Err(self.started_already(seen)) }
    }

    /// Whether it could be started now; nothing is changed.
    ///
    /// # Errors
    /// 409 when it runs or ran.
    pub fn check(&self) -> Result<()> {
        match self.phase() {
            Phase::Created => Ok(()),
            phase => Err(self.started_already(phase)),
        }
    }

    fn started_already(&self, phase: Phase) -> Error {
        let what =
            if matches!(phase, Phase::Exited { .. }) { "has already run" } else { "is already running" };
        Error::conflict(format!("Error: Exec command {} {what}", self.id))
    }

    fn command(&self) -> String {
        self.config.cmd.as_deref().unwrap_or_default().join(" ")
    }

    /// As `GET /exec/{id}/json` answers.
    #[must_use]
    pub fn inspect(&self, container_id: &str) -> Value {
        let (running, code, pid) = match self.phase() {
            Phase::Created => (false, None, 0),
            Phase::Running { pid } => (true, None, pid),
            Phase::Exited { pid, code } => (false, Some(code), pid),
        };
        let args = self.config.cmd.as_deref().unwrap_or_default();
        let mut process = json!({
            "tty": self.config.tty,
            "entrypoint": args.first(),
            "arguments": args.get(1..).unwrap_or_default(),
            "privileged": self.config.privileged,
        });
        if !self.config.user.is_empty() {
            process["user"] = json!(self.config.user);
        }
        json!({
            "ID": self.id,
            "Running": running,
            "ExitCode": code,
            "ProcessConfig": process,
            "OpenStdin": self.config.attach_stdin,
            "OpenStderr": self.config.attach_stderr,
            "OpenStdout": self.config.attach_stdout,
            "CanRemove": false,
            "ContainerID": container_id,
            "DetachKeys": self.config.detach_keys,
            "Pid": pid,
        })
    }
}

impl Engine {
    /// Makes an exec instance; nothing runs yet.
    ///
    /// # Errors
    /// 400 without a command or with too large an environment, 409 when the container does not run or is paused.
    pub async fn create_exec(&self, container: &Arc<Container>, config: ExecConfig) -> Result<Arc<Exec>> {
        self.settled(container).await?;
        can_exec(container)?;
        if config.cmd.as_deref().is_none_or(<[String]>::is_empty) {
            return Err(Error::invalid("No exec command specified"));
        }
        env::check(config.env.as_deref())?;
        let exec = Arc::new(Exec { id: names::id(), config, phase: watch::Sender::new(Phase::Created) });
        container.execs().insert(exec.id.clone(), exec.clone());
        let event = container.event(format!("exec_create: {}", exec.command()));
        self.events.publish(event.with("execID", exec.id.clone()));
        Ok(exec)
    }

    /// An exec instance and its container.
    ///
    /// # Errors
    /// 404 `No such exec instance: x`.
    pub fn find_exec(&self, id: &str) -> Result<(Arc<Container>, Arc<Exec>)> {
        let found = self.all().into_iter().find_map(|container| {
            let exec = container.execs().get(id).cloned()?;
            Some((container, exec))
        });
        found.ok_or_else(|| Error::not_found(format!("No such exec instance: {id}")))
    }
}

/// The run in which a process can be started.
pub(crate) fn can_exec(container: &Container) -> Result<Arc<Run>> {
    let id = &container.id;
    let run = container.run().ok_or_else(|| Error::conflict(format!("container {id} is not running")))?;
    if container.status() == Status::Paused {
        return Err(Error::conflict(format!("Container {id} is paused, unpause the container before exec")));
    }
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec() -> Exec {
        let config = ExecConfig { cmd: Some(vec!["sleep".into(), "500".into()]), ..ExecConfig::default() };
        Exec { id: "e".into(), config, phase: watch::Sender::new(Phase::Created) }
    }

    #[test]
    fn an_exec_starts_once() {
        let exec = exec();
        exec.begin().unwrap();
        assert_eq!(exec.begin().unwrap_err().message, "Error: Exec command e is already running");
        exec.set(Phase::Exited { pid: 1, code: 0 });
        assert_eq!(exec.begin().unwrap_err().message, "Error: Exec command e has already run");
    }

    #[test]
    fn inspect_as_dockerd() {
        let exec = exec();
        exec.set(Phase::Running { pid: 1446 });
        let value = exec.inspect("c");
        assert_eq!(
            (&value["Running"], &value["ExitCode"], &value["Pid"]),
            (&json!(true), &Value::Null, &json!(1446))
        );
        assert_eq!(
            value["ProcessConfig"],
            json!({"tty": false, "entrypoint": "sleep", "arguments": ["500"], "privileged": false})
        );
        exec.set(Phase::Exited { pid: 1446, code: 3 });
        assert_eq!(exec.inspect("c")["ExitCode"], 3);
    }
}
