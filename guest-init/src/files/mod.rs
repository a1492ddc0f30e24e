//! Files of a container: stat, archive out and in (`docker cp`), changes (`docker diff`).
//!
//! Every path is resolved by the kernel inside the container's root ([`root::Root`], openat2 with `RESOLVE_IN_ROOT`), so
//! neither a hostile image or tar nor a process of the container racing with symlinks reaches a file outside it. All
//! functions block: call them from a blocking thread, with [`chunks`] between them and a gRPC stream.

pub(crate) mod changes;
pub(crate) mod chunks;
mod error;
mod get;
mod node;
mod pax;
mod place;
mod put;
pub(crate) mod root;
mod stat;

pub(crate) use changes::changes;
pub(crate) use error::FilesError;
pub(crate) use get::get;
pub(crate) use put::{PutOptions, put};
pub(crate) use stat::stat;
