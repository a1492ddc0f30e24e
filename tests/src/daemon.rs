//! A daemon of a test's own, with its own `ARCA_HOME`, that leaves nothing behind however the test ends.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    cache,
    docker::{Docker, Output, finish},
};

/// Ends the daemon and every VM of a home and removes the folder, once its standard input is closed: that happens when the
/// test process ends, even by SIGKILL. Ours are processes of our programs (`exe` is one that was started by its link) that
/// name the home or have a file of it; a path in the arguments alone would also be that of an editor.
const REAPER: &str = r#"
read -r _
ARCA_HOME="$HOME_DIR" "$@" daemon stop >/dev/null 2>&1
home=$(realpath "$HOME_DIR")
short=$(readlink "$HOME_DIR/run")
ours() {
  for process in /proc/[0-9]*; do
    read -r program 2>/dev/null <"$process/comm" || continue
    case $program in arca|exe|qemu-system*|setpriv|prlimit) ;; *) continue ;; esac
    if tr '\0' '\n' 2>/dev/null <"$process/environ" | grep -qxF "ARCA_HOME=$HOME_DIR" ||
      grep -qaF "$HOME_DIR/" "$process/cmdline" 2>/dev/null ||
      find "$process/fd" "$process/cwd" \( -lname "$home/*" -o -lname "${short:-$home}/*" \) 2>/dev/null | grep -q .
    then echo "${process#/proc/}"; fi
  done
}
pids=$(ours)
[ -n "$pids" ] && kill -TERM $pids 2>/dev/null
i=0
while [ $i -lt 100 ] && [ -n "$(ours)" ]; do sleep 0.1; i=$((i+1)); done
pids=$(ours)
[ -n "$pids" ] && kill -KILL $pids 2>/dev/null
[ -n "$short" ] && rm -rf "$short"
rm -rf "$HOME_DIR"
"#;

/// What is not as usual about a daemon.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Its `config.json`; `null`: none is written.
    pub config: Value,
    /// Its home, which is there; else one is made.
    pub home: Option<PathBuf>,
    /// Where it is reached; else in the home.
    pub socket: Option<PathBuf>,
    /// The program, if not the usual one.
    pub arca: Option<PathBuf>,
    /// A command in front of every `arca`, such as `setpriv --reuid 1000`.
    pub wrapper: Vec<String>,
    /// Environment beside `ARCA_HOME`.
    pub env: Vec<(String, String)>,
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    home: PathBuf,
    docker: Docker,
    reaper: Option<Child>,
    command: Vec<String>,
    env: Vec<(String, String)>,
}

impl Daemon {
    /// A daemon with an empty home and the default configuration.
    ///
    /// # Errors
    /// When it does not start; with what `arca daemon start` said.
    pub fn start() -> Result<Self> {
        Self::with_config(&json!({}))
    }

    /// A daemon with this `config.json`.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn with_config(config: &Value) -> Result<Self> {
        let daemon = Self::prepare(Setup { config: config.clone(), ..Setup::default() })?;
        daemon.arca(&["daemon", "start"])?;
        Ok(daemon)
    }

    /// A daemon that is not started yet.
    ///
    /// # Errors
    /// When its folders cannot be made.
    pub fn prepare(setup: Setup) -> Result<Self> {
        let Setup { config, home, socket, arca, wrapper, env } = setup;
        let home = match home {
            Some(home) => home,
            None => tempfile::Builder::new().prefix("arca-t").tempdir()?.keep(),
        };
        if !config.is_null() {
            std::fs::write(home.join("config.json"), serde_json::to_vec(&config)?)?;
        }
        let arca = arca.unwrap_or_else(cache::arca);
        let mut command = wrapper;
        command.push(arca.to_string_lossy().into_owned());
        // A session of its own: ^C at the terminal must not stop the cleaning.
        let reaper = Command::new("setsid")
            .args(["sh", "-c", REAPER, "reaper"])
            .args(&command)
            .env("HOME_DIR", &home)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let client = home.join("client");
        std::fs::create_dir_all(&client)?;
        let socket = socket.unwrap_or_else(|| home.join("arca.sock"));
        let docker = Docker::new(format!("unix://{}", socket.display()), &client);
        Ok(Self { home, docker, reaper: Some(reaper), command, env })
    }

    /// Its `ARCA_HOME`.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// A docker CLI for it.
    #[must_use]
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Runs `arca args...` on this home; an error when it fails.
    ///
    /// # Errors
    /// When the command fails, with its output.
    pub fn arca(&self, args: &[&str]) -> Result<Output> {
        let output = self.try_arca(args)?;
        if output.code != 0 {
            bail!("arca {}: exit {}\n{}{}", args.join(" "), output.code, output.stdout, output.stderr);
        }
        Ok(output)
    }

    /// Runs `arca args...` on this home, whatever comes of it.
    ///
    /// # Errors
    /// When the binary cannot be run or hangs.
    pub fn try_arca(&self, args: &[&str]) -> Result<Output> {
        finish(self.command(args), Vec::new(), Duration::from_secs(150))
            .context("arca: run `make build` first")
    }

    /// `arca args...` on this home, not run yet.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let (program, words) = self.command.split_first().map_or(("arca", &[][..]), |(p, w)| (p.as_str(), w));
        let mut command = Command::new(program);
        command.args(words).args(args).envs(self.env.iter().cloned()).env("ARCA_HOME", &self.home);
        command
    }

    /// The living daemon's process, as its lock file has it.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let told = std::fs::read_to_string(self.home.join("daemon.lock")).ok()?;
        let pid = told.split_whitespace().next()?.parse().ok()?;
        // A pid in a file proves nothing.
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
        words.windows(2).any(|pair| pair == [&b"daemon"[..], b"run"]).then_some(pid)
    }

    /// SIGKILL to the daemon, at once; returns when it is gone.
    ///
    /// # Errors
    /// When none runs, or it does not go.
    pub fn kill9(&self) -> Result<()> {
        let pid = self.pid().context("no daemon runs")?;
        let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status()?;
        let deadline = Instant::now() + Duration::from_secs(10);
        // Its files are closed when its last thread is gone, which may end after the first.
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X'])) && threads <= 1
        };
        while !gone() {
            if !killed.success() || Instant::now() > deadline {
                bail!("daemon {pid} does not go");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Starts the daemon after [`Daemon::kill9`]; how long it took until it answered.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_again(&self) -> Result<Duration> {
        let begin = Instant::now();
        self.arca(&["daemon", "start"])?;
        Ok(begin.elapsed())
    }

    /// The daemon's log.
    #[must_use]
    pub fn log(&self) -> String {
        let text = std::fs::read(self.home.join("daemon.log")).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Loads a test image by its file name.
    ///
    /// # Errors
    /// When it is not made yet or the load fails.
    pub fn load(&self, name: &str) -> Result<()> {
        let path = cache::images().join(format!("{name}.docker.tar"));
        if !path.is_file() {
            bail!("{} is missing: cargo run --release -p tests --bin test-images", path.display());
        }
        let out = self.docker.run(&["load", "-q", "-i", &path.to_string_lossy()]);
        if out.code != 0 {
            bail!("docker load {name}: {}", out.stderr);
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut reaper) = self.reaper.take() {
            drop(reaper.stdin.take());
            let _ = reaper.wait();
        }
    }
}
