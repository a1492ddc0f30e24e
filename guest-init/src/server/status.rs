//! From the guest's errors to gRPC statuses with a detail.

use proto::detail::{self, ErrorDetail};
use tonic::{Code, Status};

use crate::{
    container::{ContainerError, RootError, cgroup::CgroupError, disks::DiskError, registry::PrepareError},
    files::FilesError,
    launch::failure::Failure,
};

/// A status about `subject`.
pub(super) fn about(code: Code, message: impl Into<String>, subject: &str) -> Status {
    detail::status(code, message, &ErrorDetail { exit_code: 0, subject: subject.to_owned() })
}

/// No such container or process.
pub(super) fn unknown(what: &str, id: &str) -> Status {
    about(Code::NotFound, format!("no such {what}: {id}"), id)
}

/// A container that cannot be prepared.
pub(super) fn prepare(error: &PrepareError) -> Status {
    let (code, subject) = match error {
        PrepareError::Exists(id) => (Code::AlreadyExists, id.as_str()),
        PrepareError::NoSuch(id) => (Code::NotFound, id.as_str()),
        PrepareError::NoId => (Code::InvalidArgument, ""),
        PrepareError::Build(ContainerError::Root(RootError::Disk(DiskError::Missing(serial, ..)))) => {
            (Code::DeadlineExceeded, serial.as_str())
        }
        PrepareError::Build(ContainerError::Root(RootError::TooManyLayers(_))) => (Code::InvalidArgument, ""),
        PrepareError::Build(ContainerError::Cgroup(_)) => (Code::FailedPrecondition, ""),
        PrepareError::Build(_) => (Code::Internal, ""),
    };
    about(code, error.to_string(), subject)
}

/// A command that cannot be run.
pub(super) fn launch(failure: &Failure, first: bool) -> Status {
    detail::cannot_run(failure.exit_code, failure.text(first))
}

/// A limit that the kernel refused.
pub(super) fn cgroup(error: &CgroupError) -> Status {
    about(Code::FailedPrecondition, error.to_string(), "")
}

/// An operation on a container's files.
pub(super) fn files(error: &FilesError) -> Status {
    let code = match error {
        FilesError::NotFound(_) => Code::NotFound,
        FilesError::ReadOnlyRootfs => Code::PermissionDenied,
        FilesError::Stream(_) => Code::Aborted,
        FilesError::Io(..) if error.is_full() => Code::ResourceExhausted,
        FilesError::TooMany(_) => Code::ResourceExhausted,
        FilesError::Io(..) => Code::Internal,
        FilesError::NotADirectory(_)
        | FilesError::ExtractionPoint
        | FilesError::DirectoryWithNonDirectory(..)
        | FilesError::NonDirectoryWithDirectory(..)
        | FilesError::Breakout(..)
        | FilesError::Tar(_) => Code::InvalidArgument,
    };
    let subject = match error {
        FilesError::NotFound(path) | FilesError::NotADirectory(path) | FilesError::Io(path, _) => {
            path.as_str()
        }
        _ => "",
    };
    about(code, error.to_string(), subject)
}
