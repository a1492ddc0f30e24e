//! Times as Go prints and reads them, and durations as `docker ps` words them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Go's zero `time.Time`.
pub const ZERO: &str = "0001-01-01T00:00:00Z";

/// Nanoseconds since the epoch.
#[must_use]
pub fn now_nanos() -> i128 {
    OffsetDateTime::now_utc().unix_timestamp_nanos()
}

/// The present, as [`format`] prints it.
#[must_use]
pub fn now() -> String {
    format(now_nanos())
}

/// RFC3339Nano as Go prints UTC: trailing zeros of the fraction are dropped.
#[must_use]
pub fn format(nanos: i128) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|t| t.format(&Rfc3339).ok())
        .unwrap_or_else(|| ZERO.to_owned())
}

/// Nanoseconds since the epoch of an RFC 3339 time; `None` for the zero time or garbage.
#[must_use]
pub fn parse(text: &str) -> Option<i128> {
    if text == ZERO || text.is_empty() {
        return None;
    }
    OffsetDateTime::parse(text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp_nanos)
}

/// A time of the API as the log reader wants it.
#[must_use]
pub fn split(nanos: i128) -> (i64, u32) {
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).unwrap_or(0);
    let rest = u32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or(0);
    (seconds, rest)
}

/// Time from `from` (RFC 3339) to now; zero when it lies ahead or is the zero time.
#[must_use]
pub fn since(from: &str) -> Duration {
    let Some(from) = parse(from) else { return Duration::ZERO };
    u64::try_from(now_nanos() - from).map_or(Duration::ZERO, Duration::from_nanos)
}

/// go-units' `HumanDuration`: what stands behind "Up" in `docker ps`.
#[must_use]
pub fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    // Rounded as Go does: hours to the nearest.
    let hours = seconds.saturating_add(1800) / 3600;
    match seconds {
        0 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".into(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// Seconds since the epoch of the host's clock, for the guest.
#[must_use]
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `1h30m`, `10s`, `1.5h`: Go's `time.ParseDuration` without signs.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at_checked(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?)?;
        let value: f64 = number.parse().ok()?;
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, behind) = tail.split_at_checked(unit_end)?;
        let unit = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(value * unit).ok()?)?;
        rest = behind;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
        for bad in ["", "h", "x", "5", "5 days", "1d", "1x", "-1h"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_print_as_go_does() {
        assert_eq!(format(1_795_217_522_075_151_831), "2026-11-20T23:32:02.075151831Z");
        assert_eq!(format(1_795_217_522_070_000_000), "2026-11-20T23:32:02.07Z");
        assert_eq!(format(1_795_217_522_000_000_000), "2026-11-20T23:32:02Z");
        assert_eq!(parse("2026-11-20T23:32:02.07Z"), Some(1_795_217_522_070_000_000));
        assert_eq!(parse(ZERO), None);
    }

    #[test]
    fn durations_read_as_in_docker_ps() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (14 * 86400, "2 weeks"),
            (60 * 86400, "2 months"),
            (730 * 86400, "2 years"),
        ] {
            assert_eq!(human(Duration::from_secs(seconds)), text);
        }
    }
}
