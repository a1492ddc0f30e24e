//! Authorisation: the registry's challenge, basic credentials, and the token service (distribution
//! `spec/auth/token.md`, `oauth.md`).

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{StatusCode, header::HeaderMap};
use serde::Deserialize;

use super::failure::{Failure, RegistryError};
use crate::image::RegistryAuth;

/// A `WWW-Authenticate` challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: String },
}

/// A parsed header: the challenge and the `error` parameter of a refused token.
pub(super) fn challenge(headers: &HeaderMap) -> (Option<Challenge>, Option<String>) {
    let mut found = (None, None);
    for value in headers.get_all("www-authenticate") {
        let Ok(value) = value.to_str() else { continue };
        let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        let mut parameters = parameters(rest);
        if scheme.eq_ignore_ascii_case("bearer") {
            found.1 = parameters.remove("error");
            if let Some(realm) = parameters.remove("realm") {
                let service = parameters.remove("service").unwrap_or_default();
                found.0 = Some(Challenge::Bearer { realm, service });
            }
        } else if scheme.eq_ignore_ascii_case("basic") && found.0.is_none() {
            found.0 = Some(Challenge::Basic);
        }
    }
    found
}

/// `key="value", key=value`, with commas allowed inside quotes.
fn parameters(text: &str) -> HashMap<String, String> {
    let mut all = HashMap::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',']).to_lowercase();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        all.insert(key, value.trim().to_owned());
        rest = next;
    }
    all
}

/// The `Authorization` header for a challenge.
pub(super) async fn authorise(
    client: &reqwest::Client,
    base: &str,
    repository: &str,
    challenge: &Challenge,
    auth: Option<&RegistryAuth>,
    deadline: std::time::Duration,
) -> Result<String, Failure> {
    let basic =
        auth.and_then(|a| Some((a.username.as_ref().filter(|u| !u.is_empty())?, a.password.as_ref()?)));
    match challenge {
        Challenge::Basic => {
            let Some((user, password)) = basic else {
                return Err(Failure::Other(crate::Error::Unauthorized(format!(
                    "Get \"{base}/v2/\": no basic auth credentials"
                ))));
            };
            Ok(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
        }
        Challenge::Bearer { realm, service } => {
            if let Some(token) = auth.and_then(|a| a.registry_token.as_ref()).filter(|t| !t.is_empty()) {
                return Ok(format!("Bearer {token}"));
            }
            // A registry reached by https must not lead the password into the clear.
            let clear = base.starts_with("https://") && !realm.starts_with("https://");
            if clear && auth.is_some() {
                return Err(Failure::Other(crate::Error::Registry(format!(
                    "the registry {base} sends credentials to {realm} without encryption: refused"
                ))));
            }
            let scope = format!("repository:{repository}:pull");
            let identity = auth.and_then(|a| a.identity_token.as_ref()).filter(|t| !t.is_empty());
            let request = if let Some(token) = identity {
                let form = encode(&[
                    ("grant_type", "refresh_token"),
                    ("refresh_token", token),
                    ("service", service),
                    ("client_id", "docker"),
                    ("scope", &scope),
                ]);
                let kind = "application/x-www-form-urlencoded";
                client.post(realm).header("content-type", kind).body(form)
            } else {
                let mut query = vec![("service", service.as_str()), ("scope", &scope)];
                if let Some((user, _)) = basic {
                    query.push(("account", user));
                }
                let separator = if realm.contains('?') { '&' } else { '?' };
                let get = client.get(format!("{realm}{separator}{}", encode(&query)));
                match basic {
                    Some((user, password)) => get.basic_auth(user, Some(password)),
                    None => get,
                }
            };
            fetch_token(request.timeout(deadline), realm, base).await
        }
    }
}

async fn fetch_token(request: reqwest::RequestBuilder, realm: &str, base: &str) -> Result<String, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let response = request.send().await.map_err(|e| Failure::transport(realm, &e))?;
    let status = response.status();
    let body = super::session::bounded(response, 1 << 20, realm).await?;
    if !status.is_success() {
        let errors =
            if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST) {
                vec![RegistryError::new("UNAUTHORIZED", "incorrect username or password")]
            } else {
                Vec::new()
            };
        let status = if errors.is_empty() { status } else { StatusCode::UNAUTHORIZED };
        return Err(Failure::Status { url: format!("{base}/v2/"), status, errors });
    }
    let answer: Option<Answer> = serde_json::from_slice(&body).ok();
    let token = answer.and_then(|a| a.token.filter(|t| !t.is_empty()).or(a.access_token));
    token.map(|token| format!("Bearer {token}")).ok_or_else(|| {
        Failure::Other(crate::Error::Registry(format!(
            "authorization server {realm} did not include a token in the response"
        )))
    })
}

/// `application/x-www-form-urlencoded`.
fn encode(pairs: &[(&str, &str)]) -> String {
    let part = |text: &str| {
        let mut out = String::new();
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
        out
    };
    pairs.iter().map(|(k, v)| format!("{}={}", part(k), part(v))).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let parse = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("www-authenticate", value.parse().unwrap());
            challenge(&headers)
        };
        let (found, error) = parse(
            r#"Bearer realm="https://auth.example/token?x=1",service="reg,istry",scope="repository:a:pull,push",error="insufficient_scope""#,
        );
        let bearer =
            Challenge::Bearer { realm: "https://auth.example/token?x=1".into(), service: "reg,istry".into() };
        assert_eq!(found, Some(bearer));
        assert_eq!(error.as_deref(), Some("insufficient_scope"));
        assert_eq!(parse("Basic realm=\"x\"").0, Some(Challenge::Basic));
        for odd in ["Bearer", "Bearer realm", "Negotiate", "", "Bearer ==\"", "Bearer realm=\"x"] {
            let _ = parse(odd);
        }
        assert_eq!(encode(&[("scope", "repository:a/b:pull")]), "scope=repository%3Aa%2Fb%3Apull");
    }
}
