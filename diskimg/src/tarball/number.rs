//! Numbers in tar headers: octal text, or base-256 as GNU tar writes what does not fit.

/// Value of a header field. An empty field is 0, as Go's archive/tar and GNU tar read it.
pub(super) fn parse(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        return base256(field);
    }
    let text = field.split(|&b| b == 0).next().unwrap_or_default().trim_ascii();
    text.iter().try_fold(0i64, |value, &b| match b {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(b - b'0')),
        _ => None,
    })
}

/// Two's complement, big endian, with the top bit of the first byte as the mark and the next as the sign.
fn base256(field: &[u8]) -> Option<i64> {
    let negative = field[0] & 0x40 != 0;
    let fill = if negative { 0xff } else { 0 };
    let mut value: i64 = if negative { -1 } else { 0 };
    for (i, &b) in field.iter().enumerate() {
        let b = if i == 0 { (b & 0x7f) | (fill & 0x80) } else { b };
        let shifted = value.checked_mul(256)?;
        value = shifted | i64::from(b);
    }
    Some(value)
}

/// A value that cannot be negative.
pub(super) fn parse_unsigned(field: &[u8]) -> Option<u64> {
    parse(field).and_then(|v| u64::try_from(v).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal() {
        assert_eq!(parse(b"0000644\0"), Some(0o644));
        assert_eq!(parse(b"   644 \0"), Some(0o644));
        assert_eq!(parse(b"\0\0\0\0"), Some(0));
        assert_eq!(parse(b"        "), Some(0));
        assert_eq!(parse(b"77777777777"), Some(0o77777777777));
        assert_eq!(parse(b"0008"), None);
        assert_eq!(parse(b"-1"), None);
    }

    #[test]
    fn base_256() {
        assert_eq!(parse(b"\x80\0\0\0\0\0\0\0\0\0\x01\x02"), Some(258));
        assert_eq!(parse(&[0xff; 12]), Some(-1));
        assert_eq!(parse(b"\xff\xff\xff\xff\xff\xff\xff\xfe"), Some(-2));
        assert_eq!(parse(b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None);
        assert_eq!(parse_unsigned(&[0xff; 12]), None);
        assert_eq!(parse(b""), None);
    }
}
