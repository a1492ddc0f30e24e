//! Nothing lost, nothing let in: the promises of docs/SPECIFICATION.md, each broken on purpose. The number of the promise stands
//! above its test as `/// SPEC D1`; `specification` checks that none lacks a test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::string_slice,
    reason = "assertions are what tests are made of"
)]

mod api_abuse;
mod bad_images;
mod crash;
mod environment;
mod failures;
mod hostile_container;
mod hostile_guest;
mod ordinary_user;
mod privileges;
mod specification;
mod support;
mod torture;
