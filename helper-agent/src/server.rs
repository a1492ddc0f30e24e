//! The agent's gRPC server on vsock port 9999: the standard health service now, NetworkControl with the network backend.

use std::io;

use proto::ports::{HELPER_CONTROL, HOST_CID};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::{Stream, StreamExt};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};
use tonic::transport::{Server, server::Connected};

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No event loop, or no vsock device.
    #[error("cannot listen on vsock port {HELPER_CONTROL}: {0}")]
    Listen(#[from] io::Error),
    /// The server gave up.
    #[error("gRPC server: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Serves until the VM ends.
pub(crate) fn run() -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, HELPER_CONTROL))?;
        // Only the host is listened to: a container on the helper's networks has no way to this port.
        let from_host = listener.incoming().filter(|stream| match stream {
            Ok(stream) => stream.peer_addr().is_ok_and(|peer| peer.cid() == HOST_CID),
            Err(_) => true,
        });
        serve(from_host).await
    })
}

/// Serves the connections of `incoming`.
async fn serve<S, I>(incoming: S) -> Result<(), Error>
where
    S: Stream<Item = io::Result<I>>,
    I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let (reporter, health) = tonic_health::server::health_reporter();
    // The empty name stands for the agent as a whole (gRPC health checking protocol).
    reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    Ok(Server::builder().add_service(health).serve_with_incoming(incoming).await?)
}

#[cfg(test)]
mod tests {
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    };

    use super::*;

    #[tokio::test]
    async fn health_is_serving() {
        let (here, there) = tokio::io::duplex(4096);
        tokio::spawn(serve(tokio_stream::once(Ok::<_, io::Error>(there))));
        let mut here = Some(hyper_util::rt::TokioIo::new(here));
        let channel = tonic::transport::Endpoint::from_static("http://helper.invalid")
            .connect_with_connector(tower::service_fn(move |_| {
                let stream = here.take().ok_or(io::ErrorKind::NotConnected);
                async move { stream.map_err(io::Error::from) }
            }))
            .await
            .unwrap();
        let mut client = HealthClient::new(channel);
        let answer = client.check(HealthCheckRequest { service: String::new() }).await.unwrap();
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
        assert!(client.check(HealthCheckRequest { service: "nosuch".into() }).await.is_err());
    }
}
