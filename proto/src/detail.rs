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

/// The detail of a status; the default (no exit code, no subject) when it has none or one that does not decode.
#[must_use]
pub fn of(status: &Status) -> ErrorDetail {
    ErrorDetail::decode(status.details()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_code_survives_the_status() {
        let status = cannot_run(127, "no such file");
        assert_eq!(of(&status).exit_code, 127);
        assert_eq!(of(&Status::internal("x")).exit_code, 0);
    }
}
