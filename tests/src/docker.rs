//! The docker CLI against one engine.

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::cache;

/// Longest a command may take unless the test says otherwise: under TCG a boot is seconds, not milliseconds.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A docker CLI bound to a socket and an empty client configuration.
#[derive(Debug, Clone)]
pub struct Docker {
    /// `DOCKER_HOST`
    pub host: String,
    config: PathBuf,
}

/// What a finished command left.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; 128 + signal when it was killed.
    pub code: i32,
    /// Standard output, lossy UTF-8.
    pub stdout: String,
    /// Standard error, lossy UTF-8.
    pub stderr: String,
    /// Standard output as it came.
    pub raw: Vec<u8>,
}

impl Output {
    /// Standard output without the last newline, after a successful command.
    ///
    /// # Panics
    /// With everything the command said, when it failed: this is a test's assertion.
    #[track_caller]
    #[allow(clippy::must_use_candidate, reason = "asserting success is use enough")]
    pub fn ok(&self) -> &str {
        assert!(
            self.code == 0,
            "command failed with {}\nstdout: {}\nstderr: {}",
            self.code,
            self.stdout,
            self.stderr
        );
        self.stdout.trim_end_matches(['\n', '\r'])
    }

    /// The command failed with `code` and said `needle` on standard error.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn fails(&self, code: i32, needle: &str) {
        assert!(
            self.code == code && self.stderr.contains(needle),
            "expected exit {code} and {needle:?}, got {}\nstdout: {}\nstderr: {}",
            self.code,
            self.stdout,
            self.stderr
        );
    }
}

impl Docker {
    /// A CLI for `host` whose client configuration lives in `config`.
    #[must_use]
    pub fn new(host: impl Into<String>, config: &Path) -> Self {
        Self { host: host.into(), config: config.to_owned() }
    }

    /// The unix socket behind `host`.
    #[must_use]
    pub fn socket(&self) -> &str {
        self.host.trim_start_matches("unix://")
    }

    /// The command, not yet run.
    #[must_use]
    pub fn command<S: AsRef<str>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(cache::docker_cli());
        command
            .args(args.iter().map(AsRef::as_ref))
            .env("DOCKER_HOST", &self.host)
            .env("DOCKER_CONFIG", &self.config);
        // The CLI's hints are for people.
        command.env("DOCKER_CLI_HINTS", "false").env_remove("DOCKER_CONTEXT");
        command
    }

    /// Runs `docker args...` with no input.
    ///
    /// # Panics
    /// When the CLI cannot be run or takes longer than [`LIMIT`].
    #[must_use]
    #[track_caller]
    pub fn run<S: AsRef<str>>(&self, args: &[S]) -> Output {
        self.run_with(args, Vec::new(), LIMIT)
    }

    /// Words split at blanks: for commands without quoting.
    ///
    /// # Panics
    /// As [`Docker::run`].
    #[must_use]
    #[track_caller]
    pub fn sh(&self, words: &str) -> Output {
        self.run(&words.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs with `input` as standard input (closed after it).
    ///
    /// # Panics
    /// When the CLI cannot be run or takes longer than `limit`.
    #[must_use]
    #[track_caller]
    pub fn run_with<S: AsRef<str>>(&self, args: &[S], input: Vec<u8>, limit: Duration) -> Output {
        let shown = args.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ");
        match finish(self.command(args), input, limit) {
            Ok(output) => output,
            #[allow(clippy::panic, reason = "an assertion of the tests")]
            Err(error) => panic!("docker {shown}: {error:#}"),
        }
    }

    /// Starts it in the background with piped stdio.
    ///
    /// # Errors
    /// When the CLI cannot be run.
    pub fn spawn<S: AsRef<str>>(&self, args: &[S]) -> Result<Child> {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().context("docker CLI")
    }

    /// Starts it in the background without input.
    ///
    /// # Errors
    /// When the CLI cannot be run.
    pub fn background<S: AsRef<str>>(&self, args: &[S]) -> Result<Client> {
        let mut child = self.spawn(args)?;
        drop(child.stdin.take());
        let stdout = drain(child.stdout.take().context("stdout")?);
        let stderr = drain(child.stderr.take().context("stderr")?);
        Ok(Client { child, stdout, stderr })
    }
}

/// A client that runs in the background; killed when dropped.
#[derive(Debug)]
pub struct Client {
    child: Child,
    stdout: mpsc::Receiver<Vec<u8>>,
    stderr: mpsc::Receiver<Vec<u8>>,
}

impl Client {
    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it has not ended within `limit`.
    pub fn wait(mut self, limit: Duration) -> Result<Output> {
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                bail!("a client still runs after {limit:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        output(status, &self.stdout, &self.stderr)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end, feeding it and draining it at the same time.
///
/// # Errors
/// When it cannot be run, or has not ended within `limit` (it is killed then).
pub fn finish(mut command: Command, input: Vec<u8>, limit: Duration) -> Result<Output> {
    let started = Instant::now();
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        // A reader that leaves early is the command's business, not an error here.
        std::thread::spawn(move || drop(pipe.write_all(&input)));
    }
    let stdout = drain(child.stdout.take().context("stdout")?);
    let stderr = drain(child.stderr.take().context("stderr")?);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            let said = stderr.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
            bail!("still running after {limit:?}; stderr: {}", String::from_utf8_lossy(&said));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    output(status, &stdout, &stderr)
}

fn output(
    status: ExitStatus,
    stdout: &mpsc::Receiver<Vec<u8>>,
    stderr: &mpsc::Receiver<Vec<u8>>,
) -> Result<Output> {
    let raw = stdout.recv()?;
    let stderr = String::from_utf8_lossy(&stderr.recv()?).into_owned();
    let code = status
        .code()
        .unwrap_or_else(|| 128 + std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0));
    Ok(Output { code, stdout: String::from_utf8_lossy(&raw).into_owned(), stderr, raw })
}

fn drain(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let _ = pipe.read_to_end(&mut all);
        let _ = send.send(all);
    });
    receive
}
