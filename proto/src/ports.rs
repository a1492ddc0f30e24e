//! vsock port numbers. The host dials, a guest only listens.

/// Control port of every guest: `arca.sandbox.v1` and `arca.tapforwarder.v1`.
pub const GUEST_CONTROL: u32 = 5555;
/// Control port of the helper VM's network agent.
pub const HELPER_CONTROL: u32 = 9999;
/// CID of the host as a guest sees it (`VMADDR_CID_HOST`, vsock(7)).
pub const HOST_CID: u32 = 2;
