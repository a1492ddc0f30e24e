//! The version prefix `/v1.NN` of every path, negotiated as moby does.

use std::cmp::Ordering;

use axum::{
    body::Body,
    http::{Request, StatusCode, Uri, header, uri::PathAndQuery},
    response::{IntoResponse, Response},
};

/// What the daemon speaks, and speaks to a client that names no version.
pub(super) const CURRENT: Version = Version { major: 1, minor: 51 };
/// The oldest it speaks.
pub(super) const OLDEST: Version = Version { major: 1, minor: 24 };

/// An API version; in the extensions of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Always 1 so far.
    pub major: u16,
    /// Grows.
    pub minor: u16,
}

impl Version {
    /// Whether the client speaks 1.`minor` or later.
    #[must_use]
    pub fn at_least(self, minor: u16) -> bool {
        self >= Self { major: 1, minor }
    }

    /// moby's `versions.Compare`: numbers between dots, what lacks is 0. Nothing but the first two tells versions apart
    /// that are spoken.
    fn compare(self, text: &str) -> Ordering {
        let mut numbers = text.split('.').map(number).chain(std::iter::repeat(0));
        let mut next = || numbers.next().unwrap_or(0);
        let given = [next(), next(), u64::from(text.split('.').skip(2).any(|part| number(part) > 0))];
        [u64::from(self.major), u64::from(self.minor), 0].cmp(&given)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Takes the prefix off the path and leaves a [`Version`] in the extensions.
///
/// # Errors
/// The 400 answer for a version that is not spoken.
#[allow(clippy::result_large_err, reason = "the answer is sent as it is")]
pub(crate) fn strip(request: &mut Request<Body>) -> Result<(), Response> {
    let mut version = CURRENT;
    if let Some((prefix, rest)) = split(request.uri().path()) {
        version = check(prefix)?;
        let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
        let mut parts = request.uri().clone().into_parts();
        // What was cut from a valid path and query is one.
        parts.path_and_query = PathAndQuery::try_from(format!("{rest}{query}")).ok();
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request.extensions_mut().insert(version);
    Ok(())
}

/// `/v1.51/info` is 1.51 and `/info`. Anything but digits and dots is no prefix.
fn split(path: &str) -> Option<(&str, String)> {
    let (version, rest) = path.strip_prefix("/v")?.split_once('/')?;
    let fits = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    fits.then(|| (version, format!("/{rest}")))
}

/// A part of a version; one that is beyond any number is just very large, none is 0.
fn number(text: &str) -> u64 {
    if text.is_empty() { 0 } else { text.parse().unwrap_or(u64::MAX) }
}

#[allow(clippy::result_large_err, reason = "the answer is sent as it is")]
fn check(version: &str) -> Result<Version, Response> {
    let text = if OLDEST.compare(version).is_gt() {
        format!(
            "client version {version} is too old. Minimum supported API version is {OLDEST}, please upgrade your client \
             to a newer version"
        )
    } else if CURRENT.compare(version).is_lt() {
        format!("client version {version} is too new. Maximum supported API version is {CURRENT}")
    } else {
        let minor = version.split('.').nth(1).map_or(0, number);
        return Ok(Version { major: 1, minor: u16::try_from(minor).unwrap_or(CURRENT.minor) });
    };
    // Plain text: a client that speaks another version may not know this one's JSON errors.
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Err((StatusCode::BAD_REQUEST, plain, format!("{text}\n")).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str) -> Request<Body> {
        Request::builder().uri(uri).body(Body::empty()).unwrap()
    }

    #[test]
    fn prefixes() {
        for (uri, path, version) in [
            ("/v1.43/info?a=%20b", "/info?a=%20b", Version { major: 1, minor: 43 }),
            ("/info", "/info", CURRENT),
            ("/v1.24/images/v1.2/x/json", "/images/v1.2/x/json", OLDEST),
            ("/volumes/v1.2", "/volumes/v1.2", CURRENT),
            ("/version", "/version", CURRENT),
            ("/v1.x/info", "/v1.x/info", CURRENT),
            ("/v1.51.0/info", "/info", CURRENT),
        ] {
            let mut request = request(uri);
            strip(&mut request).unwrap();
            assert_eq!(request.uri().to_string(), path);
            assert_eq!(request.extensions().get::<Version>(), Some(&version), "{uri}");
        }
    }

    #[test]
    fn out_of_range_is_400() {
        for uri in [
            "/v1.99/info",
            "/v1.23/info",
            "/v2.0/info",
            "/v0.9/info",
            "/v1/info",
            "/v1.51.1/info",
            "/v.../info",
        ] {
            assert_eq!(strip(&mut request(uri)).unwrap_err().status(), StatusCode::BAD_REQUEST, "{uri}");
        }
    }
}
