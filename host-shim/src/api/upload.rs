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
use futures::StreamExt;
use http_body::{Body as _, Frame, SizeHint};
use tokio::{
    runtime::Handle,
    time::{Instant, Sleep, sleep, timeout},
};

/// So long a client is listened to whose request was answered before it had sent all of it. Cut at once it would see its own
/// failure to write, and not the answer.
const LINGER: Duration = Duration::from_secs(2);

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
        let mut rest = std::mem::take(&mut self.body).into_data_stream();
        runtime.spawn(async move {
            let read = async { while let Some(Ok(_)) = rest.next().await {} };
            // Whoever still sends then has had its answer.
            let _ = timeout(LINGER, read).await;
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

    /// A server that refuses without reading, and how much of `sent` bytes a client gets rid of before it reads the answer.
    async fn refused(extra: &str, sent: usize) -> (std::io::Result<()>, String) {
        let (mut client, server) = UnixStream::pair().unwrap();
        let service = service_fn(|request: Request<Incoming>| async move {
            let (head, body) = request.into_parts();
            drop(Upload::new(Body::new(body), &head.headers, Duration::from_secs(9)));
            Ok::<_, std::convert::Infallible>(Response::builder().status(409).body(Body::empty()).unwrap())
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(server), service));
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{extra}Content-Length: 100000000\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let written = client.write_all(&vec![b'x'; sent]).await;
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        (written, String::from_utf8_lossy(&answer).into_owned())
    }

    /// SPEC A18
    #[tokio::test]
    async fn a_client_that_is_refused_early_sees_the_answer_and_not_a_broken_pipe() {
        let (written, answer) = refused("", 16 << 20).await;
        written.unwrap();
        assert_eq!(answer, "HTTP/1.1 409");
    }

    #[tokio::test]
    async fn one_that_asked_first_is_not_told_to_go_on() {
        let (_, answer) = refused("Expect: 100-continue\r\n", 0).await;
        assert_eq!(answer, "HTTP/1.1 409");
    }
}
