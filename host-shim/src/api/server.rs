//! HTTP/1.1 with upgrades on a unix socket.

use std::{
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body, http::Request, response::IntoResponse};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{UnixListener, UnixStream},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use super::limits::Limits;
use super::{
    connections::{Connection, Connections, Io},
    upload::Upload,
};
use crate::error::{Error, Result};

/// How often clients that do not read are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// Between two attempts to accept when there are no file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// The bound socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Socket {
    /// Binds `path` with mode 0660. A socket that nobody answers on is replaced, anything else is left alone.
    ///
    /// # Errors
    /// When another daemon answers there, or the path is not a socket, or cannot be bound.
    pub fn bind(path: &Path) -> Result<Self> {
        let failed = |what: &str, error: io::Error| {
            Error::system(format!("cannot {what} the API socket {}", path.display())).because(error)
        };
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                let text =
                    format!("{} exists and is not a socket: set socketPath in config.json", path.display());
                return Err(Error::system(text));
            }
            Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
                let text = format!(
                    "another daemon answers on {}: stop it, or set socketPath in config.json",
                    path.display()
                );
                return Err(Error::system(text));
            }
            Ok(_) => std::fs::remove_file(path).map_err(|e| failed("replace", e))?,
            Err(_) => {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent).map_err(|e| failed("make the folder of", e))?;
                }
            }
        }
        let listener = UnixListener::bind(path).map_err(|e| failed("bind", e))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
            .map_err(|e| failed("open up", e))?;
        let inode = std::fs::symlink_metadata(path).map_err(|e| failed("look at", e))?.ino();
        Ok(Self { listener, path: path.to_owned(), inode })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Not if another daemon has bound the path meanwhile.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|m| m.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

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
            let mut request = request.map(|body| Body::new(Upload::new(Body::new(body), limits.stall)));
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
