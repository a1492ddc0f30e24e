//! `POST /images/create`: docker pull.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, Request},
    response::Response,
};
use base64::{
    Engine as _, alphabet, engine::DecodePaddingMode, engine::GeneralPurpose, engine::GeneralPurposeConfig,
};
use images::{Progress, Reference, RegistryAuth};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{
    super::{not_implemented, query::Query},
    progress,
};
use crate::{
    engine::Engine,
    error::{Error, Result},
};

pub(super) async fn create(
    State(engine): State<Arc<Engine>>,
    query: Query,
    request: Request<Body>,
) -> Result<Response> {
    if query.get("fromSrc").is_some() {
        return Ok(not_implemented("docker import is not supported yet"));
    }
    let reference = reference(query.get("fromImage").unwrap_or(""), query.get("tag"))?;
    let platform = query.get("platform").map(str::to_owned);
    let auth = registry_auth(request.headers());

    #[allow(
        clippy::disallowed_methods,
        reason = "a layer says no more than ten times a second how far it is"
    )]
    let (sender, received) = mpsc::unbounded_channel();
    let pull = {
        let (engine, reference) = (engine.clone(), reference.clone());
        async move {
            let progress: Arc<dyn Progress> = Arc::new(sender);
            let pulled = engine.images.pull(&reference, platform.as_deref(), auth, progress).await?;
            let name = super::filter::repository(&pulled.familiar).to_owned();
            super::publish(&engine, "pull", &pulled.familiar, &name);
            Ok::<_, Error>(())
        }
    };
    progress::respond(pull, received).await
}

/// `tag` may be a digest. Neither: `latest`, where dockerd pulls all tags; no client relies on that.
fn reference(image: &str, tag: Option<&str>) -> Result<Reference> {
    let reference: Reference = image.parse()?;
    match tag {
        Some(digest) if digest.contains(':') => Ok(reference.digested(digest)?),
        Some(tag) => Ok(reference.tagged(tag)?),
        None => Ok(reference.tag_or_latest()),
    }
}

/// Keys of `X-Registry-Auth`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Credentials {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
    registrytoken: String,
}

/// base64url JSON, with or without padding. As in dockerd, what does not decode counts as no credentials.
fn registry_auth(headers: &HeaderMap) -> Option<RegistryAuth> {
    let relaxed = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decode = |text: &[u8]| {
        let url = GeneralPurpose::new(&alphabet::URL_SAFE, relaxed);
        url.decode(text).or_else(|_| GeneralPurpose::new(&alphabet::STANDARD, relaxed).decode(text)).ok()
    };
    let text = decode(headers.get("X-Registry-Auth")?.as_bytes())?;
    let mut found: Credentials = super::super::json::parse(&text).ok()?;
    if found.username.is_empty()
        && let Some(pair) = decode(found.auth.as_bytes()).and_then(|p| String::from_utf8(p).ok())
        && let Some((user, password)) = pair.split_once(':')
    {
        (found.username, found.password) = (user.to_owned(), password.to_owned());
    }
    let given = |text: String| Some(text).filter(|t| !t.is_empty());
    let auth = RegistryAuth {
        username: given(found.username),
        password: given(found.password),
        identity_token: given(found.identitytoken),
        registry_token: given(found.registrytoken),
    };
    let any = auth.username.is_some() || auth.identity_token.is_some() || auth.registry_token.is_some();
    any.then_some(auth)
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

    use super::*;

    fn auth(text: &str) -> Option<RegistryAuth> {
        let mut headers = HeaderMap::new();
        headers.insert("X-Registry-Auth", text.parse().unwrap());
        registry_auth(&headers)
    }

    #[test]
    fn credentials_in_all_shapes() {
        let json = r#"{"username":"me","password":"s>?~cret","serveraddress":"r"}"#;
        for text in [BASE64_URL_SAFE_NO_PAD.encode(json), BASE64_STANDARD.encode(json)] {
            let found = auth(&text).unwrap();
            assert_eq!(
                (found.username.as_deref(), found.password.as_deref()),
                (Some("me"), Some("s>?~cret"))
            );
        }
        let pair = format!(r#"{{"auth":"{}"}}"#, BASE64_STANDARD.encode("me:pass:word"));
        assert_eq!(auth(&BASE64_STANDARD.encode(pair)).unwrap().password.as_deref(), Some("pass:word"));
        let token = auth(&BASE64_STANDARD.encode(r#"{"identitytoken":"t"}"#)).unwrap();
        assert_eq!(token.identity_token.as_deref(), Some("t"));
        for none in ["", "e30=", "!!!", "AAAA"] {
            assert!(auth(none).is_none(), "{none}");
        }
    }

    #[test]
    fn references() {
        let name = |image, tag| reference(image, tag).map(|r| r.familiar());
        assert_eq!(name("busybox", None).unwrap(), "busybox:latest");
        assert_eq!(name("busybox", Some("1")).unwrap(), "busybox:1");
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(name("a/b", Some(&digest)).unwrap(), format!("a/b@{digest}"));
        assert_eq!(name("", None).unwrap_err().message, "invalid reference format");
    }
}
