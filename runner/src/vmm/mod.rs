//! Hypervisors behind one trait.

pub mod probe;
pub mod qemu;

use async_trait::async_trait;
use tonic::transport::Channel;

use crate::{Error, VmSpec};

/// A way to make VMs.
#[async_trait]
pub trait Vmm: Send + Sync {
    /// Starts a VM; answers when its processes run, not when its guest answers.
    async fn boot(&self, spec: &VmSpec) -> Result<Box<dyn Vm>, Error>;
}

/// One VM. Dropping it kills what is left of its processes.
#[async_trait]
pub trait Vm: Send + Sync {
    /// Process id of the hypervisor.
    fn pid(&self) -> u32;
    /// A gRPC channel to a vsock port of the guest, dialled lazily and again after a loss.
    fn channel(&self, port: u32) -> Channel;
    /// Answers once the hypervisor is gone and everything of the VM is reaped, with how it ended. May be called again.
    async fn wait(&self) -> String;
    /// Ends the VM by force; [`Vm::wait`] then answers.
    fn kill(&self);
    /// Whether it stands still until the host's disk has room for what the guest writes. It goes on by itself.
    fn waits_for_room(&self) -> bool;
    /// What is odd about its processes, for an error message, with its own leading punctuation; usually empty.
    fn condition(&self) -> String;
    /// The last `lines` lines of the console and of the processes' messages, for an error message.
    fn tail(&self, lines: usize) -> String;
}
