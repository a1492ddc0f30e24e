//! Hypervisors behind one trait.

pub mod probe;
