//! The vsock device of a VM, for QEMU: a vhost-user back-end (virtio 1.2, 5.10) in a thread of the process that runs the VM.
//!
//! ```text
//! qemu -object memory-backend-memfd,id=mem,size=512M,share=on -machine q35,memory-backend=mem \
//!      -chardev socket,id=vsock,path=VHOST_SOCKET -device vhost-user-vsock-pci,chardev=vsock
//! ```
//!
//! Streams only, and only from the host to the guest: a guest that wants to connect is refused. Host programs connect to the
//! *hybrid* socket and name the guest's port in a first line ([`Config::hybrid_socket`]).
//!
//! | Event | What the other side sees |
//! |---|---|
//! | client shuts its write side down | the guest reads an end; the other direction goes on |
//! | client closes | the guest gets what was sent, then a reset |
//! | client is killed with unread data | a reset at once |
//! | guest shuts its write side down | the client reads an end; the other direction goes on |
//! | guest closes | the client gets what was sent, then an end |
//! | nobody listens on the port, or no driver runs yet | the client reads an end instead of `OK` |
//! | guest breaks the protocol | that connection ends; broken rings: all do, until the driver starts anew |
//!
//! Writes to a client that is gone raise `SIGPIPE`, which Rust programs ignore from the start.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

mod backend;
mod client;
mod connection;
mod credit;
mod device;
mod endpoint;
mod error;
mod event_loop;
#[doc(hidden)]
pub mod fuzzing;
mod hybrid;
mod packet;
mod queue;
mod socket;
mod switch;
mod table;

pub use device::{Config, Device, End};
pub use error::Error;
