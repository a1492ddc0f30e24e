//! Long work on images, told as a stream of JSON lines.

use axum::response::Response;
use images::ProgressEvent;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{api::respond, error::Result};

/// Runs `work` and sends its progress line by line. What fails before the first line has a status of its own; later, the
/// error is the last line. As in dockerd, a client that leaves cancels the work; what is complete is kept.
///
/// # Errors
/// The work's, when it failed before it said anything.
pub(super) async fn respond(
    work: impl Future<Output = Result<()>> + Send + 'static,
    mut received: UnboundedReceiver<ProgressEvent>,
) -> Result<Response> {
    let mut work = Box::pin(work);
    let mut outcome = None;
    let first = tokio::select! {
        biased;
        Some(first) = received.recv() => Some(first),
        result = &mut work => {
            outcome = Some(result);
            received.try_recv().ok()
        }
    };
    if first.is_none()
        && let Some(Err(error)) = outcome
    {
        return Err(error);
    }
    let (lines, response) = respond::json_lines();
    tokio::spawn(async move {
        if let Some(event) = first
            && lines.send(&event).await.is_err()
        {
            return;
        }
        let outcome = loop {
            // Work that is done must not be polled again.
            if let Some(outcome) = outcome {
                break outcome;
            }
            tokio::select! {
                biased;
                () = lines.closed() => return,
                Some(event) = received.recv() => if lines.send(&event).await.is_err() { return },
                result = &mut work => outcome = Some(result),
            }
        };
        while let Ok(event) = received.try_recv() {
            if lines.send(&event).await.is_err() {
                return;
            }
        }
        if let Err(error) = outcome {
            // Whoever left does not need to know.
            let _ = lines.send_error(&error).await;
        }
    });
    Ok(response)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests end")]
mod tests {
    use http_body_util::BodyExt;
    use tokio::sync::{mpsc::unbounded_channel, oneshot};

    use super::*;
    use crate::error::Error;

    fn line(n: usize) -> ProgressEvent {
        ProgressEvent::Stream(format!("{n}\n"))
    }

    async fn text(response: Response) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn work_that_is_done_at_once_tells_everything() {
        let (sender, received) = unbounded_channel();
        let work = async move {
            (0..3).for_each(|n| sender.send(line(n)).unwrap());
            Err(Error::system("late"))
        };
        let body = text(respond(work, received).await.unwrap()).await;
        assert_eq!(body.lines().count(), 4, "{body}");
        assert!(body.ends_with("{\"errorDetail\":{\"message\":\"late\"},\"error\":\"late\"}\n"), "{body}");
    }

    #[tokio::test]
    async fn slow_work_tells_everything() {
        let (sender, received) = unbounded_channel();
        let work = async move {
            for n in 0..300 {
                sender.send(line(n)).unwrap();
                tokio::task::yield_now().await;
            }
            Ok(())
        };
        assert_eq!(text(respond(work, received).await.unwrap()).await.lines().count(), 300);
    }

    #[tokio::test]
    async fn an_early_error_has_its_own_status() {
        let (sender, received) = unbounded_channel();
        let work = async move {
            drop(sender);
            tokio::task::yield_now().await;
            Err(Error::not_found("no such"))
        };
        assert_eq!(respond(work, received).await.unwrap_err().message, "no such");
    }

    #[tokio::test]
    async fn silent_work_is_an_empty_answer() {
        let (_sender, received) = unbounded_channel();
        assert_eq!(text(respond(async { Ok(()) }, received).await.unwrap()).await, "");
    }

    #[tokio::test]
    async fn a_client_that_leaves_cancels() {
        let (sender, received) = unbounded_channel();
        let (alive, dropped) = oneshot::channel::<()>();
        let work = async move {
            sender.send(line(0)).unwrap();
            std::future::pending::<()>().await;
            drop(alive);
            Ok(())
        };
        drop(respond(work, received).await.unwrap());
        dropped.await.unwrap_err();
    }
}
