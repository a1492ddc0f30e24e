//! Request bodies of JSON, read as moby's `httputils.ReadJSON` and Go's decoder read them.

use axum::{
    body::Body,
    http::{HeaderMap, Request, header},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::lenient;
use crate::error::{Error, Result};

/// Largest body of JSON. A create request of thousands of variables and labels fits.
const MAX_BODY: usize = 8 << 20;

/// A body that must be there.
///
/// # Errors
/// 400: wrong `Content-Type`, empty, too large, malformed.
pub async fn required<T: DeserializeOwned>(request: Request<Body>) -> Result<T> {
    optional(request).await?.ok_or_else(|| Error::invalid("invalid JSON: got EOF while reading request body"))
}

/// A body that may be absent: `None` when it is empty. Keys are matched whatever their case, `null` is as good as absent.
///
/// # Errors
/// 400: wrong `Content-Type`, too large, malformed.
pub async fn optional<T: DeserializeOwned>(request: Request<Body>) -> Result<Option<T>> {
    let (parts, body) = request.into_parts();
    let text = match Limited::new(body, MAX_BODY).collect().await {
        Ok(all) => all.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Err(Error::invalid(format!("request body too large: more than {MAX_BODY} bytes")));
        }
        Err(error) => return Err(Error::invalid(format!("cannot read the request body: {error}"))),
    };
    check_content_type(&parts.headers, text.is_empty())?;
    if text.is_empty() { Ok(None) } else { parse(&text).map(Some) }
}

/// Decodes `text` leniently: see [`lenient`].
///
/// # Errors
/// 400 `invalid JSON: ...`
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    let invalid = |e: serde_json::Error| Error::invalid(format!("invalid JSON: {e}"));
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<serde_json::Value>();
    let value = match values.next() {
        Some(value) => value.map_err(invalid)?,
        None => return Err(Error::invalid("invalid JSON: got EOF while reading request body")),
    };
    if values.next().is_some() {
        return Err(Error::invalid("unexpected content after JSON"));
    }
    lenient::from_value(value).map_err(invalid)
}

/// moby's `CheckForJSON`.
fn check_content_type(headers: &HeaderMap, empty: bool) -> Result<()> {
    let given = headers.get(header::CONTENT_TYPE).map_or("", |v| v.to_str().unwrap_or("?"));
    if given.is_empty() {
        return if empty {
            Ok(())
        } else {
            Err(Error::invalid("malformed Content-Type header (): mime: no media type"))
        };
    }
    let media = given.split(';').next().unwrap_or("").trim();
    if media.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Error::invalid(format!("unsupported Content-Type header ({given}): must be 'application/json'")))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Eq, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct Sample {
        image: String,
    }

    async fn read(content_type: Option<&str>, body: &str) -> Result<Option<Sample>, String> {
        let mut request = Request::builder();
        if let Some(value) = content_type {
            request = request.header("content-type", value);
        }
        optional(request.body(Body::from(body.to_owned())).unwrap()).await.map_err(|e| e.message)
    }

    #[tokio::test]
    async fn content_types() {
        let sample = Ok(Some(Sample { image: "x".into() }));
        assert_eq!(read(Some("application/json"), r#"{"Image":"x"}"#).await, sample);
        assert_eq!(read(Some("Application/JSON; charset=utf-8"), r#"{"image":"x"}"#).await, sample);
        assert_eq!(
            read(Some("text/plain"), "{}").await,
            Err("unsupported Content-Type header (text/plain): must be 'application/json'".into())
        );
        assert_eq!(
            read(None, "{}").await,
            Err("malformed Content-Type header (): mime: no media type".into())
        );
    }

    #[tokio::test]
    async fn empty_and_malformed() {
        assert_eq!(read(None, "").await, Ok(None));
        let json = Some("application/json");
        assert_eq!(read(json, "").await, Ok(None));
        assert!(read(json, "{").await.unwrap_err().starts_with("invalid JSON: "));
        assert_eq!(read(json, "{} {}").await, Err("unexpected content after JSON".into()));
        assert!(read(json, r#"{"Image":5}"#).await.unwrap_err().starts_with("invalid JSON: "));
        let empty = required::<Sample>(Request::new(Body::empty())).await.unwrap_err();
        assert_eq!(empty.message, "invalid JSON: got EOF while reading request body");
    }

    #[tokio::test]
    async fn too_large_is_refused() {
        let body = format!("{{\"Image\":\"{}\"}}", "x".repeat(MAX_BODY));
        assert!(
            read(Some("application/json"), &body).await.unwrap_err().starts_with("request body too large")
        );
    }

    #[tokio::test]
    async fn deep_nesting_is_an_error() {
        assert!(parse::<Sample>("[".repeat(100_000).as_bytes()).is_err());
    }
}
