//! What end-to-end tests and benchmarks share: a daemon of their own, the docker CLI, images made offline, a registry on
//! loopback, terminals.
//!
//! Everything here drives the real binaries as a user would. Nothing stands in for a VM.

#![forbid(unsafe_code)]

pub mod cache;
pub mod daemon;
pub mod docker;
pub mod image;
pub mod registry;
pub mod saboteur;
pub mod strays;
pub mod terminal;
pub mod vm;
pub mod wait;
