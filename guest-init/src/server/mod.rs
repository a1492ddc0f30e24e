//! The gRPC server of PID 1.

mod files;
mod sandbox;
mod status;
mod stdio;
mod tapforwarder;
mod transport;

use std::{sync::Arc, time::Duration};

use proto::{sandbox::sandbox_server::SandboxServer, tapforwarder::tap_forwarder_server::TapForwarderServer};
use tokio::sync::Notify;
use tonic::transport::Server;

use self::{sandbox::Sandbox, tapforwarder::TapForwarder};
use crate::{
    boot::{kernel, power},
    container::registry::Registry,
    log,
};

/// Between the answer to PowerOff and the power, when the host keeps its streams open.
const POWER_OFF_WAIT: Duration = Duration::from_millis(100);
/// HTTP/2 windows: the host sends input and archives of any size.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// A piece of output is one frame.
const FRAME: u32 = 128 * 1024;

/// The server cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// No tokio runtime.
    #[error("start runtime: {0}")]
    Runtime(#[source] std::io::Error),
    /// No listener or no SIGCHLD.
    #[error("listen on vsock port {port}: {0}", port = proto::ports::GUEST_CONTROL)]
    Listen(#[source] std::io::Error),
    /// The server ended.
    #[error("serve: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Serves until PowerOff was answered.
pub(crate) async fn serve() -> Result<(), ServeError> {
    let registry = Arc::new(Registry::default());
    registry.reaper.start().map_err(ServeError::Listen)?;
    let incoming = transport::vsock(proto::ports::GUEST_CONTROL).map_err(ServeError::Listen)?;
    log::debug!("listening {} ms after the kernel's start", kernel::uptime_ms());
    let power = Arc::new(Notify::new());
    let asked = {
        let power = Arc::clone(&power);
        async move {
            power.notified().await;
            tokio::spawn(async {
                tokio::time::sleep(POWER_OFF_WAIT).await;
                power::off();
            });
        }
    };
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .add_service(SandboxServer::new(Sandbox::new(registry, power)))
        .add_service(TapForwarderServer::new(TapForwarder))
        .serve_with_incoming_shutdown(incoming, asked)
        .await?;
    Ok(())
}
