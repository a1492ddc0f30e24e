//! The main process's stdio: from the guest to the log and to attached clients, and from those to the guest.

mod hub;
mod input;
mod pump;
mod queue;

pub(crate) use hub::Hub;
pub(crate) use input::Input;
pub(crate) use pump::{Pump, Wanted};

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
