//! The query string, read as moby's handlers read it.

use std::{collections::BTreeMap, convert::Infallible};

use axum::{extract::FromRequestParts, http::request::Parts};
use serde_json::Value;

use crate::error::{Error, Result};

/// Parameters of a request in their order; a name may occur several times. Use it as an extractor; it never fails.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes a query string; what is not valid UTF-8 is replaced.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// First value of `name`, if given and not empty (Go's `r.Form.Get` does not tell absent from empty).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.first(name).filter(|v| !v.is_empty())
    }

    /// Whether `name` is given at all.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }

    /// All values of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// moby's `BoolValue`: absent, "", "0", "no", "false" and "none" are false, all else is true.
    #[must_use]
    pub fn bool(&self, name: &str) -> bool {
        let value = self.first(name).unwrap_or("").trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// moby's `BoolValueOrDefault`: `default` only when absent.
    #[must_use]
    pub fn bool_or(&self, name: &str, default: bool) -> bool {
        if self.has(name) { self.bool(name) } else { default }
    }

    /// A whole number; `None` when absent or empty.
    ///
    /// # Errors
    /// 400 in Go's wording when it is none.
    pub fn int<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Error::invalid(format!("strconv.Atoi: parsing {value:?}: invalid syntax"))),
        }
    }

    /// The parameter `filters`.
    ///
    /// # Errors
    /// 400 `invalid filter` when it is not what a filter looks like.
    pub fn filters(&self) -> Result<Filters> {
        self.get("filters").map_or_else(|| Ok(Filters::default()), Filters::parse)
    }

    fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query().unwrap_or("")))
    }
}

/// moby's `filters.Args`: values per key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads `{"key": ["value"]}` or the legacy `{"key": {"value": true}}`.
    ///
    /// # Errors
    /// 400 `invalid filter`.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = || Error::invalid("invalid filter");
        let Ok(Value::Object(map)) = serde_json::from_str(text) else { return Err(invalid()) };
        let mut filters = BTreeMap::new();
        for (key, values) in map {
            let values = match values {
                Value::Array(list) => list
                    .into_iter()
                    .map(|v| v.as_str().map(str::to_owned).ok_or_else(invalid))
                    .collect::<Result<_>>()?,
                // As in Go, a value counts by being there, whatever its boolean says.
                Value::Object(set) => set.into_iter().map(|(value, _)| value).collect(),
                Value::Null => Vec::new(),
                _ => return Err(invalid()),
            };
            filters.insert(key, values);
        }
        Ok(Self(filters))
    }

    /// Values of `key`; empty when absent.
    #[must_use]
    pub fn get(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether there is a value for `key`.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        !self.get(key).is_empty()
    }

    /// Whether no filter is given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses keys outside `allowed`.
    ///
    /// # Errors
    /// 400 `invalid filter 'key'`.
    pub fn check(&self, allowed: &[&str]) -> Result<()> {
        match self.0.keys().find(|k| !allowed.contains(&k.as_str())) {
            Some(key) => Err(Error::invalid(format!("invalid filter '{key}'"))),
            None => Ok(()),
        }
    }

    /// A boolean filter such as `dangling`.
    ///
    /// # Errors
    /// 400 when its values are none or contradict each other.
    pub fn bool_or(&self, key: &str, default: bool) -> Result<bool> {
        let Some(values) = self.0.get(key) else { return Ok(default) };
        let any = |a: &str, b: &str| values.iter().any(|v| v == a || v == b);
        match (any("1", "true"), any("0", "false")) {
            (yes, no) if yes != no => Ok(yes),
            _ if values.is_empty() => Err(Error::invalid(format!("invalid filter '{key}'"))),
            _ => Err(Error::invalid(format!("invalid filter '{key}=[{}]'", values.join(" ")))),
        }
    }

    /// Whether any value of `key` equals `text`; true when there is no such filter (moby's `ExactMatch`).
    #[must_use]
    pub fn exact(&self, key: &str, text: &str) -> bool {
        let values = self.get(key);
        values.is_empty() || values.iter().any(|v| v == text)
    }

    /// Whether `labels` fulfils every `label` filter: `key` or `key=value` (moby's `MatchKVList`).
    pub fn labels<'a>(&self, key: &str, labels: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.get(key).iter().all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => labels(name) == Some(value),
            None => labels(wanted).is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_as_moby_reads_them() {
        let query = Query::parse("a=1&b=false&c=&d=None&e=maybe&f&g=%200%20&h=No");
        for (name, want) in [
            ("a", true),
            ("b", false),
            ("c", false),
            ("d", false),
            ("e", true),
            ("f", false),
            ("g", false),
            ("h", false),
        ] {
            assert_eq!(query.bool(name), want, "{name}");
        }
        assert!(query.bool_or("absent", true));
        assert!(!query.bool_or("c", true));
    }

    #[test]
    fn values_and_numbers() {
        let query = Query::parse("n=a%2Fb&n=c+d&limit=x&tail=5");
        assert_eq!(query.all("n").collect::<Vec<_>>(), ["a/b", "c d"]);
        assert_eq!(query.int::<u32>("tail").unwrap(), Some(5));
        assert_eq!(query.int::<u32>("none").unwrap(), None);
        let error = query.int::<i64>("limit").unwrap_err();
        assert_eq!(error.message, "strconv.Atoi: parsing \"x\": invalid syntax");
    }

    #[test]
    fn both_shapes_of_filters() {
        let new = Filters::parse(r#"{"status":["running"],"label":["a=b","c"]}"#).unwrap();
        let old = Filters::parse(r#"{"status":{"running":true},"label":{"a=b":true,"c":false}}"#).unwrap();
        assert_eq!(new, old);
        assert!(new.labels("label", |k| {
            [("a", "b"), ("c", "x")].into_iter().find(|(n, _)| *n == k).map(|(_, v)| v)
        }));
        assert!(!new.labels("label", |k| (k == "a").then_some("b")));
        assert!(new.exact("status", "running") && !new.exact("status", "exited") && new.exact("name", "any"));
        for bad in ["[]", "{", r#"{"a":1}"#, r#"{"a":[1]}"#, "\"x\""] {
            assert_eq!(Filters::parse(bad).unwrap_err().message, "invalid filter", "{bad}");
        }
    }

    #[test]
    fn filters_are_checked() {
        let filters =
            Filters::parse(r#"{"dangling":["maybe"],"x":["true","false"],"y":["1"],"z":[]}"#).unwrap();
        assert_eq!(filters.check(&["dangling", "x", "y"]).unwrap_err().message, "invalid filter 'z'");
        assert_eq!(
            filters.bool_or("dangling", false).unwrap_err().message,
            "invalid filter 'dangling=[maybe]'"
        );
        assert!(filters.bool_or("x", false).is_err());
        assert!(filters.bool_or("y", false).unwrap());
        assert!(filters.bool_or("absent", true).unwrap());
    }
}
