//! The gRPC contracts of Arca, shared by the daemon, the runners, the guests and the helper VM.
//!
//! [`sandbox`] is the guest's control service, [`tapforwarder`] its network side, [`runner`] the process beside each VM.
//! [`ports`] holds the vsock ports, [`detail`] the error details every status carries, [`dial`] the way to a guest,
//! [`frame`] the codec of Ethernet frames on a stream.

#![forbid(unsafe_code)]

pub mod detail;
pub mod dial;
pub mod frame;
pub mod ports;

/// The generated modules, nested as the packages are since they refer to each other.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated; documented in the .proto files"
)]
mod arca {
    pub mod sandbox {
        pub mod v1 {
            tonic::include_proto!("arca.sandbox.v1");
        }
    }
    pub mod tapforwarder {
        pub mod v1 {
            tonic::include_proto!("arca.tapforwarder.v1");
        }
    }
    pub mod runner {
        pub mod v1 {
            tonic::include_proto!("arca.runner.v1");
        }
    }
}

pub use arca::{runner::v1 as runner, sandbox::v1 as sandbox, tapforwarder::v1 as tapforwarder};
