//! One worker for one piece of work: whoever comes second waits and finds it done.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::watch;

/// Work under way, by key. Entries vanish with their last user.
#[derive(Default)]
pub(crate) struct Flights(Mutex<HashMap<String, Weak<Flight>>>);

/// One piece of work.
pub(crate) struct Flight {
    /// Held by whoever works; the next holder must look first whether the work is done.
    pub(crate) gate: Arc<tokio::sync::Mutex<()>>,
    /// Bytes done, for those who wait.
    pub(crate) done: watch::Sender<u64>,
}

impl Flights {
    /// The flight of `key`, shared with all who joined before.
    pub(crate) fn join(&self, key: &str) -> Arc<Flight> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = flights.get(key).and_then(Weak::upgrade) {
            return flight;
        }
        let flight = Arc::new(Flight { gate: Arc::default(), done: watch::Sender::new(0) });
        flights.insert(key.to_owned(), Arc::downgrade(&flight));
        flight
    }
}
