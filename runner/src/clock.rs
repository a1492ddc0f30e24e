//! Timestamps: RFC 3339 in UTC with nine digits, the form of Docker's logs and states.

use std::time::{SystemTime, UNIX_EPOCH};

use time::{
    OffsetDateTime,
    format_description::{BorrowedFormatItem, well_known::Rfc3339},
    macros::format_description,
};

const NANO: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z");

/// A point in time: seconds and nanoseconds since the epoch.
pub(crate) type Stamp = (i64, u32);

/// The host's clock.
pub(crate) fn now() -> Stamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(now.as_secs()).unwrap_or(i64::MAX), now.subsec_nanos())
}

/// As text; years beyond 9999 become the epoch.
pub(crate) fn format((seconds, nanos): Stamp) -> String {
    let time =
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(seconds) * 1_000_000_000 + i128::from(nanos));
    time.ok()
        .and_then(|time| time.format(NANO).ok())
        .unwrap_or_else(|| String::from("1970-01-01T00:00:00.000000000Z"))
}

/// From text, any RFC 3339 form.
pub(crate) fn parse(text: &str) -> Option<Stamp> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some((time.unix_timestamp(), time.nanosecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let stamp = (1_790_000_000, 50);
        assert_eq!(format(stamp), "2026-09-21T14:13:20.000000050Z");
        assert_eq!(parse(&format(stamp)), Some(stamp));
        assert_eq!(parse("2026-09-21T16:13:20+02:00"), Some((1_790_000_000, 0)));
        assert_eq!(parse("yesterday"), None);
        assert_eq!(format((i64::MAX, 0)), "1970-01-01T00:00:00.000000000Z");
    }
}
