//! JSON as a tree, read as Go reads it where a key comes twice, and never larger than it should be.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Error, Map, Value};

/// Values of one body. A tree takes far more memory than its text, `[0,0,0...]` thirty times as much.
const MAX_VALUES: usize = 100_000;

/// Reads one value and nothing behind it but blanks; `None` when there is no value at all. Depth is bounded by
/// `serde_json` (128).
///
/// # Errors
/// What is no JSON, or too much of it.
pub(super) fn parse(text: &[u8]) -> Result<Option<(Value, bool)>, Error> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let left = Cell::new(MAX_VALUES);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Tree(&left).deserialize(&mut reader)?;
    Ok(Some((value, reader.end().is_ok())))
}

/// A value, with how many more there may be.
#[derive(Clone, Copy)]
struct Tree<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        let left = self.0.get().checked_sub(1);
        self.0.set(left.ok_or_else(|| D::Error::custom(format_args!("more than {MAX_VALUES} values")))?);
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(self)?;
            // The last of a key counts; null changes nothing.
            if !value.is_null() || !values.contains_key(&key) {
                values.insert(key, value);
            }
        }
        Ok(values.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_of_a_key_counts() {
        let read = |text: &str| parse(text.as_bytes()).unwrap();
        assert_eq!(read(r#"{"a":1,"b":[true,null,"x",-1,1.5],"a":2,"b":null}"#).unwrap().0["a"], json!(2));
        assert_eq!(read(r#"{"a":1,"a":null} "#), Some((json!({"a": 1}), true)));
        assert_eq!(read("{} {}"), Some((json!({}), false)));
        assert_eq!(read(" \n"), None);
    }

    /// SPEC A6
    #[test]
    fn many_values_and_deep_ones_are_refused() {
        let list = |n: usize| format!("[{}0]", "0,".repeat(n));
        assert!(parse(list(MAX_VALUES - 2).as_bytes()).is_ok());
        assert!(
            parse(list(MAX_VALUES).as_bytes())
                .unwrap_err()
                .to_string()
                .starts_with("more than 100000 values")
        );
        for deep in ["[", r#"{"a":"#] {
            assert!(
                parse(deep.repeat(10_000).as_bytes()).unwrap_err().to_string().starts_with("recursion limit")
            );
        }
    }
}
