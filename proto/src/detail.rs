//! Error details: every error status of Arca's services may carry an [`ErrorDetail`].

use prost::Message;
use tonic::{Code, Status};

pub use crate::sandbox::ErrorDetail;

/// A status with a detail attached.
#[must_use]
pub fn status(code: Code, message: impl Into<String>, detail: &ErrorDetail) -> Status {
    Status::with_details(code, message, detail.encode_to_vec().into())
}

/// A command that could not be run: `FAILED_PRECONDITION` with docker's exit code (126 or 127).
#[must_use]
pub fn cannot_run(exit_code: i32, message: impl Into<String>) -> Status {
    status(Code::FailedPrecondition, message, &ErrorDetail { exit_code, subject: String::new() })
}

/// The detail of a status; the default (no exit code, no subject) when it has none or one that does not decode. Any peer can
/// write one: a number that is no exit code is none.
#[must_use]
pub fn of(status: &Status) -> ErrorDetail {
    let mut detail = ErrorDetail::decode(status.details()).unwrap_or_default();
    if !(0..=255).contains(&detail.exit_code) {
        detail.exit_code = 0;
    }
    detail
}

/// Longest message of a guest that is passed on.
const MAX_WORDS: usize = 8 << 10;

/// What a guest says, for people and logs: shortened, without what a terminal would obey. Whoever runs in the VM may have
/// written it.
#[must_use]
pub fn words(said: &str) -> String {
    let mut words = String::with_capacity(said.len().min(MAX_WORDS));
    for c in said.chars() {
        if words.len() >= MAX_WORDS {
            words.push_str("...");
            break;
        }
        match c {
            '\n' | '\t' => words.push(c),
            // Controls, and those that turn the direction of writing.
            c if c.is_control()
                || ('\u{202a}'..='\u{202e}').contains(&c)
                || ('\u{2066}'..='\u{2069}').contains(&c) =>
            {
                words.push('?');
            }
            c => words.push(c),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_words_are_short_and_harmless() {
        assert_eq!(words("no such file: é\n\tx"), "no such file: é\n\tx");
        assert_eq!(words("\x1b[2J\r\u{7}a\u{202e}b\u{9b}c"), "?[2J??a?b?c");
        let long = words(&"é".repeat(1 << 20));
        assert!(long.len() < (8 << 10) + 8 && long.ends_with("é..."), "{}", long.len());
    }

    #[test]
    fn exit_code_survives_the_status() {
        let status = cannot_run(127, "no such file");
        assert_eq!(of(&status).exit_code, 127);
        assert_eq!(of(&Status::internal("x")).exit_code, 0);
        assert_eq!(of(&cannot_run(-5, "")).exit_code, 0);
    }
}
