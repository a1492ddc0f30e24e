//! Sizes as people write them.

/// Bytes of `512m`, `4g`, `4 GiB`, `1073741824`: binary units, as `docker run -m` reads them. `None` for anything else.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim();
    let shift = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit) {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift);
    }
    let fraction = number.parse::<f64>().ok().filter(|f| f.is_finite())?;
    #[allow(clippy::cast_precision_loss, reason = "a power of two is exact")]
    let bytes = fraction * (1_u64 << shift) as f64;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "range checked")]
    (bytes < 1e18).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("4g", 4 << 30),
            ("512M", 512 << 20),
            ("1.5GiB", 3 << 29),
            ("1024", 1024),
            ("2 kb", 2048),
            ("0", 0),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "g", "-1", "4x", "1..2", "99999999999t", "1e5"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
