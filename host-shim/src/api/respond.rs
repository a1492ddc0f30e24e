//! Answers: JSON as dockerd writes it, errors, and streams of JSON lines.

use std::{error::Error as _, fmt::Write as _};

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use crate::error::{Error, Kind};

/// Lines that may wait for a slow client before the producer does.
const LINES_AHEAD: usize = 64;

/// `value` as dockerd sends it: compact, with a newline behind.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match encode(value) {
        Ok(text) => {
            (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], Body::from(text))
                .into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// 200 with `value`.
pub fn ok(value: &impl Serialize) -> Response {
    json(StatusCode::OK, value)
}

/// 201 with `value`.
pub fn created(value: &impl Serialize) -> Response {
    json(StatusCode::CREATED, value)
}

/// A status without a body.
#[must_use]
pub fn empty(status: StatusCode) -> Response {
    status.into_response()
}

fn encode(value: &impl Serialize) -> Result<Bytes, Error> {
    let mut text =
        serde_json::to_vec(value).map_err(|e| Error::system("cannot encode the answer").because(e))?;
    text.push(b'\n');
    Ok(text.into())
}

/// The status of a class of errors.
#[must_use]
pub fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::NotModified => StatusCode::NOT_MODIFIED,
        Kind::InvalidParameter => StatusCode::BAD_REQUEST,
        Kind::Unauthorized => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::System => StatusCode::INTERNAL_SERVER_ERROR,
        Kind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl IntoResponse for Error {
    /// `{"message": ...}` and the status. The causes go to the log, here and only here.
    fn into_response(self) -> Response {
        let status = status(self.kind);
        log(&self, status);
        if self.kind == Kind::NotModified {
            return empty(status);
        }
        json(status, &serde_json::json!({ "message": self.message }))
    }
}

fn log(error: &Error, status: StatusCode) {
    let mut causes = String::new();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(causes, ": {cause}");
        source = cause.source();
    }
    // 4xx is the client's matter; 501 and 503 are promises of the documentation.
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!("{}{causes}", error.message);
    } else {
        tracing::debug!(status = status.as_u16(), "{}{causes}", error.message);
    }
}

/// The client went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client closed the connection")]
pub struct Gone;

/// Writes lines of JSON into a streaming answer; each is flushed at once. The answer ends when the last sender is dropped.
#[derive(Debug, Clone)]
pub struct LineSender(mpsc::Sender<Bytes>);

impl LineSender {
    /// Sends one line; waits while the client is slow.
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn send(&self, value: &impl Serialize) -> Result<(), Gone> {
        match encode(value) {
            Ok(line) => self.0.send(line).await.map_err(|_| Gone),
            Err(error) => {
                log(&error, status(error.kind));
                Ok(())
            }
        }
    }

    /// Sends `error` as a line of a progress stream, where the status has been sent already.
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn send_error(&self, error: &Error) -> Result<(), Gone> {
        log(error, status(error.kind));
        self.send(&serde_json::json!({"errorDetail": {"message": error.message}, "error": error.message}))
            .await
    }

    /// Resolves when the client is gone.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

/// A 200 answer whose body is written line by line. The header is sent at once.
#[must_use]
pub fn json_lines() -> (LineSender, Response) {
    let (tx, rx) = mpsc::channel(LINES_AHEAD);
    let body = Body::from_stream(ReceiverStream::new(rx).map(Ok::<_, std::convert::Infallible>));
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (LineSender(tx), (StatusCode::OK, headers, body).into_response())
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn text(response: Response) -> (StatusCode, String) {
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn errors_as_dockerd_writes_them() {
        let answer = text(Error::not_found("No such container: x").into_response()).await;
        assert_eq!(answer, (StatusCode::NOT_FOUND, "{\"message\":\"No such container: x\"}\n".into()));
        assert_eq!(
            text(Error::not_modified().into_response()).await,
            (StatusCode::NOT_MODIFIED, String::new())
        );
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_sender() {
        let (tx, response) = json_lines();
        tx.send(&serde_json::json!({"a": "<1>"})).await.unwrap();
        tx.send_error(&Error::system("boom")).await.unwrap();
        drop(tx);
        let (status, body) = text(response).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body, "{\"a\":\"<1>\"}\n{\"errorDetail\":{\"message\":\"boom\"},\"error\":\"boom\"}\n");
    }

    #[tokio::test]
    async fn a_gone_client_is_told_to_the_producer() {
        let (tx, response) = json_lines();
        drop(response);
        assert_eq!(tx.send(&1).await, Err(Gone));
        tx.closed().await;
    }
}
