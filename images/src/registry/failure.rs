//! What a request can fail with, and dockerd's words for it.

use std::{error::Error as StdError, io};

use reqwest::StatusCode;
use serde::Deserialize;

use crate::{error::Error, reference::Reference};

/// Why a request to a registry failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No answer, or one that broke off: could not connect, TLS, cut, stalled.
    Transport { url: String, why: String, timeout: bool },
    /// A request that would fail in the same way again: redirects that lead nowhere, a URL that is none.
    Refused { url: String, why: String },
    /// The registry's answer was an error.
    Status { url: String, status: StatusCode, errors: Vec<RegistryError> },
    /// Something wrong on this side or with the content.
    Other(Error),
}

/// One entry of the `errors` list of a registry's answer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RegistryError {
    pub(crate) code: String,
    pub(crate) message: Option<String>,
}

impl RegistryError {
    pub(crate) fn new(code: &str, message: &str) -> Self {
        Self { code: code.to_owned(), message: Some(message.to_owned()) }
    }

    /// `manifest unknown: manifest unknown`, as docker prints an error code and its message.
    fn text(&self) -> String {
        // It is printed on a terminal: what could steer that is left out.
        let plain = |text: &str, most: usize| -> String {
            text.chars().filter(|c| !c.is_control()).take(most).collect()
        };
        let code = plain(&self.code.to_lowercase().replace('_', " "), 100);
        let message = plain(self.message.as_deref().unwrap_or(&code), 1000);
        format!("{code}: {message}")
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Other(e)
    }
}

impl Failure {
    /// From reqwest, in the words of Go's net/http.
    pub(crate) fn transport(url: &str, error: &reqwest::Error) -> Self {
        let address = reqwest::Url::parse(url)
            .ok()
            .and_then(|u| Some((u.host_str()?.to_owned(), u.port_or_known_default()?)));
        let (host, port) = address.unwrap_or_default();
        let why = if error.is_timeout() && error.is_connect() {
            format!("dial tcp {host}:{port}: i/o timeout")
        } else if error.is_timeout() {
            "net/http: request canceled (Client.Timeout exceeded while awaiting headers)".to_owned()
        } else if let Some(kind) = io_kind(error).filter(|_| error.is_connect()) {
            match kind {
                io::ErrorKind::ConnectionRefused => {
                    format!("dial tcp {host}:{port}: connect: connection refused")
                }
                io::ErrorKind::NetworkUnreachable => {
                    format!("dial tcp {host}:{port}: connect: network is unreachable")
                }
                io::ErrorKind::HostUnreachable => {
                    format!("dial tcp {host}:{port}: connect: no route to host")
                }
                _ if chain(error).contains("dns error") => format!("dial tcp: lookup {host}: no such host"),
                _ => chain(error),
            }
        } else if chain(error).contains("dns error") {
            format!("dial tcp: lookup {host}: no such host")
        } else {
            chain(error)
        };
        if error.is_redirect() || error.is_builder() {
            return Self::Refused { url: url.to_owned(), why };
        }
        Self::Transport { url: url.to_owned(), why, timeout: error.is_timeout() }
    }

    /// Whether another attempt can help.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Transport { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Refused { .. } | Self::Other(_) => false,
        }
    }

    /// As an error without the name that was pulled.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Transport { url, why, timeout: true } => Error::Timeout(format!("Get \"{url}\": {why}")),
            Self::Transport { url, why, .. } | Self::Refused { url, why } => {
                Error::Registry(format!("Get \"{url}\": {why}"))
            }
            Self::Status { url, status, errors } => {
                let text = match errors.first() {
                    Some(first) => first.text(),
                    None => format!("received unexpected HTTP status: {status}"),
                };
                if status == StatusCode::UNAUTHORIZED {
                    return Error::Unauthorized(format!("Get \"{url}\": {text}"));
                }
                Error::Registry(format!("Get \"{url}\": {text}"))
            }
            Self::Other(e) => e,
        }
    }
}

/// A failure of a manifest request, as dockerd's `translatePullError` words it.
pub(crate) fn translate(failure: Failure, reference: &Reference) -> Error {
    let Failure::Status { status, errors, .. } = &failure else { return failure.into_error() };
    let name = reference.familiar_name();
    let denied = |cause: &str| {
        Error::NotFound(format!(
            "pull access denied for {name}, repository does not exist or may require 'docker login': {cause}"
        ))
    };
    match errors.first().map(|first| (first.code.as_str(), first.text())) {
        Some(("DENIED", text)) => denied(&text),
        Some(("MANIFEST_UNKNOWN", text)) => {
            Error::NotFound(format!("manifest for {} not found: {text}", reference.familiar()))
        }
        Some(("NAME_UNKNOWN", text)) => Error::NotFound(format!("repository {name} not found: {text}")),
        None if *status == StatusCode::NOT_FOUND => Error::NotFound(format!(
            "manifest for {} not found: manifest unknown: manifest unknown",
            reference.familiar()
        )),
        _ => failure.into_error(),
    }
}

fn io_kind(error: &reqwest::Error) -> Option<io::ErrorKind> {
    let mut source = StdError::source(error);
    while let Some(e) = source {
        if let Some(io) = e.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        source = e.source();
    }
    None
}

/// An error with its causes; the URL is left to the caller.
pub(crate) fn chain(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut source = StdError::source(error);
    while let Some(e) = source {
        let text = e.to_string();
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        source = e.source();
    }
    if causes.is_empty() {
        return "the request failed".to_owned();
    }
    causes.join(": ")
}
