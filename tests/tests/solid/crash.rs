//! The daemon is killed at any moment; nothing is lost.
