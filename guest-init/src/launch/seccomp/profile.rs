//! A seccomp profile, as docker's default states it and as `--security-opt seccomp=FILE` brings it.

/// What happens to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    /// It goes on.
    Allow,
    /// It goes on and is logged.
    Log,
    /// It fails with this error number.
    Errno(u32),
    /// SIGSYS
    Trap,
    /// The tracer is told.
    Trace(u32),
    /// The thread ends.
    KillThread,
    /// The process ends.
    KillProcess,
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `& mask ==`
    Masked(u64),
}

/// A condition on one argument.
#[derive(Clone, Copy, Debug)]
pub(super) struct Argument {
    /// 0..=5
    pub(super) index: u8,
    /// How.
    pub(super) compare: Compare,
    /// With what.
    pub(super) value: u64,
}

/// Rules for some system calls: `action` when all of `arguments` hold.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// Names; those this processor does not have are skipped, as docker does.
    pub(super) names: Vec<String>,
    /// What to do.
    pub(super) action: Action,
    /// Conditions.
    pub(super) arguments: Vec<Argument>,
}

/// A whole profile.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    /// For calls that no rule is about.
    pub(super) default: Action,
    /// The rules that hold for this processor and these capabilities.
    pub(super) rules: Vec<Rule>,
}
