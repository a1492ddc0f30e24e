//! PAX extended headers (POSIX.1-2001): `LEN KEY=VALUE\n` records.
//!
//! Read here rather than by the tar crate, whose iterator splits records at every newline: binary values such
//! as `security.capability` hold newlines too.

/// Records of one extended header, in order.
pub(super) struct Records<'a>(&'a [u8]);

impl<'a> Records<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    fn record(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let space = self.0.iter().take(20).position(|&b| b == b' ')?;
        let len: usize = std::str::from_utf8(&self.0[..space]).ok()?.parse().ok()?;
        let body = self.0.get(space + 1..len)?.strip_suffix(b"\n")?;
        let equals = body.iter().position(|&b| b == b'=')?;
        self.0 = &self.0[len..];
        Some((&body[..equals], &body[equals + 1..]))
    }
}

impl<'a> Iterator for Records<'a> {
    /// Key and value; `None` inside for a malformed rest.
    type Item = Option<(&'a [u8], &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.record();
        if record.is_none() {
            self.0 = &[];
        }
        Some(record)
    }
}

/// A decimal number without sign.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.first()?.is_ascii_digit() { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

/// A PAX time: seconds with an optional fraction, possibly negative. Digits below a nanosecond are dropped.
pub(super) fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = whole.starts_with('-');
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = nanos.fold(0u32, |n, b| n * 10 + u32::from(b - b'0'));
    if negative && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_newlines_and_equals() {
        let data = b"11 a=b\n=c\n\n6 k=v\n";
        let got: Vec<_> = Records::new(data).collect();
        assert_eq!(got, [Some((&b"a"[..], &b"b\n=c\n"[..])), Some((&b"k"[..], &b"v"[..]))]);
    }

    #[test]
    fn malformed_records_end_the_header() {
        for bad in [&b"x"[..], b"99 a=b\n", b"6 ab\n\n", b"6 a=bc", b"2 a=b\n", b"0 a=b\n", b"-6 a=b\n"] {
            assert_eq!(Records::new(bad).collect::<Vec<_>>(), [None], "{bad:?}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(time(b"1700000000.1234567899"), Some((1_700_000_000, 123_456_789)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-0.5"), Some((-1, 500_000_000)));
        assert_eq!(time(b"7"), Some((7, 0)));
        assert_eq!(time(b"1.x"), None);
        assert_eq!(time(b""), None);
        assert_eq!(decimal(b"+1"), None);
    }
}
