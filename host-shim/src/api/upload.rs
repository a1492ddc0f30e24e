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
