//! Messages of PID 1: short lines in the kernel's log, so that they are in order with the kernel's own on the console.

use std::{
    fmt::Arguments,
    fs::File,
    io::Write,
    sync::{
        OnceLock,
        atomic::{AtomicU8, Ordering},
    },
};

/// Syslog severities, as `/dev/kmsg` takes them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Level {
    /// The VM or a container is not what the host asked for.
    Error = 3,
    /// Something odd that the guest coped with.
    Warn = 4,
    /// Milestones.
    Info = 6,
    /// Every step.
    Debug = 7,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
static KMSG: OnceLock<File> = OnceLock::new();

/// Opens the kernel's log and takes the level from the `arca.log=` word of the kernel's command line.
pub(crate) fn open(command_line: &str) {
    if let Some(level) = level_of(command_line) {
        LEVEL.store(level as u8, Ordering::Relaxed);
    }
    if let Ok(file) = File::options().write(true).open("/dev/kmsg") {
        let _ = KMSG.set(file);
    }
}

fn level_of(command_line: &str) -> Option<Level> {
    match command_line.split_ascii_whitespace().find_map(|word| word.strip_prefix("arca.log="))? {
        "error" => Some(Level::Error),
        "warn" => Some(Level::Warn),
        "info" => Some(Level::Info),
        "debug" => Some(Level::Debug),
        _ => None,
    }
}

/// Writes one line; use the macros.
pub(crate) fn write(level: Level, message: Arguments<'_>) {
    if level as u8 > LEVEL.load(Ordering::Relaxed) {
        return;
    }
    // One write is one record of the kernel's log.
    let line = format!("arca-init: {message}\n");
    match KMSG.get() {
        Some(mut kmsg) => drop(kmsg.write_all(format!("<{}>{line}", level as u8).as_bytes())),
        None => eprint!("{line}"),
    }
}

macro_rules! error { ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Error, format_args!($($arg)*)) } }
macro_rules! warning { ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Warn, format_args!($($arg)*)) } }
macro_rules! debug { ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Debug, format_args!($($arg)*)) } }
pub(crate) use {debug, error, warning};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_is_a_word_of_the_command_line() {
        assert_eq!(level_of("console=ttyS0 arca.log=debug quiet"), Some(Level::Debug));
        assert_eq!(level_of("arca.log=loud"), None);
        assert_eq!(level_of("quiet"), None);
    }
}
