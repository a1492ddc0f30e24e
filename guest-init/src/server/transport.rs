//! Where connections come from. The server takes any stream of streams, so that a multiplexed virtio-serial port can take
//! vsock's place.

use std::{io, pin::Pin};

use tokio_stream::Stream;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};

use crate::log;

/// Accepted connections.
pub(super) type Incoming = Pin<Box<dyn Stream<Item = io::Result<VsockStream>> + Send>>;

/// Listens on a vsock port for the host alone.
pub(super) fn vsock(port: u32) -> io::Result<Incoming> {
    let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))?;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                // Nobody but the host may drive PID 1: neither a process of this guest nor another guest.
                Ok((_, peer)) if peer.cid() != proto::ports::HOST_CID => {
                    log::warning!("connection from CID {} dropped", peer.cid());
                }
                Ok((stream, _)) => {
                    if sender.send(Ok(stream)).await.is_err() {
                        return;
                    }
                }
                Err(error) => log::warning!("accept: {error}"),
            }
        }
    });
    Ok(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver)))
}
