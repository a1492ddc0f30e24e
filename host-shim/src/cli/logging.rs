//! The daemon's log. It never holds what containers write, nor their environment.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::LogLevel;

/// Starts logging to stderr. Libraries speak only of what is wrong.
pub(super) fn start(level: LogLevel) {
    let level = level.as_str();
    let filter = format!("warn,host_shim={level},images={level},runner={level},proto={level}");
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // The default tells of a log that cannot be written by a macro that panics: on a full disk that ends the daemon.
        .log_internal_errors(false)
        .init();
}
