//! Disks of a micro-VM, written in user space: no root, no loop mounts.
//!
//! - [`LayerDisk`] turns OCI layers into a read-only EROFS image (docs: kernel `Documentation/filesystems/erofs.rst`;
//!   layers: OCI image-spec `layer.md`).
//! - [`Members`] lists the files of other archives with the same bounded reader.
//! - [`ext4_template`] and [`clone_sparse`] give each container a sparse writable ext4 disk.

#![forbid(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "fields of the disk are narrow; what goes into them is bounded where it comes in (block numbers by the image's \
              limit, attributes by MAX_ENCODED, ids by the inode limit), and the fuzz target `layer` reads images back"
)]

mod data;
mod erofs;
mod error;
mod ext4;
mod layer;
mod layerdisk;
mod limits;
mod path;
mod sparse;
mod tarball;
mod tree;
mod xattr;

pub use erofs::{Summary, is_whole};
pub use error::{Bound, Error, Fault, Result};
pub use ext4::{DEFAULT_SIZE, ext4_template};
pub use layer::LayerStats;
pub use layerdisk::LayerDisk;
pub use limits::{Limits, Options};
pub use sparse::clone_sparse;
pub use tarball::{Member, MemberKind, Members};
