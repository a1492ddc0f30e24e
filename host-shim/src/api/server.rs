//! HTTP/1.1 with upgrades on a unix socket.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request, response::IntoResponse};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::UnixStream, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    connections::{Connection, Connections, Io},
    upload::Upload,
};
pub use super::{limits::Limits, socket::Socket};
use crate::error::Error;

/// How often clients that do not read are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// Between two attempts to accept when there are no file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` until `stop` is cancelled; then running requests get [`Limits::drain`].
pub async fn serve(socket: Socket, router: Router, limits: Limits, stop: CancellationToken) {
    let connections = Connections::new(limits);
    let tasks = TaskTracker::new();
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            _ = sweep.tick() => {
                connections.sweep();
                continue;
            }
            accepted = socket.listener.accept() => accepted,
        };
        match accepted.map(|(stream, _)| connections.admit(stream)) {
            Ok(Ok(admitted)) => {
                tasks.spawn(connection(admitted, router.clone(), limits, stop.clone()));
            }
            Ok(Err(stream)) => refuse(&stream, limits),
            Err(error) => {
                // Out of file descriptors, most likely: whoever idles gives one back.
                tracing::warn!(%error, "cannot accept a client");
                connections.make_room();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(socket);
    tasks.close();
    if timeout(limits.drain + Duration::from_secs(1), tasks.wait()).await.is_err() {
        tracing::debug!(left = tasks.len(), "connections cut at the end");
    }
}

/// Tells a client that there is no place for it.
fn refuse(stream: &UnixStream, limits: Limits) {
    let text = format!(
        "too many clients: {} connections are in use, and none of them is idle; close some",
        limits.connections
    );
    tracing::warn!("{text}");
    let body = format!("{}\n", serde_json::json!({ "message": text }));
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // A fresh socket has room for it; whoever left does not need it.
    let _ = stream.try_write(answer.as_bytes());
}

async fn connection(admitted: Arc<Connection>, router: Router, limits: Limits, stop: CancellationToken) {
    let client = admitted.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (client, router) = (client.clone(), router.clone());
        async move {
            let serving = client.serve();
            let (head, body) = request.into_parts();
            let body = Body::new(Upload::new(Body::new(body), &head.headers, limits.stall));
            let mut request = Request::from_parts(head, body);
            request.extensions_mut().insert(client.clone());
            request.extensions_mut().insert(limits);
            let answer = super::answer(router, request);
            // On a task of its own: a client that goes away does not leave a decision half taken. It counts as a
            // connection until then.
            let answered = tokio::spawn(async move {
                let response = answer.await;
                drop(client);
                response
            });
            let response = match answered.await {
                Ok(response) => response,
                Err(error) => Error::system("internal error").because(error).into_response(),
            };
            Ok::<_, std::convert::Infallible>(response.map(|body| serving.body(body)))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // As dockerd: scripts grep for `Api-Version`.
        .title_case_headers(true)
        .header_read_timeout(limits.headers)
        .max_buf_size(limits.header_bytes)
        .max_headers(limits.header_count)
        // As dockerd: a client may end its half once it has sent its request.
        .half_close(true)
        .serve_connection(TokioIo::new(Io(admitted.clone())), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = admitted.is_cut() => Ok(()),
        () = admitted.hung_up() => Ok(()),
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(limits.drain, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = outcome {
        // The client's doing: it went away, or spoke no HTTP.
        tracing::debug!(%error, "connection ended");
    }
}
