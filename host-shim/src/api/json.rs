//! Request bodies of JSON, read as moby's `httputils.ReadJSON` and Go's decoder read them.

use axum::{
    body::Body,
    http::{HeaderMap, Request, header},
};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{lenient, limits::Limits, tree};
use crate::error::{Error, Kind, Result};

/// A body beyond this is a large one...
const LARGE: usize = 64 << 10;
/// ...of which so many are read at a time.
static LARGE_BODIES: Semaphore = Semaphore::const_new(16);

/// A body that must be there.
///
/// # Errors
/// 400: wrong `Content-Type`, empty, too large, too slow, malformed.
pub async fn required<T: DeserializeOwned>(request: Request<Body>) -> Result<T> {
    optional(request).await?.ok_or_else(nothing)
}

/// A body that may be absent: `None` when it is empty. Keys are matched whatever their case, `null` is as good as absent.
///
/// # Errors
/// 400: wrong `Content-Type`, too large, too slow, malformed. 503: too many large ones at once.
pub async fn optional<T: DeserializeOwned>(request: Request<Body>) -> Result<Option<T>> {
    let (parts, body) = request.into_parts();
    let limits = parts.extensions.get::<Limits>().copied().unwrap_or_default();
    let late = || Error::invalid(format!("the request body did not arrive within {:?}", limits.json_time));
    let (text, _large) = timeout(limits.json_time, read(body, limits)).await.map_err(|_| late())??;
    check_content_type(&parts.headers, text.is_empty())?;
    if text.is_empty() { Ok(None) } else { parse(&text).map(Some) }
}

/// All of a body, and the right to hold so much.
async fn read(mut body: Body, limits: Limits) -> Result<(Vec<u8>, Option<SemaphorePermit<'static>>)> {
    let (mut text, mut large) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Error::invalid(format!("cannot read the request body: {e}")))?;
        // Trailers say nothing.
        let Ok(data) = frame.into_data() else { continue };
        if text.len() + data.len() > limits.json_bytes {
            let text = format!("request body too large: more than {} bytes", limits.json_bytes);
            return Err(Error::invalid(text));
        }
        text.extend_from_slice(&data);
        if text.len() > LARGE && large.is_none() {
            // Without waiting: slow clients that hold the places would let all others wait.
            let busy = |_| Error::new(Kind::Unavailable, "too many large requests at once: try again");
            large = Some(LARGE_BODIES.try_acquire().map_err(busy)?);
        }
    }
    Ok((text, large))
}

fn nothing() -> Error {
    Error::invalid("invalid JSON: got EOF while reading request body")
}

/// Decodes `text` leniently: see [`lenient`].
///
/// # Errors
/// 400 `invalid JSON: ...`
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    let invalid = |e: serde_json::Error| Error::invalid(format!("invalid JSON: {e}"));
    // As in Go, what is no UTF-8 within a string is replaced.
    let text = String::from_utf8_lossy(text);
    let (value, whole) = tree::parse(text.as_bytes()).map_err(invalid)?.ok_or_else(nothing)?;
    if !whole {
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
        let body = format!("{{\"Image\":\"{}\"}}", "x".repeat(Limits::default().json_bytes));
        assert!(
            read(Some("application/json"), &body).await.unwrap_err().starts_with("request body too large")
        );
    }

    #[tokio::test]
    async fn deep_nesting_is_an_error() {
        assert!(parse::<Sample>("[".repeat(100_000).as_bytes()).is_err());
    }
}
