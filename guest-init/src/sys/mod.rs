//! Thin, safe wrappers of the system calls that `nix` and `rustix` do not cover the way PID 1 needs them.

pub(crate) mod fdpass;
pub(crate) mod inroot;
pub(crate) mod loopback;
pub(crate) mod priority;
pub(crate) mod random;
pub(crate) mod tty;
