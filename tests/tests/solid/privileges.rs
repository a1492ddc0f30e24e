//! As root: what its VMs may do.
