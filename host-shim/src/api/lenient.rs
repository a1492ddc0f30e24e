//! Decoding JSON into structs as Go's `encoding/json` does: keys match whatever their case, `null` is the zero value.
//!
//! Only keys of *structs* are folded; keys of maps (labels, ports, driver options) are the user's. Structs must carry
//! `#[serde(default)]` and must not use `#[serde(flatten)]`, which serde reads as a map.

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor,
    value::StringDeserializer,
};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Map, Value};

/// Decodes `value`.
///
/// # Errors
/// When a value has a type that its field cannot take.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    T::deserialize(Lenient(value))
}

struct Lenient(Value);

impl<'de> Deserializer<'de> for Lenient {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(list) => visitor.visit_seq(List(list.into_iter())),
            Value::Object(map) => visitor.visit_map(Object { rest: map.into_iter(), value: None }),
            scalar => scalar.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_str(""),
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(map) => {
                visitor.visit_map(Object { rest: fold(map, fields).into_iter(), value: None })
            }
            // Go leaves a struct at its zero value.
            Value::Null => visitor.visit_map(Object { rest: Map::new().into_iter(), value: None }),
            _ => Err(serde::de::Error::custom(format_args!("expected an object for {name}"))),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_map(Object { rest: Map::new().into_iter(), value: None }),
            other => Lenient(other).deserialize_any(visitor),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_seq(List(Vec::new().into_iter())),
            other => Lenient(other).deserialize_any(visitor),
        }
    }

    /// Go's arrays take what fits and are zero behind it; they are arrays of numbers, all of them.
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(mut list) => {
                list.resize(len, Value::from(0));
                visitor.visit_seq(List(list.into_iter()))
            }
            other => Lenient(other).deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(Name(self.0))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str bytes byte_buf unit unit_struct tuple_struct identifier ignored_any
    }
}

/// Renames keys to the fields they mean and drops nulls. As in Go, the last that means a field counts, however it is spelled.
fn fold(map: Map<String, Value>, fields: &'static [&'static str]) -> Map<String, Value> {
    let mut folded = Map::new();
    for (key, value) in map.into_iter().filter(|(_, v)| !v.is_null()) {
        let field = fields.iter().find(|f| f.eq_ignore_ascii_case(&key));
        folded.insert(field.map_or(key, |f| (*f).to_owned()), value);
    }
    folded
}

struct List(std::vec::IntoIter<Value>);

impl<'de> SeqAccess<'de> for List {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.next().map(|value| seed.deserialize(Lenient(value))).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

struct Object {
    rest: serde_json::map::IntoIter,
    value: Option<Value>,
}

impl<'de> MapAccess<'de> for Object {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(StringDeserializer::<Error>::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(Lenient(self.value.take().unwrap_or(Value::Null)))
    }
}

/// Unit variants only: moby's enums are strings.
struct Name(Value);

impl<'de> EnumAccess<'de> for Name {
    type Error = Error;
    type Variant = Unit;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Unit), Error> {
        match self.0 {
            Value::String(name) => Ok((seed.deserialize(StringDeserializer::<Error>::new(name))?, Unit)),
            _ => Err(serde::de::Error::custom("expected a string")),
        }
    }
}

struct Unit;

impl<'de> serde::de::VariantAccess<'de> for Unit {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Error> {
        Err(serde::de::Error::custom("expected a plain string"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(serde::de::Error::custom("expected a plain string"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Error> {
        Err(serde::de::Error::custom("expected a plain string"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct Outer {
        image: String,
        labels: BTreeMap<String, String>,
        host_config: Inner,
        dns: Vec<String>,
        ports: BTreeMap<String, Option<Vec<String>>>,
        cmd: Option<Vec<String>>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct Inner {
        memory: i64,
        mode: Mode,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        #[default]
        Private,
        Host,
    }

    #[test]
    fn as_go_reads_it() {
        let got: Outer = from_value(json!({
            "image": "busybox", "LABELS": {"Key": "v", "n": null}, "hostconfig": {"MEMORY": 5, "Mode": "host", "Later": {}},
            "Dns": null, "Ports": {"80/tcp": null, "81/tcp": ["x"]}, "Unknown": [1]
        }))
        .unwrap();
        let want = Outer {
            image: "busybox".into(),
            labels: BTreeMap::from([("Key".into(), "v".into()), ("n".into(), String::new())]),
            host_config: Inner { memory: 5, mode: Mode::Host },
            ports: BTreeMap::from([("80/tcp".into(), None), ("81/tcp".into(), Some(vec!["x".into()]))]),
            ..Outer::default()
        };
        assert_eq!(got, want);
    }

    #[test]
    fn the_last_spelling_wins() {
        for body in [json!({"Image": "a", "image": "b"}), json!({"image": "a", "Image": "b"})] {
            assert_eq!(from_value::<Outer>(body).unwrap().image, "b");
        }
    }

    #[test]
    fn wrong_types_are_errors() {
        for body in [json!({"Image": 1}), json!([]), json!("x"), json!({"HostConfig": {"Mode": "bogus"}})] {
            assert!(from_value::<Outer>(body.clone()).is_err(), "{body}");
        }
        assert_eq!(from_value::<Outer>(json!(null)).unwrap(), Outer::default());
    }
}
