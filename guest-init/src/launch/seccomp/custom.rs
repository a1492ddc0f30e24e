//! Docker's profile format (moby `profiles/seccomp`).

use serde::Deserialize;

use super::{
    SeccompError,
    profile::{Action, Argument, Compare, Profile, Rule},
};

/// Longest profile taken.
const MAX_JSON: usize = 1024 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Json {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    syscalls: Option<Vec<Syscall>>,
    #[serde(default)]
    listener_path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Syscall {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Arg>>,
    #[serde(default)]
    includes: Option<Filter>,
    #[serde(default)]
    excludes: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arg {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

#[cfg(target_arch = "x86_64")]
const ARCHES: [&str; 2] = ["amd64", "x86_64"];
#[cfg(target_arch = "aarch64")]
const ARCHES: [&str; 2] = ["arm64", "aarch64"];

/// The rules of a profile that hold here.
pub(super) fn parse(json: &[u8], capabilities: &[String]) -> Result<Profile, SeccompError> {
    if json.len() > MAX_JSON {
        return Err(SeccompError::Json("it is too long".into()));
    }
    let json: Json = serde_json::from_slice(json).map_err(|e| SeccompError::Json(e.to_string()))?;
    if !json.listener_path.is_empty() {
        return Err(SeccompError::Unsupported("listenerPath".into()));
    }
    let default = action(&json.default_action, json.default_errno_ret)?;
    let mut rules = Vec::new();
    for syscall in json.syscalls.unwrap_or_default() {
        let included = syscall.includes.unwrap_or_default();
        let excluded = syscall.excludes.unwrap_or_default();
        if !included.includes(capabilities) || excluded.excludes(capabilities) {
            continue;
        }
        let mut names = syscall.names.unwrap_or_default();
        if !syscall.name.is_empty() {
            names.push(syscall.name);
        }
        let action = action(&syscall.action, syscall.errno_ret)?;
        let arguments = syscall.args.unwrap_or_default().iter().map(argument).collect::<Result<_, _>>()?;
        rules.push(Rule { names, action, arguments });
    }
    Ok(Profile { default, rules })
}

impl Filter {
    fn includes(&self, capabilities: &[String]) -> bool {
        let caps = self.caps.as_ref().is_none_or(|caps| caps.iter().all(|cap| capabilities.contains(cap)));
        let arches = self
            .arches
            .as_ref()
            .is_none_or(|a| a.is_empty() || a.iter().any(|a| ARCHES.contains(&a.as_str())));
        // The kernel is ours and newer than any that docker's profiles ask for.
        caps && arches
    }

    fn excludes(&self, capabilities: &[String]) -> bool {
        let caps = self.caps.iter().flatten().any(|cap| capabilities.contains(cap));
        let arches = self.arches.iter().flatten().any(|arch| ARCHES.contains(&arch.as_str()));
        caps || arches || self.min_kernel.is_some()
    }
}

fn action(name: &str, errno: Option<u32>) -> Result<Action, SeccompError> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_ERRNO" => Action::Errno(errno.unwrap_or(libc::EPERM.cast_unsigned())),
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_TRACE" => Action::Trace(errno.unwrap_or(libc::EPERM.cast_unsigned())),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        other => return Err(SeccompError::Unsupported(format!("action {other:?}"))),
    })
}

fn argument(arg: &Arg) -> Result<Argument, SeccompError> {
    let (compare, value) = match arg.op.as_str() {
        "SCMP_CMP_EQ" => (Compare::Eq, arg.value),
        "SCMP_CMP_NE" => (Compare::Ne, arg.value),
        "SCMP_CMP_LT" => (Compare::Lt, arg.value),
        "SCMP_CMP_LE" => (Compare::Le, arg.value),
        "SCMP_CMP_GT" => (Compare::Gt, arg.value),
        "SCMP_CMP_GE" => (Compare::Ge, arg.value),
        // libseccomp's order: the mask first, then the datum.
        "SCMP_CMP_MASKED_EQ" => (Compare::Masked(arg.value), arg.value_two),
        other => return Err(SeccompError::Unsupported(format!("operator {other:?}"))),
    };
    Ok(Argument { index: arg.index, compare, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_choose_rules() {
        let json = br#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"syscalls":[
            {"names":["read","write"],"action":"SCMP_ACT_ALLOW"},
            {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["clone"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"]},
             "args":[{"index":0,"value":2114060288,"op":"SCMP_CMP_MASKED_EQ"}]},
            {"names":["s390_runtime_instr"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["s390"]}}]}"#;
        let plain = parse(json, &[]).unwrap();
        assert_eq!(plain.default, Action::Errno(38));
        assert_eq!(plain.rules.len(), 2);
        assert_eq!(plain.rules[1].arguments[0].compare, Compare::Masked(2_114_060_288));
        let admin = parse(json, &["CAP_SYS_ADMIN".to_owned()]).unwrap();
        assert_eq!(admin.rules[1].names, ["mount"]);
    }

    #[test]
    fn what_cannot_be_expressed_is_refused() {
        let notify = br#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#;
        let error = parse(notify, &[]).unwrap_err();
        assert_eq!(error.to_string(), "seccomp profile: action \"SCMP_ACT_NOTIFY\" is not supported");
        assert!(matches!(parse(b"{", &[]), Err(SeccompError::Json(_))));
    }
}
