//! Series of measurements.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::Result;

/// Measured durations, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    /// Adds one.
    pub(crate) fn push(&mut self, duration: Duration) {
        self.0.push(duration.as_secs_f64() * 1000.0);
    }

    /// Runs and measures.
    pub(crate) fn measure<T>(&mut self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let result = work()?;
        self.push(started.elapsed());
        Ok(result)
    }

    /// The value in the middle; 0 without any.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    /// How many times longer than `peer`, by the medians.
    pub(crate) fn ratio(&self, peer: &Self) -> f64 {
        self.median() / peer.median()
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let min = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let max = self.0.iter().copied().fold(0.0, f64::max);
        write!(f, "{:8.1} ms  ({min:.1} to {max:.1}, n = {})", self.median(), self.0.len())
    }
}
