//! The device as its owner sees it: start, learn of its end, stop.

use std::{
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use vmm_sys_util::eventfd::EventFd;

use crate::{
    Error,
    event_loop::{EventLoop, Frontend},
    socket::Listening,
};

/// Smallest and largest context id of a guest.
const GUEST_CIDS: std::ops::Range<u64> = 3..0xffff_ffff;

/// Time the thread has to end: more than QEMU has for the rest of a message. QEMU shares the descriptors it is told of, and could
/// make one block that did not: such a thread is left to the end of the process.
const PATIENCE: Duration = Duration::from_secs(6);

/// Which guest, and where its sockets are.
#[derive(Clone, Debug)]
pub struct Config {
    /// Context id the guest sees as its own, 3 or more. It need not be unique on the host: the guest is reached by its socket.
    pub guest_cid: u64,
    /// Socket for QEMU's `-chardev socket,path=`: the device listens, QEMU connects, once.
    pub vhost_socket: PathBuf,
    /// Socket for host clients: a client sends `CONNECT <port>\n`, gets `OK <number>\n` once the guest has accepted, and
    /// goes on with the stream. An end before that line: nobody listens there (yet).
    pub hybrid_socket: PathBuf,
}

/// Why a device ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// QEMU closed its connection: it ended.
    Disconnected,
    /// It was stopped.
    Stopped,
    /// The thread cannot go on: the VM cannot be reached any more.
    Failed(String),
}

/// A vsock device, served by a thread of its own until QEMU goes, it is stopped or dropped.
#[derive(Debug)]
pub struct Device {
    stopper: EventFd,
    /// Our end of QEMU's connection, where it came with the start: to cut it short, whatever is being read from it.
    frontend: Option<UnixStream>,
    ended: watch::Receiver<Option<End>>,
    thread: Option<JoinHandle<()>>,
}

impl Device {
    /// Starts a device. Both sockets are bound, with mode 0600, when this returns; a stale socket is replaced.
    ///
    /// # Errors
    /// A socket cannot be bound, the context id is not one of a guest, or the system refuses a descriptor or a thread.
    pub fn start(config: &Config) -> Result<Self, Error> {
        check(config.guest_cid)?;
        let frontend = Frontend::Expected(Listening::bind(&config.vhost_socket)?);
        Self::run(config.guest_cid, &config.hybrid_socket, frontend, None)
    }

    /// Starts a device whose connection to QEMU exists already: one end of a socket pair, the other of which QEMU inherits
    /// (`-chardev socket,fd=`). Nobody else can ever speak to it.
    ///
    /// # Errors
    /// As [`Device::start`].
    pub fn attach(guest_cid: u64, hybrid_socket: &Path, frontend: UnixStream) -> Result<Self, Error> {
        check(guest_cid)?;
        let ours = frontend.try_clone().map_err(|source| Error::System { what: "socket", source })?;
        Self::run(guest_cid, hybrid_socket, Frontend::Connected(frontend), Some(ours))
    }

    fn run(
        guest_cid: u64,
        hybrid_socket: &Path,
        connection: Frontend,
        frontend: Option<UnixStream>,
    ) -> Result<Self, Error> {
        let (event_loop, stopper) = EventLoop::new(guest_cid, hybrid_socket, connection)?;
        let (sender, ended) = watch::channel(None);
        let thread = std::thread::Builder::new()
            .name("vsock-device".into())
            .spawn(move || {
                let end = event_loop.run();
                tracing::debug!(?end, "vsock device ended");
                // All clients and sockets are closed by now.
                sender.send_replace(Some(end));
            })
            .map_err(|source| Error::System { what: "thread", source })?;
        Ok(Self { stopper, frontend, ended, thread: Some(thread) })
    }

    /// Waits until the device has ended; may be called, and dropped, at any time. Needs no particular async runtime.
    pub async fn ended(&self) -> End {
        let mut ended = self.ended.clone();
        let end = ended.wait_for(Option::is_some).await.map(|end| end.clone());
        end.ok().flatten().unwrap_or_else(|| End::Failed("the vsock device's thread died".into()))
    }

    /// How the device ended, if it has.
    #[must_use]
    pub fn has_ended(&self) -> Option<End> {
        self.ended.borrow().clone()
    }

    /// Blocks until the device has ended by itself.
    #[must_use]
    pub fn wait(mut self) -> End {
        self.join()
    }

    /// Leaves a device that does not end to the end of the process: nothing waits for it any more.
    pub fn abandon(mut self) {
        self.thread = None;
    }

    /// Ends the device: all clients see an end, the sockets' files are removed. Blocks for a moment only, for at most 6 s if QEMU
    /// hangs in the middle of a message or holds the thread up; in an async task use [`Device::request_stop`] and
    /// [`Device::ended`].
    pub fn stop(mut self) -> End {
        self.request_stop();
        self.join_soon()
    }

    /// Has the device end, without waiting for it: [`Device::ended`] tells.
    pub fn request_stop(&self) {
        // A full counter has woken the thread already.
        let _ = self.stopper.write(1);
        if let Some(frontend) = &self.frontend {
            // Not there any more: then nobody waits for it.
            let _ = frontend.shutdown(Shutdown::Both);
        }
    }

    /// As [`Device::join`], but for [`PATIENCE`] at most.
    fn join_soon(&mut self) -> End {
        let deadline = Instant::now() + PATIENCE;
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            if Instant::now() >= deadline {
                self.thread = None;
                tracing::error!(
                    "the vsock device's thread does not end: it is left to the end of the process"
                );
                return End::Failed("the vsock device's thread does not end".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.join()
    }

    fn join(&mut self) -> End {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.has_ended().unwrap_or_else(|| End::Failed("the vsock device's thread died".into()))
    }
}

fn check(guest_cid: u64) -> Result<(), Error> {
    if GUEST_CIDS.contains(&guest_cid) { Ok(()) } else { Err(Error::GuestCid(guest_cid)) }
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.request_stop();
            self.join_soon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SPEC V2
    #[test]
    fn a_thread_that_qemu_holds_up_is_not_waited_for_for_ever() {
        let hung = || Device {
            stopper: EventFd::new(0).unwrap(),
            frontend: None,
            ended: watch::channel(None).1,
            thread: Some(std::thread::spawn(|| std::thread::sleep(100 * PATIENCE))),
        };
        let begin = Instant::now();
        assert!(matches!(hung().stop(), End::Failed(_)));
        assert!(begin.elapsed() < 5 * PATIENCE);
        let begin = Instant::now();
        hung().abandon();
        assert!(begin.elapsed() < PATIENCE);
    }
}
