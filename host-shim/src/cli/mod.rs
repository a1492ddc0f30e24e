//! The command line.

mod client;
mod control;
mod daemon;
mod doctor;
mod limits;
mod lock;
mod logging;
mod output;
mod status;

use std::{error::Error as StdError, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Docker-compatible engine that runs every container in its own micro-VM.
///
/// One daemon serves one ARCA_HOME (default ~/.arca): its config.json and all its state.
#[derive(Debug, Parser)]
#[command(name = "arca", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run, start, stop or look at the daemon
    Daemon {
        #[command(subcommand)]
        command: DaemonCommand,
    },
    /// Check every prerequisite: what is wrong, and what to do
    Doctor,
    /// The process beside one VM; started by the daemon
    #[command(hide = true)]
    Runner {
        /// What the VM is, as JSON.
        #[arg(long)]
        spec: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum DaemonCommand {
    /// Run in the foreground, with the log on stderr
    Run {
        /// Leave the session: set by `start`.
        #[arg(long, hide = true)]
        detached: bool,
    },
    /// Start in the background; returns when the API socket answers
    Start,
    /// Stop the daemon; containers go on running
    Stop,
    /// Show pid, socket, accelerator and VMs
    Status,
}

/// Runs the command line and gives the program's exit code.
#[must_use]
pub fn main() -> ExitCode {
    // Whatever any part makes is private; the socket is opened up explicitly.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    limits::clear_signals();
    // What whoever started it left open is no business of a runner or a QEMU. No other thread opens anything yet.
    close_fds::set_fds_cloexec(3, &[]);
    // Started through /proc/self/exe it would be listed as "exe".
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_name(c"arca");
    let result = match Cli::parse().command {
        // The runner has its own log and its own words.
        Command::Runner { spec } => return runner::serve(&spec),
        Command::Doctor => doctor::run(),
        Command::Daemon { command } => match command {
            DaemonCommand::Run { detached } => daemon::run(detached),
            DaemonCommand::Start => control::start(),
            DaemonCommand::Stop => control::stop(),
            DaemonCommand::Status => status::run(),
        },
    };
    result.unwrap_or_else(|error| {
        output::complain(format_args!("arca: {}", chain(error.as_ref())));
        ExitCode::FAILURE
    })
}

type CliResult = Result<ExitCode, Box<dyn StdError>>;

/// An error and its causes, each once.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::error::Error;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["arca", "daemon", "start"]).is_ok());
        assert!(Cli::try_parse_from(["arca", "daemon", "bogus"]).is_err());
    }

    #[test]
    fn causes_are_told_once() {
        let io = || std::io::Error::other("disk full");
        assert_eq!(chain(&Error::system("cannot write").because(io())), "cannot write: disk full");
        assert_eq!(chain(&Error::from(io())), "disk full");
    }
}
