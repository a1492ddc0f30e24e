//! Mutations of JSON that leave it JSON: what is behind its parser is reached much more often.

use serde_json::{Map, Value, json};

use crate::random::Random;

/// Deepest place that is changed.
const MAX_DEPTH: usize = 12;

/// Changes the JSON behind the first `skip` bytes of `input`, if there is some, with parts of that in `other`.
pub(super) fn mutate(random: &mut Random, input: &mut Vec<u8>, other: &[u8], skip: usize) -> bool {
    let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes.get(skip..).unwrap_or_default()).ok();
    let Some(mut value) = parse(input) else { return false };
    let other = parse(other).unwrap_or(Value::Null);
    for _ in 0..=random.below(3) {
        change(random, &mut value, &other, 0);
    }
    let Ok(text) = serde_json::to_vec(&value) else { return false };
    input.truncate(skip);
    input.extend_from_slice(&text);
    true
}

fn change(random: &mut Random, value: &mut Value, other: &Value, depth: usize) {
    if depth < MAX_DEPTH && random.below(5) > 0 {
        match value {
            Value::Object(map) if !map.is_empty() => return change_object(random, map, other, depth),
            Value::Array(list) if !list.is_empty() => {
                let at = random.below(list.len());
                match random.below(6) {
                    0 => drop(list.remove(at)),
                    1 => list.extend_from_within(at..=at),
                    _ => change(random, &mut list[at], other, depth + 1),
                }
                return;
            }
            Value::String(text) if random.below(2) == 0 => {
                let mut bytes = std::mem::take(text).into_bytes();
                super::change(random, &mut bytes, b"0/:,.-", &[]);
                *text = String::from_utf8_lossy(&bytes).into_owned();
                return;
            }
            _ => {}
        }
    }
    *value = scalar(random, other);
}

fn change_object(random: &mut Random, map: &mut Map<String, Value>, other: &Value, depth: usize) {
    let Some(key) = map.keys().nth(random.below(map.len())).cloned() else { return };
    match random.below(8) {
        0 => drop(map.remove(&key)),
        1 => {
            // Its value under another name, which another place may know.
            let name = other.as_object().and_then(|other| other.keys().nth(random.below(other.len())));
            if let (Some(name), Some(value)) = (name.cloned(), map.remove(&key)) {
                map.insert(name, value);
            }
        }
        2 => {
            if let Some((key, value)) =
                other.as_object().and_then(|other| other.iter().nth(random.below(other.len())))
            {
                map.insert(key.clone(), value.clone());
            }
        }
        _ => {
            if let Some(value) = map.get_mut(&key) {
                change(random, value, other, depth + 1);
            }
        }
    }
}

/// A value at which things break, or a part of `other`.
fn scalar(random: &mut Random, other: &Value) -> Value {
    match random.below(16) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(0),
        3 => json!(-1),
        4 => json!(u64::MAX),
        5 => json!(i64::MIN),
        6 => json!(1.5e300),
        7 => json!(random.number() >> random.below(64)),
        8 => json!(""),
        9 => json!("x".repeat(1 + random.length(10))),
        10 => json!("-1"),
        11 => json!("é\u{0}\u{202e}/../"),
        12 => json!([]),
        13 => json!({}),
        14 => json!(["a", "b=c"]),
        _ => match other {
            Value::Object(map) => map.values().nth(random.below(map.len())).cloned().unwrap_or_default(),
            other => other.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_json_and_changes() {
        let mut random = Random::new(3);
        let seed = br#"!{"a":[1,{"b":"text"}],"c":{"d":null}}"#;
        let mut different = 0;
        for _ in 0..500 {
            let mut input = seed.to_vec();
            assert!(mutate(&mut random, &mut input, br#"!{"e":5}"#, 1));
            assert_eq!(input[0], b'!');
            serde_json::from_slice::<Value>(&input[1..]).unwrap();
            different += usize::from(input != seed);
        }
        assert!(different > 400, "{different}");
        assert!(!mutate(&mut random, &mut b"!no".to_vec(), b"", 1));
    }
}
