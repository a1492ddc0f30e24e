//! The rate of the host's time stamp counter: a guest under TCG sees the host's, and need not calibrate when it is told.

use std::time::Duration;

/// The rate in kHz, measured over some milliseconds; `None` where there is no constant one.
pub(super) async fn khz() -> Option<u64> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    if !flags.split_whitespace().any(|flag| flag == "constant_tsc") {
        return None;
    }
    let (ticks, clock) = sample()?;
    tokio::time::sleep(WINDOW).await;
    let (later_ticks, later_clock) = sample()?;
    let nanos = later_clock.checked_sub(clock)?.as_nanos();
    let khz = u128::from(later_ticks.checked_sub(ticks)?) * 1_000_000 / nanos.max(1);
    u64::try_from(khz).ok().filter(|khz| PLAUSIBLE.contains(khz))
}

/// Measured time: reading both clocks at once is good to about 50 ns, so the rate to a few millionths.
const WINDOW: Duration = Duration::from_millis(10);
/// Rates in kHz that real machines have.
const PLAUSIBLE: std::ops::Range<u64> = 400_000..10_000_000;

/// Counter and clock at the same time: of several readings the one with the least between.
#[cfg(target_arch = "x86_64")]
fn sample() -> Option<(u64, Duration)> {
    (0..8)
        .map(|_| {
            let before = counter();
            let clock = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicRaw);
            let after = counter();
            (before, after, clock)
        })
        .min_by_key(|(before, after, _)| after.saturating_sub(*before))
        .and_then(|(before, after, clock)| {
            let clock = Duration::new(u64::try_from(clock.tv_sec).ok()?, u32::try_from(clock.tv_nsec).ok()?);
            Some((before + after.saturating_sub(before) / 2, clock))
        })
}

#[cfg(not(target_arch = "x86_64"))]
fn sample() -> Option<(u64, Duration)> {
    None
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the instruction has no safe wrapper")]
fn counter() -> u64 {
    // SAFETY: RDTSC is part of every x86-64 processor and touches no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_measurements_agree() {
        let Some(one) = khz().await else { return };
        let other = khz().await.unwrap();
        assert!(one.abs_diff(other) < one / 1000, "{one} and {other}");
    }
}
