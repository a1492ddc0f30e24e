//! A connection and its client together: bytes move, and each side learns of the other's end.

use std::{
    net::Shutdown,
    time::{Duration, Instant},
};

use vm_memory::VolatileSlice;
use vmm_sys_util::epoll::EventSet;

use crate::{
    client::{Client, Got},
    connection::{Connection, State, Verdict},
    hybrid,
    packet::Header,
};

/// Most data in one packet to the guest: the limit of Linux' own devices.
const MAX_DATA: usize = 64 << 10;

/// Time after which a guest that has not answered is asked again. Linux' driver takes packets a moment before it can send its
/// answers (`virtio_vsock_probe` publishes the device last), and an answer in this moment is lost without a trace.
pub(crate) const REPEAT: Duration = Duration::from_millis(100);

/// What becomes of a connection after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on.
    Keep,
    /// It is over, and the guest is told by RST.
    Reset,
    /// It is over, and the guest knows.
    Forget,
}

/// What a connection has for the guest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Produced {
    /// A packet; its payload is in the buffer already.
    Packet(Header),
    /// Nothing now.
    Nothing,
    /// Nothing ever.
    Over,
}

/// One connection with its client.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) connection: Connection,
    client: Client,
    /// When the client asked for it.
    pub(crate) since: Instant,
    repeat_after: Duration,
    /// It stands in the queue of those with something for the guest.
    pub(crate) queued: bool,
    read_ended: bool,
    write_ended: bool,
}

impl Endpoint {
    pub(crate) fn new(connection: Connection, client: Client, since: Instant) -> Self {
        Self {
            connection,
            client,
            since,
            repeat_after: REPEAT,
            queued: false,
            read_ended: false,
            write_ended: false,
        }
    }

    /// Whether the guest has not accepted yet.
    pub(crate) fn unanswered(&self) -> bool {
        matches!(self.connection.state(), State::New | State::Requested)
    }

    /// Asks the guest again if it is time to: after [`REPEAT`], then each time after twice as long.
    pub(crate) fn repeat(&mut self, now: Instant) {
        if now.saturating_duration_since(self.since) >= self.repeat_after {
            self.repeat_after *= 2;
            self.connection.ask_again();
        }
    }

    /// Whether the guest could get a packet.
    pub(crate) fn has_work(&self) -> bool {
        self.connection.has_work(self.client.readable())
    }

    /// A packet of the guest. `payload` holds at least `header.len` bytes.
    pub(crate) fn on_packet(&mut self, header: &Header, payload: &[VolatileSlice<'_>]) -> Fate {
        match self.connection.on_packet(header) {
            Verdict::Taken => self.settle(),
            Verdict::Opened => match self.client.greet(&hybrid::answer(self.connection.host_port())) {
                Ok(()) => self.settle(),
                Err(_) => Fate::Reset,
            },
            Verdict::Payload => match self.client.write_from(payload, header.len as usize) {
                Ok(bytes) => self.forwarded(bytes),
                Err(_) => Fate::Reset,
            },
            Verdict::Over { tell: true } => Fate::Reset,
            Verdict::Over { tell: false } => Fate::Forget,
        }
    }

    /// Something happened to the client's socket.
    pub(crate) fn on_event(&mut self, events: EventSet) -> Fate {
        self.client.note(events);
        if self.client.hung_up() {
            match self.connection.state() {
                State::New if !self.connection.asked() => return Fate::Forget,
                State::Draining => return Fate::Forget,
                State::New | State::Requested | State::Closing => return Fate::Reset,
                // What the client sent before is still to be read.
                State::Established => {}
            }
        }
        match self.client.flush() {
            Ok(bytes) => self.forwarded(bytes),
            // A guest that is gone needs no RST.
            Err(_) if self.connection.state() == State::Draining => Fate::Forget,
            Err(_) => Fate::Reset,
        }
    }

    fn forwarded(&mut self, bytes: usize) -> Fate {
        // Within the credit, so it fits.
        self.connection.credit.forward(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.settle()
    }

    /// Passes ends on and says whether all is over.
    fn settle(&mut self) -> Fate {
        let flushed = self.client.flushed();
        match self.connection.state() {
            State::New | State::Requested => return Fate::Keep,
            State::Closing => return if flushed { Fate::Reset } else { Fate::Keep },
            State::Draining => return if flushed { Fate::Forget } else { Fate::Keep },
            State::Established => {}
        }
        if self.connection.guest_done() && flushed && !self.write_ended {
            self.write_ended = true;
            self.client.shutdown(Shutdown::Write);
        }
        if self.connection.guest_deaf() && !self.read_ended {
            self.read_ended = true;
            self.client.shutdown(Shutdown::Read);
        }
        // Nobody is left to read what the guest sends, and the guest has or wants no more of the client's.
        if self.client.hung_up() && (self.connection.client_done() || self.connection.guest_deaf()) {
            return Fate::Reset;
        }
        Fate::Keep
    }

    /// The next packet for the guest; data goes straight into `memory`.
    pub(crate) fn produce(&mut self, memory: &[VolatileSlice<'_>]) -> Produced {
        loop {
            if let Some(header) = self.connection.next_control(self.client.readable()) {
                return Produced::Packet(header);
            }
            let limit = MAX_DATA.min(self.connection.room() as usize);
            if limit == 0 || !self.client.readable() {
                return Produced::Nothing;
            }
            match self.client.read_into(memory, limit) {
                Ok(Got::Bytes(bytes)) => {
                    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
                    return Produced::Packet(self.connection.data(bytes));
                }
                Ok(Got::Nothing) => return Produced::Nothing,
                Ok(Got::End) => {
                    self.connection.on_client_done();
                    if self.settle() != Fate::Keep {
                        return Produced::Over;
                    }
                }
                Err(_) => return Produced::Over,
            }
        }
    }
}
