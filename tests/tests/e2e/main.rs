//! End-to-end tests: the docker CLI against `arca`, every container in a real VM.
//!
//! With `ARCA_E2E_HOST=unix://...` the same tests run against another engine, such as a Docker Engine: that is how the
//! tests themselves are checked. What only Arca has is left out then.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::string_slice,
    reason = "assertions are what tests are made of"
)]

mod api;
mod arca_cli;
mod cp;
mod exec;
mod guest_contract;
mod images;
mod lifecycle;
mod logs;
mod many;
mod real_programs;
mod run;
mod stdio;
mod support;
mod terminal;
