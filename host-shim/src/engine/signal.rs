//! Signal names and numbers, as `docker kill -s` and `STOPSIGNAL` take them.

use crate::error::{Error, Result};

/// SIGTERM
pub const TERM: u32 = 15;
/// SIGKILL
pub const KILL: u32 = 9;

/// Names by number on x86-64 and aarch64 Linux, signal(7).
const NAMES: [(&str, u32); 35] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", 34),
];
/// First and last real-time signal as libc numbers them.
const RTMIN: u32 = 34;
const RTMAX: u32 = 64;

/// Parses `9`, `KILL`, `sigkill`, `RTMIN+3`, `RTMAX-1`.
///
/// # Errors
/// 400 `invalid signal: x`
pub fn parse(text: &str) -> Result<u32> {
    let bad = || Error::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<u32>() {
        return if (1..=RTMAX).contains(&number) { Ok(number) } else { Err(bad()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    let offset = |text: &str| text.parse::<u32>().ok().filter(|n| *n <= RTMAX - RTMIN);
    match name {
        "RTMAX" => Ok(RTMAX),
        _ => name
            .strip_prefix("RTMIN+")
            .and_then(offset)
            .map(|n| RTMIN + n)
            .or_else(|| name.strip_prefix("RTMAX-").and_then(offset).map(|n| RTMAX - n))
            .ok_or_else(bad),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("sigterm", 15),
            ("SIGUSR1", 10),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("rtmin", 34),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for bad in ["", "0", "65", "-9", "BOGUS", "RTMIN+99"] {
            assert_eq!(parse(bad).unwrap_err().message, format!("invalid signal: {bad}"));
        }
    }
}
