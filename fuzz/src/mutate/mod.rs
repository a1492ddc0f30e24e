//! Mutations of an input: those of every fuzzer, and words of the format.

mod json;

use crate::{Target, random::Random};

/// No input grows beyond this: long inputs cost time and find little.
pub const MAX_INPUT: usize = 64 << 10;
/// Numbers at which sizes and offsets break.
const NUMBERS: [u64; 12] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
    u64::MAX - 1,
    1 << 62,
];
/// Bytes that mean something in text formats.
const SIGNS: &[u8] = b"\0\t\n\r \"#%&'*+,-./0123456789:;<=>?@[\\]^_`{|}~\x7f\x80\xff";
/// Numbers as text.
const TEXT_NUMBERS: &[&str] = &[
    "0",
    "-1",
    "1e999",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "4294967296",
    "0.5",
];

/// Changes `input`, an input of `target`, in one to some places. `other` is another one to take pieces from.
pub fn mutate(random: &mut Random, input: &mut Vec<u8>, other: &[u8], target: &Target) {
    let done = match target.json {
        Some(skip) => random.below(3) > 0 && json::mutate(random, input, other, skip),
        None => false,
    };
    if !done {
        bytes(random, input, other, target.words);
    }
    input.truncate(MAX_INPUT);
    if let Some(repair) = target.repair {
        repair(input);
    }
}

fn bytes(random: &mut Random, input: &mut Vec<u8>, other: &[u8], words: &[&str]) {
    // Mostly few changes: what is far from well-formed does not get far.
    let changes = 1 + random.length(4);
    for _ in 0..changes {
        change(random, input, other, words);
    }
}

fn change(random: &mut Random, input: &mut Vec<u8>, other: &[u8], words: &[&str]) {
    let at = random.below(input.len() + 1);
    match random.below(12) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.byte();
            }
        }
        2 => {
            if let (Some(byte), Some(sign)) = (input.get_mut(at), random.one(SIGNS)) {
                *byte = *sign;
            }
        }
        3 => number(random, input, at),
        4 => insert(input, at, &[random.byte()].repeat(1 + random.length(12))),
        5 => {
            let len = random.length(11).min(input.len() - at);
            input.drain(at..at + len);
        }
        6 => {
            let piece = piece(random, input);
            insert(input, at, &piece);
        }
        7 => {
            let piece = piece(random, other);
            insert(input, at, &piece);
        }
        8 => {
            let piece = piece(random, other);
            for (to, from) in input.iter_mut().skip(at).zip(piece) {
                *to = from;
            }
        }
        9 => input.truncate(at),
        10 => {
            if let Some(word) = random.one(TEXT_NUMBERS) {
                text_number(input, at, word.as_bytes());
            }
        }
        _ => match random.one(words) {
            Some(word) => insert(input, at, word.as_bytes()),
            None => insert(input, at, &[random.byte()]),
        },
    }
}

/// Overwrites one, two, four or eight bytes with a number at which things break, or moves the number that is there a bit.
fn number(random: &mut Random, input: &mut [u8], at: usize) {
    let width = 1 << random.below(4);
    let Some(place) = input.get_mut(at..at + width) else { return };
    let big = random.below(2) == 0;
    let value = if random.below(2) == 0 {
        random.one(&NUMBERS).copied().unwrap_or(0)
    } else {
        let mut all = [0; 8];
        for (to, from) in all.iter_mut().zip(place.iter()) {
            *to = *from;
        }
        u64::from_le_bytes(all).wrapping_add(random.number() % 17).wrapping_sub(8)
    };
    let bytes = if big { value.to_be_bytes() } else { value.to_le_bytes() };
    let from = if big { &bytes[8 - width..] } else { &bytes[..width] };
    place.copy_from_slice(from);
}

/// Replaces the digits around `at`, or inserts some.
fn text_number(input: &mut Vec<u8>, at: usize, number: &[u8]) {
    let digit = |byte: &u8| byte.is_ascii_digit();
    let start = input.iter().skip(at).position(digit).map_or(input.len(), |found| at + found);
    let len = input.iter().skip(start).take_while(|byte| digit(byte)).count();
    input.splice(start..start + len, number.iter().copied());
}

fn piece(random: &mut Random, from: &[u8]) -> Vec<u8> {
    let start = random.below(from.len() + 1);
    let len = random.length(12).min(from.len() - start);
    from.iter().skip(start).take(len).copied().collect()
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if input.len() + bytes.len() <= MAX_INPUT {
        input.splice(at..at, bytes.iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs_and_all_lengths_are_survived() {
        let run = || {
            let mut random = Random::new(7);
            let mut all = Vec::new();
            for start in [&b""[..], b"x", b"GET /containers/json?all=1 HTTP/1.1"] {
                let mut input = start.to_vec();
                for _ in 0..2000 {
                    bytes(&mut random, &mut input, b"other", &["word"]);

                    all.push(input.clone());
                    if input.len() > 4000 {
                        input = start.to_vec();
                    }
                }
            }
            all
        };
        assert_eq!(run(), run());
    }
}
