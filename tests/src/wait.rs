//! Waiting for what comes by itself.

use std::time::{Duration, Instant};

/// Tries until it holds.
///
/// # Panics
/// With `what`, when it does not hold within `limit`: this is a test's assertion.
#[track_caller]
pub fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
