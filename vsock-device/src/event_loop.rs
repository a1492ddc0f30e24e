//! The device's thread: one epoll loop over QEMU's socket, the guest's kicks and all clients. Nothing in it blocks, and no
//! guest or client can end it.

use std::{
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use vhost::vhost_user::{BackendReqHandler, Error as VhostError};
use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd},
};

use crate::{End, Error, backend::Backend, endpoint::REPEAT, socket::Listening, switch::Switch};

const STOP: u64 = 0;
const FRONTEND_LISTENER: u64 = 1;
const FRONTEND: u64 = 2;
const HYBRID_LISTENER: u64 = 3;
/// The rings' kicks: they need no more than to wake the loop.
const FIRST_KICK: u64 = 16;
/// Clients: this plus the host port.
const FIRST_CLIENT: u64 = 1 << 32;

/// Events taken at once.
const EVENTS: usize = 64;
/// How often it is looked for late answers, while any is awaited.
const SWEEP: Duration = REPEAT;
/// Time QEMU has to send the rest of a message it began.
const FRONTEND_PATIENCE: Duration = Duration::from_secs(5);

/// How QEMU is reached.
pub(crate) enum Frontend {
    /// It will connect to this socket, once.
    Expected(Listening),
    /// It holds the other end already.
    Connected(UnixStream),
}

/// The loop with all it watches.
pub(crate) struct EventLoop {
    epoll: Arc<Epoll>,
    stop: EventFd,
    /// Until QEMU has connected.
    frontend_listener: Option<Listening>,
    frontend: Option<BackendReqHandler<Mutex<Backend>>>,
    backend: Arc<Mutex<Backend>>,
    hybrid: Listening,
    /// The process has no file descriptor left for a client: the listener is not watched until the next sweep.
    hybrid_paused: bool,
    switch: Switch,
}

impl EventLoop {
    /// Binds the guest's socket. The second value stops the loop when it is written to.
    pub(crate) fn new(guest_cid: u64, hybrid: &Path, frontend: Frontend) -> Result<(Self, EventFd), Error> {
        let system = |what| move |source| Error::System { what, source };
        let epoll = Arc::new(Epoll::new().map_err(system("epoll instance"))?);
        let stop = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(system("event descriptor"))?;
        let stopper = stop.try_clone().map_err(system("event descriptor"))?;
        let backend =
            Backend::new(guest_cid, Arc::clone(&epoll), FIRST_KICK).map_err(system("virtqueues"))?;
        let mut this = Self {
            stop,
            frontend_listener: None,
            frontend: None,
            backend: Arc::new(Mutex::new(backend)),
            hybrid: Listening::bind(hybrid)?,
            hybrid_paused: false,
            switch: Switch::new(guest_cid, Arc::clone(&epoll), FIRST_CLIENT),
            epoll,
        };
        this.watch(this.stop.as_raw_fd(), STOP).map_err(system("event descriptor"))?;
        this.watch(this.hybrid.fd(), HYBRID_LISTENER).map_err(system("socket"))?;
        match frontend {
            Frontend::Expected(listening) => {
                this.watch(listening.fd(), FRONTEND_LISTENER).map_err(system("socket"))?;
                this.frontend_listener = Some(listening);
            }
            Frontend::Connected(stream) => this.take_frontend(stream).map_err(system("socket"))?,
        }
        Ok((this, stopper))
    }

    fn watch(&self, fd: RawFd, token: u64) -> io::Result<()> {
        self.epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, token))
    }

    /// Serves until QEMU goes or it is stopped.
    pub(crate) fn run(mut self) -> End {
        let mut events = [EpollEvent::default(); EVENTS];
        let mut more = false;
        let mut swept = Instant::now();
        loop {
            let sweeping = self.switch.waiting() || self.hybrid_paused;
            let timeout = match (more, sweeping) {
                (true, _) => 0,
                (false, true) => i32::try_from(SWEEP.as_millis()).unwrap_or(i32::MAX),
                (false, false) => -1,
            };
            let count = match self.epoll.wait(timeout, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => return End::Failed(format!("epoll_wait: {error}")),
            };
            for event in &events[..count] {
                if let Some(end) = self.on_event(event) {
                    return end;
                }
            }
            if sweeping && swept.elapsed() >= SWEEP {
                swept = Instant::now();
                self.switch.sweep(swept);
                self.watch_clients_again();
            }
            more = self.serve();
        }
    }

    fn on_event(&mut self, event: &EpollEvent) -> Option<End> {
        match event.data() {
            STOP => return Some(End::Stopped),
            FRONTEND_LISTENER => self.accept_frontend(),
            FRONTEND => return self.hear_frontend(),
            HYBRID_LISTENER => self.accept_clients(),
            token => {
                // Kicks have small tokens: they wake the loop, which looks into the rings anyway.
                if let Some(port) = token.checked_sub(FIRST_CLIENT).and_then(|port| u32::try_from(port).ok())
                {
                    let running = lock(&self.backend).running().is_some();
                    self.switch.on_event(port, event.event_set(), running);
                }
            }
        }
        None
    }

    /// Takes QEMU's connection; there is one per device.
    fn accept_frontend(&mut self) {
        let Some(Ok((stream, _))) =
            self.frontend_listener.as_ref().map(|listening| listening.listener.accept())
        else {
            return;
        };
        match self.take_frontend(stream) {
            Ok(()) => self.frontend_listener = None,
            Err(error) => tracing::warn!(%error, "cannot take QEMU's connection to the vsock device"),
        }
    }

    fn take_frontend(&mut self, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(FRONTEND_PATIENCE))?;
        stream.set_write_timeout(Some(FRONTEND_PATIENCE))?;
        self.watch(stream.as_raw_fd(), FRONTEND)?;
        self.frontend = Some(BackendReqHandler::from_stream(stream, Arc::clone(&self.backend)));
        Ok(())
    }

    /// One message of QEMU.
    fn hear_frontend(&mut self) -> Option<End> {
        let end = match self.frontend.as_mut()?.handle_request() {
            Ok(()) => None,
            Err(VhostError::Disconnected | VhostError::PartialMessage | VhostError::SocketBroken(_)) => {
                Some(End::Disconnected)
            }
            Err(error @ (VhostError::SocketError(_) | VhostError::SocketRetry(_))) => {
                Some(End::Failed(format!("vhost-user socket: {error}")))
            }
            Err(
                error @ (VhostError::InvalidMessage | VhostError::OversizedMsg | VhostError::IncorrectFds),
            ) => {
                // Where the next message begins is not known.
                Some(End::Failed(format!("vhost-user message: {error}")))
            }
            Err(error) => {
                tracing::warn!(%error, "the vsock device refuses a request of QEMU");
                None
            }
        };
        // Before any ring is served: what the guest knew is gone.
        if lock(&self.backend).take_restarted() {
            self.switch.clear();
        }
        end
    }

    fn accept_clients(&mut self) {
        loop {
            match self.hybrid.listener.accept() {
                Ok((stream, _)) => self.switch.accept(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client of the guest; is the limit on open files reached?");
                    let none = EpollEvent::default();
                    self.hybrid_paused =
                        self.epoll.ctl(ControlOperation::Delete, self.hybrid.fd(), none).is_ok();
                    return;
                }
            }
        }
    }

    fn watch_clients_again(&mut self) {
        if self.hybrid_paused {
            self.hybrid_paused = self.watch(self.hybrid.fd(), HYBRID_LISTENER).is_err();
        }
    }

    /// Moves packets. True: there is more to do at once.
    fn serve(&mut self) -> bool {
        let mut backend = lock(&self.backend);
        let Some((memory, receive, transmit)) = backend.running() else { return false };
        match self.switch.run(memory, receive, transmit) {
            Ok(more) => more,
            Err(error) => {
                tracing::warn!(%error, "the vsock device stops until the guest's driver starts anew");
                backend.give_up();
                self.switch.clear();
                false
            }
        }
    }
}

/// Only this thread ever locks, so nobody can have left the lock poisoned; the type is what `vhost` asks for.
fn lock(backend: &Mutex<Backend>) -> MutexGuard<'_, Backend> {
    backend.lock().unwrap_or_else(PoisonError::into_inner)
}
