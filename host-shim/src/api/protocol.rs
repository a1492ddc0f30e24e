//! What Go's HTTP server and moby's router settle before any handler: `Host`, `Expect`, `Transfer-Encoding`, `OPTIONS`, and
//! paths that are written in an unusual way.

use axum::{
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, Uri, Version, header, uri::PathAndQuery},
    response::{IntoResponse, Response},
};
use form_urlencoded::byte_serialize;

/// Answers what needs no handler; else leaves the path decoded and encoded again, so that each is written in one way only.
#[allow(clippy::result_large_err, reason = "the answer is sent as it is")]
pub(super) fn settle(request: &mut Request<Body>) -> Result<(), Response> {
    framing(request.headers(), request.version())?;
    if request.method() == Method::OPTIONS {
        return Err(StatusCode::OK.into_response());
    }
    let uri = request.uri();
    let path = decode(uri.path()).ok_or_else(|| plain(StatusCode::BAD_REQUEST, "400 Bad Request"))?;
    let clean = clean(&path);
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let target = format!("{}{query}", encode(&clean));
    if clean != path {
        return Err((StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, target)]).into_response());
    }
    if let Ok(path_and_query) = PathAndQuery::try_from(target) {
        // Host and scheme of a target in absolute form do not matter.
        *request.uri_mut() = Uri::from(path_and_query);
    }
    Ok(())
}

#[allow(clippy::result_large_err, reason = "the answer is sent as it is")]
fn framing(headers: &HeaderMap, version: Version) -> Result<(), Response> {
    let all = |name| headers.get_all(name).iter();
    if version >= Version::HTTP_11 && all(header::HOST).count() == 0 {
        return Err(plain(StatusCode::BAD_REQUEST, "400 Bad Request: missing required Host header"));
    }
    if all(header::HOST).count() > 1 {
        return Err(plain(StatusCode::BAD_REQUEST, "400 Bad Request: too many Host headers"));
    }
    if all(header::HOST).any(|host| !host.as_bytes().iter().all(|b| is_host(*b))) {
        return Err(plain(StatusCode::BAD_REQUEST, "400 Bad Request: malformed Host header"));
    }
    // Encodings other than chunked are nothing a server has to know, and how smugglers begin.
    let mut encodings = all(header::TRANSFER_ENCODING);
    let chunked = encodings.next().is_none_or(|e| e.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if !chunked || encodings.next().is_some() {
        return Err(plain(StatusCode::NOT_IMPLEMENTED, "Unsupported transfer encoding"));
    }
    if all(header::EXPECT).any(|e| !e.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err((StatusCode::EXPECTATION_FAILED, [(header::CONNECTION, "close")]).into_response());
    }
    Ok(())
}

/// Go's `httpguts.ValidHostHeader`.
fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=[]_~@".contains(&byte)
}

/// Plain text, after which the connection is closed: nobody knows what comes behind such a request.
fn plain(status: StatusCode, text: &'static str) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CONNECTION, "close")];
    (status, headers, text).into_response()
}

/// Percent-decodes; `None` where Go says 400. What is no UTF-8 is replaced: no object has such a name.
fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        (bytes, rest) = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
                bytes.push(digit(high)? << 4 | digit(low)?);
                (bytes, tail)
            }
            (b'%', _) => return None,
            _ => {
                bytes.push(*first);
                (bytes, tail)
            }
        };
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Go's `path.Clean` of a rooted path, with its slash at the end, if any.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let end = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    format!("/{}{end}", parts.join("/"))
}

fn encode(path: &str) -> String {
    let segment =
        |s: &str| byte_serialize(s.as_bytes()).map(|part| if part == "+" { "%20" } else { part }).collect();
    path.split('/').map(segment).collect::<Vec<String>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(uri: &str) -> Result<String, (StatusCode, Option<String>)> {
        let mut request = Request::builder().uri(uri).header("host", "d").body(Body::empty()).unwrap();
        match settle(&mut request) {
            Ok(()) => Ok(request.uri().to_string()),
            Err(answer) => {
                let location = answer.headers().get(header::LOCATION);
                Err((answer.status(), location.map(|l| l.to_str().unwrap().to_owned())))
            }
        }
    }

    /// SPEC A3
    #[test]
    fn a_path_is_written_in_one_way() {
        for (uri, path) in [
            ("/v1.51/info?a=%20b", "/v1.51/info?a=%20b"),
            ("/%76%31.51/info", "/v1.51/info"),
            ("/containers/a%2Fb/json", "/containers/a/b/json"),
            ("/containers/a%20b/json", "/containers/a%20b/json"),
            ("/containers/a+b/", "/containers/a%2Bb/"),
            ("/containers/%00%3f%23/json", "/containers/%00%3F%23/json"),
            ("/containers/%ff/json", "/containers/%EF%BF%BD/json"),
            ("http://other.example:99/_ping?x", "/_ping?x"),
        ] {
            assert_eq!(settled(uri).as_deref(), Ok(path), "{uri}");
        }
        for (uri, location) in [
            ("//containers/json?a=1", "/containers/json?a=1"),
            ("/v1.51/containers/../info", "/v1.51/info"),
            ("/containers/%2e%2e%2f..%2fx/", "/x/"),
            ("/./info", "/info"),
            ("/../../..", "/"),
            ("*", "/%2A"),
        ] {
            let moved = Err((StatusCode::MOVED_PERMANENTLY, Some(location.to_owned())));
            assert_eq!(
                settled(uri).map_err(|(s, l)| (s, l.map(|l| l.replace("/*", "/%2A")))),
                moved,
                "{uri}"
            );
        }
        for uri in ["/%zz", "/a%", "/a%f"] {
            assert_eq!(settled(uri), Err((StatusCode::BAD_REQUEST, None)), "{uri}");
        }
    }
}
