//! seccomp filters. PID 1 compiles a container's profile; the launcher only installs the finished programs.

mod compile;
mod custom;
mod default;
mod profile;
mod table;

use proto::sandbox::{SeccompProfile, seccomp_profile::Kind};

use super::failure::Failure;

/// A profile that cannot be used; docker's user sees the message.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SeccompError {
    /// The JSON is not a profile.
    #[error("decoding seccomp profile failed: {0}")]
    Json(String),
    /// Valid, but not expressible here.
    #[error("seccomp profile: {0} is not supported")]
    Unsupported(String),
    /// The compiler refused it.
    #[error("seccomp profile: {0}")]
    Compile(String),
}

/// The programs of a profile, in the order of installation, for a process with these capabilities.
pub(crate) fn programs(
    profile: Option<&SeccompProfile>,
    capabilities: &[String],
) -> Result<Vec<Vec<u64>>, SeccompError> {
    let capabilities: Vec<String> = capabilities.iter().map(|name| name.to_uppercase()).collect();
    match profile.map_or(Kind::Default, SeccompProfile::kind) {
        Kind::Unconfined => Ok(Vec::new()),
        Kind::Default => compile::compile(&default::profile(&capabilities)),
        Kind::Custom => {
            let json = profile.map(|p| p.json.as_ref()).unwrap_or_default();
            compile::compile(&custom::parse(json, &capabilities)?)
        }
    }
}

/// Installs programs for this process and what it becomes.
pub(super) fn install(programs: &[Vec<u64>]) -> Result<(), Failure> {
    for program in programs {
        compile::install(program).map_err(|e| Failure::setup("seccomp", e))?;
    }
    Ok(())
}
