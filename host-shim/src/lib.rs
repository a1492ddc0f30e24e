//! Arca's host side: the Docker Engine API ([`api`]), all decisions ([`engine`]), durable state ([`store`]) and the
//! command line ([`cli`]).

#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
pub mod config;
pub mod engine;
pub mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod home;
pub mod store;
