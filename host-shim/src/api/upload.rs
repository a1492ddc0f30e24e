//! Bodies of requests, which must not pause for ever.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

/// A body that fails once its client has sent nothing for a while.
pub(super) struct Upload {
    body: Body,
    stall: Duration,
    /// Running while something is awaited.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Upload {
    pub(super) fn new(body: Body, stall: Duration) -> Self {
        Self { body, stall, timer: None }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
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
