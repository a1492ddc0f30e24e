//! From a profile to BPF.
//!
//! A filter of `seccompiler` knows one action for matches. A profile with several becomes a stack of filters: one for the
//! default that lets every call with a rule pass, then one per other action. The kernel runs all and takes the
//! strictest answer; between two error numbers the filter installed last wins (seccomp(2)).
//!
//! A call of another architecture (i386 or x32 programs) kills the process: the filters begin with that check.

use std::{collections::BTreeMap, io};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    sock_filter,
};

use super::{
    SeccompError,
    profile::{Action, Argument, Compare, Profile, Rule},
    table,
};

#[cfg(target_arch = "x86_64")]
const ARCH: seccompiler::TargetArch = seccompiler::TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: seccompiler::TargetArch = seccompiler::TargetArch::aarch64;

/// Calls and arguments of type `int` that profiles compare.
const INT_ARGUMENTS: [(&str, u8); 4] = [("socket", 0), ("socket", 1), ("socket", 2), ("personality", 0)];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The programs of a profile, in the order of installation.
pub(super) fn compile(profile: &Profile) -> Result<Vec<Vec<u64>>, SeccompError> {
    let mut programs = Vec::new();
    let everything = profile.rules.iter().filter(|rule| rule.action != profile.default);
    // The default action for what no rule matches. Allowed calls match here, calls of stricter actions below as well.
    if profile.default != Action::Allow {
        programs.push(program(rules(everything.clone())?, profile.default, Action::Allow)?);
    }
    let mut actions: Vec<Action> = everything.clone().map(|rule| rule.action).collect();
    actions.retain(|action| *action != Action::Allow);
    actions.sort_unstable();
    actions.dedup();
    for action in actions {
        let mine = rules(everything.clone().filter(|rule| rule.action == action))?;
        programs.push(program(mine, Action::Allow, action)?);
    }
    if profile.default != Action::Allow {
        let newer =
            (table::FIRST_UNKNOWN..table::FIRST_UNKNOWN + 64).map(|number| (number, Vec::new())).collect();
        programs.push(program(newer, Action::Allow, Action::Errno(libc::ENOSYS.cast_unsigned()))?);
    }
    Ok(programs.into_iter().map(|program| program.iter().map(pack).collect()).collect())
}

fn program(rules: Rules, mismatch: Action, matched: Action) -> Result<BpfProgram, SeccompError> {
    SeccompFilter::new(rules, action(mismatch), action(matched), ARCH)
        .and_then(BpfProgram::try_from)
        .map_err(|e| SeccompError::Compile(e.to_string()))
}

/// Rules by number. A call with an unconditional rule needs no others; several conditional ones are alternatives.
fn rules<'a>(all: impl Iterator<Item = &'a Rule>) -> Result<Rules, SeccompError> {
    let mut rules = Rules::new();
    let mut unconditional = Vec::new();
    for rule in all {
        for (name, number) in rule.names.iter().filter_map(|name| Some((name, table::number(name)?))) {
            let entry = rules.entry(number).or_default();
            if rule.arguments.is_empty() {
                unconditional.push(number);
            } else {
                let conditions = rule
                    .arguments
                    .iter()
                    .map(|argument| condition(name, argument))
                    .collect::<Result<_, _>>()?;
                entry.push(SeccompRule::new(conditions).map_err(|e| SeccompError::Compile(e.to_string()))?);
            }
        }
    }
    for number in unconditional {
        rules.insert(number, Vec::new());
    }
    Ok(rules)
}

fn condition(name: &str, argument: &Argument) -> Result<SeccompCondition, SeccompError> {
    let compare = match argument.compare {
        Compare::Eq => SeccompCmpOp::Eq,
        Compare::Ne => SeccompCmpOp::Ne,
        Compare::Lt => SeccompCmpOp::Lt,
        Compare::Le => SeccompCmpOp::Le,
        Compare::Gt => SeccompCmpOp::Gt,
        Compare::Ge => SeccompCmpOp::Ge,
        Compare::Masked(mask) => SeccompCmpOp::MaskedEq(mask),
    };
    // An `int` is half of the register that a filter sees: with the other half set, AF_VSOCK would pass for another family.
    let length = if INT_ARGUMENTS.contains(&(name, argument.index)) && u32::try_from(argument.value).is_ok() {
        SeccompCmpArgLen::Dword
    } else {
        SeccompCmpArgLen::Qword
    };
    SeccompCondition::new(argument.index, length, compare, argument.value)
        .map_err(|e| SeccompError::Compile(e.to_string()))
}

fn action(action: Action) -> SeccompAction {
    match action {
        Action::Allow => SeccompAction::Allow,
        Action::Log => SeccompAction::Log,
        Action::Errno(number) => SeccompAction::Errno(number),
        Action::Trap => SeccompAction::Trap,
        Action::Trace(value) => SeccompAction::Trace(value),
        Action::KillThread => SeccompAction::KillThread,
        Action::KillProcess => SeccompAction::KillProcess,
    }
}

/// One instruction as the number it travels as.
fn pack(i: &sock_filter) -> u64 {
    u64::from(i.code) | u64::from(i.jt) << 16 | u64::from(i.jf) << 24 | u64::from(i.k) << 32
}

fn unpack(word: u64) -> libc::sock_filter {
    let [code0, code1, jt, jf, k @ ..] = word.to_le_bytes();
    libc::sock_filter { code: u16::from_le_bytes([code0, code1]), jt, jf, k: u32::from_le_bytes(k) }
}

/// Installs one program. Needs no_new_privs or CAP_SYS_ADMIN; unlike `seccompiler::apply_filter` it does not set the
/// former, which the container did not ask for.
pub(super) fn install(program: &[u64]) -> io::Result<()> {
    let mut instructions: Vec<libc::sock_filter> = program.iter().copied().map(unpack).collect();
    let len = u16::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: instructions.as_mut_ptr() };
    // SAFETY: seccomp(2) reads `len` instructions from `filter`; both live through the call.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::seccomp::default;

    #[test]
    fn instructions_survive_the_journey() {
        let i = sock_filter { code: 0x15, jt: 3, jf: 200, k: 0xdead_beef };
        let back = unpack(pack(&i));
        assert_eq!((back.code, back.jt, back.jf, back.k), (i.code, i.jt, i.jf, i.k));
    }

    #[test]
    fn the_default_profile_fits_the_kernels_limit() {
        for capabilities in [vec![], vec!["CAP_SYS_ADMIN".to_owned()]] {
            let programs = compile(&default::profile(&capabilities)).unwrap();
            assert!(programs.len() >= 2);
            assert!(programs.iter().all(|program| !program.is_empty() && program.len() <= 4096));
        }
    }

    /// SPEC C2
    /// Runs the compiled filters in a child of the test and reports what three calls answered there.
    #[test]
    fn the_kernel_enforces_the_default_profile() {
        let programs = compile(&default::profile(&[])).unwrap();
        // SAFETY: the child calls only async-signal-safe functions and the kernel, then _exit.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let _ = rustix::thread::set_no_new_privs(true);
            let installed = programs.iter().all(|program| install(program).is_ok());
            // SAFETY: these calls take integers and null pointers only.
            let ok = unsafe {
                let vsock =
                    libc::socket(40, libc::SOCK_STREAM, 0) == -1 && *libc::__errno_location() == libc::EPERM;
                let halves = libc::syscall(libc::SYS_socket, 0x1_0000_0028_u64, 1_u64, 0_u64) == -1
                    && *libc::__errno_location() == libc::EPERM;
                let unix = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) >= 0;
                let clone3 =
                    libc::syscall(libc::SYS_clone3, 0, 0) == -1 && *libc::__errno_location() == libc::ENOSYS;
                let unshare =
                    libc::unshare(libc::CLONE_NEWUSER) == -1 && *libc::__errno_location() == libc::EPERM;
                let newer = libc::syscall(460) == -1 && *libc::__errno_location() == libc::ENOSYS;
                installed && vsock && halves && unix && clone3 && unshare && newer
            };
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(i32::from(!ok)) };
        }
        let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
        assert_eq!(status, nix::sys::wait::WaitStatus::Exited(nix::unistd::Pid::from_raw(pid), 0));
    }
}
