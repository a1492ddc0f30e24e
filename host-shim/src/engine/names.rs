//! Names nobody chose: adjective and surname, as Docker's users expect them.

use rand::{Rng, seq::IndexedRandom};

const LEFT: [&str; 40] = [
    "able", "bold", "brave", "bright", "calm", "clever", "cosy", "curious", "daring", "eager", "fair",
    "fervent", "gentle", "gifted", "glad", "happy", "humble", "jolly", "keen", "kind", "lively", "lucid",
    "merry", "modest", "neat", "noble", "patient", "placid", "proud", "quiet", "quirky", "serene", "silent",
    "sleepy", "steady", "sunny", "vivid", "warm", "wise", "zealous",
];
const RIGHT: [&str; 40] = [
    "abel",
    "ampere",
    "babbage",
    "bohr",
    "cantor",
    "cerf",
    "curie",
    "dijkstra",
    "dirac",
    "euler",
    "faraday",
    "fermat",
    "galois",
    "gauss",
    "germain",
    "goedel",
    "hamilton",
    "hilbert",
    "hopper",
    "hypatia",
    "kepler",
    "knuth",
    "laplace",
    "leavitt",
    "liskov",
    "lovelace",
    "maxwell",
    "meitner",
    "mendel",
    "newton",
    "noether",
    "pascal",
    "payne",
    "planck",
    "ramanujan",
    "ritchie",
    "shannon",
    "tesla",
    "turing",
    "volta",
];

/// A name such as `quiet_noether`; from the second try on with a digit behind it, since the first was taken.
#[must_use]
pub(crate) fn random(attempt: u32) -> String {
    let mut rng = rand::rng();
    let left = LEFT.choose(&mut rng).copied().unwrap_or("able");
    let right = RIGHT.choose(&mut rng).copied().unwrap_or("abel");
    if attempt == 0 {
        format!("{left}_{right}")
    } else {
        format!("{left}_{right}{}", rng.random_range(0..10_u32.pow(attempt.min(6))))
    }
}

/// A fresh 64-digit hexadecimal id. Never all digits in its short form, as moby: a hostname of digits alone confuses tools.
#[must_use]
pub(crate) fn id() -> String {
    loop {
        let bytes: [u8; 32] = rand::rng().random();
        let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if id.bytes().take(12).any(|byte| byte.is_ascii_alphabetic()) {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_rule_for_names() {
        for attempt in 0..4 {
            let name = random(attempt);
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{name}"
            );
        }
    }

    #[test]
    fn ids_are_64_hex_digits_and_differ() {
        let (a, b) = (id(), id());
        assert_ne!(a, b);
        assert_eq!(a.len(), 64);
        assert!(a.bytes().all(|b| b.is_ascii_hexdigit()));
    }
}
