//! Bodies of requests, which must not pause for ever.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::{
    runtime::Handle,
    time::{Instant, Sleep, sleep},
};

/// So long a connection is kept whose request was answered before all of it was read. Cut at once its client would see its own
/// failure to write, and not the answer. Nothing more is read meanwhile. (Go's servers wait as long.)
const LINGER: Duration = Duration::from_millis(500);

/// A body that fails once its client has sent nothing for a while.
pub(super) struct Upload {
    body: Body,
    stall: Duration,
    /// Running while something is awaited.
    timer: Option<Pin<Box<Sleep>>>,
    /// Its client sends it unasked.
    comes: bool,
}

impl Upload {
    pub(super) fn new(body: Body, headers: &HeaderMap, stall: Duration) -> Self {
        let comes = !headers.contains_key(header::EXPECT);
        Self { body, stall, timer: None, comes }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.comes || self.body.is_end_stream() {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        let rest = std::mem::take(&mut self.body);
        runtime.spawn(async move {
            sleep(LINGER).await;
            drop(rest);
        });
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.comes = true;
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            let next = Instant::now() + self.stall;
            if let Some(timer) = &mut self.timer {
                timer.as_mut().reset(next);
            }
            return Poll::Ready(frame);
        }
        let stall = self.stall;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(stall)));
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => {
                let text = format!("the client has sent nothing for {stall:?}");
                let error = std::io::Error::new(std::io::ErrorKind::TimedOut, text);
                Poll::Ready(Some(Err(axum::Error::new(error))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{Request, Response};
    use hyper::{body::Incoming, server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
    };

    use super::*;

    /// What a client reads whose request is refused unread while it sends `sent` bytes, and whether it has seen a failure to
    /// write by then.
    async fn refused(extra: &str, sent: usize) -> (bool, String) {
        let (client, server) = UnixStream::pair().unwrap();
        let service = service_fn(|request: Request<Incoming>| async move {
            let (head, body) = request.into_parts();
            drop(Upload::new(Body::new(body), &head.headers, Duration::from_secs(9)));
            Ok::<_, std::convert::Infallible>(Response::builder().status(409).body(Body::empty()).unwrap())
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(server), service));
        let (mut reading, mut writing) = client.into_split();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{extra}Content-Length: 100000000\r\n\r\n");
        writing.write_all(head.as_bytes()).await.unwrap();
        let sending = tokio::spawn(async move { writing.write_all(&vec![b'x'; sent]).await.is_err() });
        let mut answer = [0; 12];
        reading.read_exact(&mut answer).await.unwrap();
        tokio::time::sleep(LINGER / 5).await;
        let cut = sending.is_finished() && sending.await.unwrap();
        (cut, String::from_utf8_lossy(&answer).into_owned())
    }

    /// SPEC A18
    #[tokio::test]
    async fn a_client_that_is_refused_early_sees_the_answer_and_not_a_broken_pipe() {
        assert_eq!(refused("", 16 << 20).await, (false, "HTTP/1.1 409".into()));
    }

    #[tokio::test]
    async fn one_that_asked_first_is_not_told_to_go_on() {
        assert_eq!(refused("Expect: 100-continue\r\n", 0).await.1, "HTTP/1.1 409");
    }
}
