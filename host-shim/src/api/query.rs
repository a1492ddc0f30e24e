//! The query string, read as moby's handlers read it.

use std::collections::BTreeMap;

use axum::{extract::FromRequestParts, http::request::Parts};
use serde_json::Value;

use super::tree;
use crate::{
    engine::clock,
    error::{Error, Result},
};

/// Nanoseconds of the longest of Go's durations, 292 years.
const LONGEST: i128 = i64::MAX as i128;

/// Parameters of a request in their order; a name may occur several times. As an extractor it refuses, like moby's
/// `ParseForm`, what is badly encoded.
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
    /// When it is none: 500 in Go's wording, since moby does not tell this mistake from its own.
    pub fn int(&self, name: &str) -> Result<Option<i64>> {
        self.get(name).map(|value| number("strconv.Atoi", value)).transpose()
    }

    /// A time, in nanoseconds since the epoch: `seconds[.fraction]` or RFC 3339. `None` when absent or empty.
    ///
    /// # Errors
    /// When it is none: 500 in Go's wording, as moby.
    pub fn time(&self, name: &str) -> Result<Option<i128>> {
        self.get(name).map(time).transpose()
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
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let text = parts.uri.query().unwrap_or("");
        check(text)?;
        Ok(Self::parse(text))
    }
}

/// Go's complaints about a query string.
fn check(text: &str) -> Result<()> {
    if text.contains(';') {
        return Err(Error::invalid("invalid semicolon separator in query"));
    }
    for (at, _) in text.match_indices('%') {
        let rest = text.get(at..).unwrap_or_default();
        let escape: String = rest.chars().take(3).take_while(|c| *c != '&' && *c != '=').collect();
        if escape.len() < 3 || !escape.bytes().skip(1).all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::invalid(format!("invalid URL escape {escape:?}")));
        }
    }
    Ok(())
}

/// moby's `GetTimestamp`, in nanoseconds: `seconds[.fraction]` or RFC 3339 (the CLI resolves relative times itself).
fn time(text: &str) -> Result<i128> {
    if let Some(time) = clock::parse(text) {
        return Ok(time);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let seconds = number("strconv.ParseInt", seconds)?;
    let digits: String = fraction.chars().take(9).collect();
    let fraction = number("strconv.ParseInt", &digits)?;
    // A sign within the fraction, or no digits at all.
    let nanos = u32::try_from(fraction).ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
    let nanos = nanos.ok_or_else(|| syntax("strconv.ParseInt", &digits))?;
    let nanos = i128::from(nanos) * 10_i128.pow(9 - u32::try_from(digits.len()).unwrap_or(9));
    let sign = if text.starts_with('-') { -1 } else { 1 };
    Ok(i128::from(seconds) * 1_000_000_000 + sign * nanos)
}

/// A time, or a Go duration before now, in nanoseconds since the epoch.
///
/// # Errors
/// 400 when it is none.
pub fn moment(text: &str) -> Result<i128> {
    let ago = || {
        let ago = i128::try_from(clock::parse_duration(text)?.as_nanos()).ok()?;
        (ago <= LONGEST).then(|| clock::now_nanos() - ago)
    };
    let found = time(text).ok().or_else(ago);
    found.ok_or_else(|| Error::invalid(format!("failed to parse value as time or duration: {text:?}")))
}

/// Go's `strconv.Atoi` and `ParseInt`.
fn number(function: &str, text: &str) -> Result<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(syntax(function, text));
    }
    text.parse().map_err(|_| Error::system(format!("{function}: parsing {text:?}: value out of range")))
}

fn syntax(function: &str, text: &str) -> Error {
    Error::system(format!("{function}: parsing {text:?}: invalid syntax"))
}

/// moby's `filters.Args`: values per key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads `{"key": {"value": true}}` or the legacy `{"key": ["value"]}`; not both at a time.
    ///
    /// # Errors
    /// 400 `invalid filter`.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = || Error::invalid("invalid filter");
        let map = match tree::parse(text.as_bytes()) {
            Ok(Some((Value::Object(map), true))) => map,
            Ok(Some((Value::Null, true))) => return Ok(Self::default()),
            _ => return Err(invalid()),
        };
        if map.values().any(Value::is_array) && map.values().any(Value::is_object) {
            return Err(invalid());
        }
        let mut filters = BTreeMap::new();
        for (key, values) in map {
            let values = match values {
                Value::Array(list) => list
                    .into_iter()
                    .map(|v| match v {
                        Value::String(text) => Ok(text),
                        Value::Null => Ok(String::new()),
                        _ => Err(invalid()),
                    })
                    .collect::<Result<_>>()?,
                // As in Go, a value counts by being there, whatever its boolean says.
                Value::Object(set) => set
                    .into_iter()
                    .map(|(value, on)| (on.is_boolean() || on.is_null()).then_some(value).ok_or_else(invalid))
                    .collect::<Result<_>>()?,
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

    /// The filter `until` of a prune, see [`moment`].
    ///
    /// # Errors
    /// 400 when it is none, or there are several.
    pub fn until(&self) -> Result<Option<i128>> {
        match self.get("until") {
            [] => Ok(None),
            [text] => moment(text).map(Some),
            _ => Err(Error::invalid("more than one until filter specified")),
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
    use serde_json::json;

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
        assert_eq!(query.int("tail").unwrap(), Some(5));
        assert_eq!(query.int("none").unwrap(), None);
        let error = query.int("limit").unwrap_err();
        assert_eq!(error.message, "strconv.Atoi: parsing \"x\": invalid syntax");
        let time = |text: &str| Query(vec![("t".into(), text.into())]).time("t").map_err(|e| e.message);
        assert_eq!(time("1.5"), Ok(Some(1_500_000_000)));
        assert_eq!(time("-1.000000001999"), Ok(Some(-1_000_000_001)));
        assert_eq!(time("1970-01-01T00:00:02Z"), Ok(Some(2_000_000_000)));
        assert_eq!(time(&i64::MIN.to_string()), Ok(Some(i128::from(i64::MIN) * 1_000_000_000)));
        for (bad, part, why) in [
            ("x", "x", "invalid syntax"),
            ("1.x", "x", "invalid syntax"),
            ("1.-5", "-5", "invalid syntax"),
            ("1.", "", "invalid syntax"),
            ("9223372036854775808", "9223372036854775808", "value out of range"),
            ("-170141183460469231731687303715.9", "-170141183460469231731687303715", "value out of range"),
        ] {
            assert_eq!(time(bad), Err(format!("strconv.ParseInt: parsing {part:?}: {why}")), "{bad}");
        }
    }

    #[test]
    fn queries_are_checked() {
        for (query, message) in [
            ("%", r#"invalid URL escape "%""#),
            ("a=%zz", r#"invalid URL escape "%zz""#),
            ("a=%4&b", r#"invalid URL escape "%4""#),
            ("a=%é", r#"invalid URL escape "%é""#),
            ("a;b", "invalid semicolon separator in query"),
        ] {
            assert_eq!(check(query).map_err(|e| e.message), Err(message.to_owned()), "{query}");
        }
        assert!(check("a=%20&%41=b&&=").is_ok());
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
        assert!(Filters::parse("null").unwrap().is_empty());
        let deep = "[".repeat(20_000);
        for bad in [
            "[]",
            "{",
            r#"{"a":1}"#,
            r#"{"a":[1]}"#,
            r#"{"a":{"b":5}}"#,
            r#"{"a":["b"],"c":{"d":true}}"#,
            "{} x",
            "\"x\"",
            &deep,
        ] {
            assert_eq!(Filters::parse(bad).unwrap_err().message, "invalid filter", "{bad}");
        }
    }

    #[test]
    fn until_is_a_time_or_a_duration() {
        let until = |text: &str| {
            Filters::parse(&json!({ "until": [text] }).to_string()).unwrap().until().map_err(|e| e.message)
        };
        assert_eq!(until("1.5"), Ok(Some(1_500_000_000)));
        assert_eq!(until("2026-11-20T23:32:02Z"), Ok(Some(1_795_217_522_000_000_000)));
        let hour = clock::now_nanos() - until("1h").unwrap().unwrap();
        assert!((3_599_000_000_000..=3_600_000_000_000).contains(&hour), "{hour}");
        for bad in ["yesterday", "1.x", "1.2.3", "1.", "300000000000h"] {
            assert_eq!(until(bad), Err(format!("failed to parse value as time or duration: {bad:?}")));
        }
        assert_eq!(Filters::default().until().unwrap(), None);
        assert!(Filters::parse(r#"{"until":["1","2"]}"#).unwrap().until().is_err());
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
