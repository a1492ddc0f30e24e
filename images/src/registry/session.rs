//! Requests to one repository at one endpoint.

use bytes::BytesMut;
use reqwest::{Client, Response, StatusCode, Url, header};
use serde::Deserialize;
use tokio::sync::{Mutex, Semaphore};

use super::{
    auth::{self, Challenge},
    endpoint::{Endpoint, Http},
    failure::{Failure, RegistryError},
};
use crate::{
    digest::Digest,
    error::Error,
    image::RegistryAuth,
    manifest::{ACCEPT, MAX_MANIFEST},
    reference::Reference,
    store::Timeouts,
};

/// Downloads at once in one pull, dockerd's default.
const PARALLEL: usize = 3;
/// The part of a request's time in which to read what an error answer says.
const EXPLANATION: u32 = 12;

/// One repository of one registry, with the authorisation found for it.
pub(crate) struct Session {
    client: Client,
    /// For the token service.
    token_client: Client,
    base: String,
    repository: String,
    is_hub: bool,
    auth: Option<RegistryAuth>,
    challenge: Mutex<Option<Challenge>>,
    authorization: Mutex<Option<String>>,
    pub(super) timeouts: Timeouts,
    /// Of this pull: a registry that stalls must not hold up the pulls from others.
    pub(super) slots: Semaphore,
}

/// A manifest as it was received.
pub(crate) struct RawManifest {
    pub(crate) bytes: Vec<u8>,
    pub(crate) content_type: String,
}

impl Session {
    /// Finds the scheme that works, and what authorisation the registry asks for.
    pub(crate) async fn open(
        http: &Http,
        endpoint: &Endpoint,
        reference: &Reference,
        auth: Option<RegistryAuth>,
    ) -> Result<Self, Failure> {
        let client = http.client(endpoint);
        let mut first_failure = None;
        for base in &endpoint.bases {
            match ping(client, base, &http.timeouts).await {
                Ok(challenge) => {
                    return Ok(Self {
                        client: client.clone(),
                        token_client: http.token_client(endpoint).clone(),
                        base: base.clone(),
                        repository: reference.path().to_owned(),
                        is_hub: reference.domain() == "docker.io",
                        // Docker Hub's password is none of a mirror's business.
                        auth: auth.filter(|_| !endpoint.mirror),
                        challenge: Mutex::new(challenge),
                        authorization: Mutex::new(None),
                        timeouts: http.timeouts,
                        slots: Semaphore::new(PARALLEL),
                    });
                }
                Err(failure) => first_failure = first_failure.or(Some(failure)),
            }
        }
        Err(first_failure
            .unwrap_or_else(|| Failure::Other(Error::System("no registry address to try".into()))))
    }

    /// A manifest or index by tag or digest. A digest is verified; a tag's is computed.
    pub(crate) async fn manifest(&self, tag_or_digest: &str) -> Result<RawManifest, Failure> {
        let url = self.url("manifests", tag_or_digest);
        let deadline = self.timeouts.request;
        let fetch = async {
            let response = self.get(&url, &ACCEPT.join(", "), 0).await?;
            let content_type = response.headers().get(header::CONTENT_TYPE);
            let content_type = content_type.and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
            Ok::<_, Failure>((content_type, bounded(response, MAX_MANIFEST, &url).await?))
        };
        let (content_type, bytes) = tokio::time::timeout(deadline, fetch).await.map_err(|_| {
            Failure::Other(Error::Timeout(format!(
                "Get \"{url}\": no manifest after {} s",
                deadline.as_secs_f32()
            )))
        })??;
        let digest = Digest::of(&bytes);
        if tag_or_digest.contains(':') && tag_or_digest != digest.as_str() {
            return Err(Failure::Other(Error::Corrupt(format!(
                "manifest verification failed for digest {tag_or_digest}: received {digest}"
            ))));
        }
        Ok(RawManifest { bytes, content_type })
    }

    /// The answer with a blob, from byte `from` on if the server can.
    pub(super) async fn blob(&self, digest: &Digest, from: u64) -> Result<Response, Failure> {
        let (url, deadline) = (self.blob_url(digest), self.timeouts.request);
        // With the token it may need first.
        tokio::time::timeout(deadline, self.get(&url, "*/*", from)).await.map_err(|_| {
            let why = format!("no answer after {} s", deadline.as_secs_f32());
            Failure::Transport { url: url.clone(), why, timeout: true }
        })?
    }

    /// Names a blob at this registry: one registry's slow download is nothing for another's pull to wait for.
    pub(super) fn flight(&self, digest: &Digest) -> String {
        format!("{} {digest}", self.base)
    }

    pub(super) fn blob_url(&self, digest: &Digest) -> String {
        self.url("blobs", digest.as_str())
    }

    fn url(&self, kind: &str, name: &str) -> String {
        format!("{}/v2/{}/{kind}/{name}", self.base, self.repository)
    }

    /// An authorised request; a refused token is replaced once. The caller has the deadline.
    async fn get(&self, url: &str, accept: &str, from: u64) -> Result<Response, Failure> {
        let (mut fresh, mut again) = (false, false);
        loop {
            let mut request = self.client.get(url).header(header::ACCEPT, accept);
            if from > 0 {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            if let Some(authorization) = self.authorization(fresh).await? {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            let response = match request.send().await.map_err(|e| Failure::transport(url, &e)) {
                Ok(response) => response,
                // The registry closed an idle connection just when we took it.
                Err(Failure::Transport { timeout: false, .. }) if !again => {
                    again = true;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            let (challenge, error) = auth::challenge(response.headers());
            // Only the registry itself says where credentials go, not where it redirects to.
            let is_own = Url::parse(&self.base).is_ok_and(|base| base.origin() == response.url().origin());
            if status == StatusCode::UNAUTHORIZED && !fresh && is_own && challenge.is_some() {
                *self.challenge.lock().await = challenge;
                fresh = true;
                continue;
            }
            return Err(self.refused(response, url, error.as_deref()).await);
        }
    }

    /// The `Authorization` value, made at first use.
    async fn authorization(&self, fresh: bool) -> Result<Option<String>, Failure> {
        let challenge = self.challenge.lock().await.clone();
        let Some(challenge) = challenge else { return Ok(None) };
        let mut authorization = self.authorization.lock().await;
        if fresh || authorization.is_none() {
            let deadline = self.timeouts.request;
            let auth = self.auth.as_ref();
            let made =
                auth::authorise(&self.token_client, &self.base, &self.repository, &challenge, auth, deadline)
                    .await?;
            *authorization = Some(made);
        }
        Ok(authorization.clone())
    }

    async fn refused(&self, response: Response, url: &str, error: Option<&str>) -> Failure {
        #[derive(Deserialize)]
        struct Body {
            errors: Vec<RegistryError>,
        }
        let status = response.status();
        let body =
            tokio::time::timeout(self.timeouts.request / EXPLANATION, bounded(response, 64 << 10, url)).await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        let mut errors = serde_json::from_slice::<Body>(&body).map(|b| b.errors).unwrap_or_default();
        let no_access = "requested access to the resource is denied";
        if status == StatusCode::UNAUTHORIZED && (error == Some("insufficient_scope") || self.is_hub) {
            errors = vec![RegistryError::new("DENIED", no_access)];
        } else if status == StatusCode::UNAUTHORIZED && errors.is_empty() {
            errors = vec![RegistryError::new("UNAUTHORIZED", "authentication required")];
        }
        Failure::Status { url: url.to_owned(), status, errors }
    }
}

/// Asks `/v2/` whether a registry is there.
async fn ping(client: &Client, base: &str, timeouts: &Timeouts) -> Result<Option<Challenge>, Failure> {
    let url = format!("{base}/v2/");
    let response =
        client.get(&url).timeout(timeouts.request).send().await.map_err(|e| Failure::transport(&url, &e))?;
    let status = response.status();
    let (challenge, _) = auth::challenge(response.headers());
    // A TLS port answers plain HTTP with 400: that is not the registry.
    if status.is_server_error() || status == StatusCode::BAD_REQUEST {
        return Err(Failure::Status { url, status, errors: Vec::new() });
    }
    Ok(challenge)
}

/// Fails for an answer in a compression that was not asked for: its bytes are not what the digest is of.
pub(super) fn check_encoding(response: &Response, url: &str) -> Result<(), Failure> {
    match response.headers().get(header::CONTENT_ENCODING).map(header::HeaderValue::as_bytes) {
        None | Some(b"" | b"identity") => Ok(()),
        Some(other) => Err(Failure::Refused {
            url: url.to_owned(),
            why: format!(
                "the answer has the content encoding {:?}, which was not asked for",
                String::from_utf8_lossy(other)
            ),
        }),
    }
}

/// A whole answer of at most `max` bytes.
pub(super) async fn bounded(mut response: Response, max: u64, url: &str) -> Result<Vec<u8>, Failure> {
    check_encoding(&response, url)?;
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| Failure::transport(url, &e))? {
        if body.len() as u64 + chunk.len() as u64 > max {
            return Err(Failure::Other(Error::Registry(format!(
                "Get \"{url}\": the answer exceeds {max} bytes"
            ))));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.to_vec())
}
