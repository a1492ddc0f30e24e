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
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::error::{Error, Result};

/// Bounds of what clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time; more wait in the kernel's queue. Hijacked ones (attach, exec) no longer count.
    pub connections: usize,
    /// Time to send a request's headers, also the longest idle time of a kept-alive connection.
    pub headers: Duration,
    /// Bytes of a request's line and headers.
    pub header_bytes: usize,
    /// Time that running requests get after the daemon was told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            headers: Duration::from_secs(60),
            header_bytes: 1 << 20,
            drain: Duration::from_secs(2),
        }
    }
}

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
    let permits = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&socket.listener, &permits) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                let connection = connection(stream, router.clone(), limits, stop.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            // Out of file descriptors: it passes when a client leaves.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(socket);
    connections.close();
    if timeout(limits.drain + Duration::from_secs(1), connections.wait()).await.is_err() {
        tracing::debug!(left = connections.len(), "connections cut at the end");
    }
}

async fn accept(
    listener: &UnixListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

async fn connection(stream: UnixStream, router: Router, limits: Limits, stop: CancellationToken) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = super::answer(router.clone(), request.map(Body::new));
        async move {
            // On a task of its own: a client that goes away does not leave a decision half taken.
            let response = match tokio::spawn(answer).await {
                Ok(response) => response,
                Err(error) => Error::system("internal error").because(error).into_response(),
            };
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // As dockerd: scripts grep for `Api-Version`.
        .title_case_headers(true)
        .header_read_timeout(limits.headers)
        .max_buf_size(limits.header_bytes)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
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
