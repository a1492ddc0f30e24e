//! Moves packets between the guest's rings and the clients.

use std::{collections::VecDeque, os::unix::net::UnixStream, sync::Arc, time::Instant};

use vm_memory::{Bytes, GuestMemoryMmap, VolatileSlice};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::{
    client::Client,
    connection::Connection,
    endpoint::{Endpoint, Fate, Produced},
    hybrid::{Line, LineParser},
    packet::{HEADER_LEN, HOST_CID, Header, Op, TYPE_STREAM},
    queue::{Access, Broken, Chain, Ring},
    table::{Slot, Table},
};

/// Chains taken from a ring before others get their turn.
const TURN: usize = 256;
/// Packets put into the receive ring before the guest is told, so that it works on them while more follow.
const SIGNAL_EVERY: usize = 16;
/// RST packets that wait for room in the receive ring. A guest that causes more and offers no room does without.
const MAX_RESETS: usize = 2048;

/// All connections of a guest.
#[derive(Debug)]
pub(crate) struct Switch {
    guest_cid: u64,
    epoll: Arc<Epoll>,
    /// Event token of a client: this plus its host port.
    client_token: u64,
    table: Table,
    /// Host ports of connections with something for the guest, each once.
    ready: VecDeque<u32>,
    /// Host and guest ports for which the guest gets RST.
    resets: VecDeque<(u32, u32)>,
}

impl Switch {
    pub(crate) fn new(guest_cid: u64, epoll: Arc<Epoll>, client_token: u64) -> Self {
        let (ready, resets) = (VecDeque::new(), VecDeque::new());
        Self { guest_cid, epoll, client_token, table: Table::new(), ready, resets }
    }

    /// Takes a client. It is closed at once if there are too many.
    pub(crate) fn accept(&mut self, stream: UnixStream) {
        let Some(port) = self.table.free_port() else {
            tracing::warn!("too many clients of the guest: one is refused");
            return;
        };
        let Ok(client) = Client::new(stream) else { return };
        let event = EpollEvent::new(Client::EVENTS, self.client_token + u64::from(port));
        if let Err(error) = self.epoll.ctl(ControlOperation::Add, client.fd(), event) {
            tracing::warn!(%error, "cannot watch a client of the guest: it is refused");
            return;
        }
        self.table
            .insert(port, Slot::Greeting { client, line: LineParser::default(), since: Instant::now() });
    }

    /// Something happened to a client's socket. `running`: the guest's driver runs.
    pub(crate) fn on_event(&mut self, port: u32, events: EventSet, running: bool) {
        match self.table.get(port) {
            Some(Slot::Connected(endpoint)) => {
                let fate = endpoint.on_event(events);
                self.settle(port, fate);
            }
            Some(Slot::Greeting { .. }) => self.greet(port, events, running),
            // Closed by an event before this one.
            None => {}
        }
    }

    /// Reads on in a client's first line.
    fn greet(&mut self, port: u32, events: EventSet, running: bool) {
        let Some(Slot::Greeting { mut client, mut line, since }) = self.table.remove(port) else { return };
        loop {
            let Ok(next) = client.read_byte() else { return };
            let Some(byte) = next else {
                self.table.insert(port, Slot::Greeting { client, line, since });
                return;
            };
            match line.push(byte) {
                Line::Partial => {}
                Line::Invalid => return,
                Line::Connect(guest_port) => {
                    if !running {
                        // Nobody would answer: the client is closed, and its dialler tries again. Not before its line is
                        // read: a socket closed with unread bytes looks like a reset instead of an end.
                        return;
                    }
                    // What follows the line is for the guest.
                    client.note(events | EventSet::IN);
                    let connection = Connection::new(self.guest_cid, port, guest_port);
                    let endpoint = Endpoint::new(connection, client, Instant::now());
                    self.table.insert(port, Slot::Connected(Box::new(endpoint)));
                    self.settle(port, Fate::Keep);
                    return;
                }
            }
        }
    }

    /// Whether [`Self::sweep`] is to be called from time to time.
    pub(crate) fn waiting(&self) -> bool {
        self.table.waiting()
    }

    /// Closes clients that are, or whose guest is, late; asks guests that have not answered again.
    pub(crate) fn sweep(&mut self, now: Instant) {
        for port in self.table.overdue(now) {
            match self.table.get(port) {
                Some(Slot::Connected(_)) => self.settle(port, Fate::Reset),
                _ => drop(self.table.remove(port)),
            }
        }
        for port in self.table.awaited() {
            if let Some(endpoint) = self.table.endpoint(port) {
                endpoint.repeat(now);
                self.settle(port, Fate::Keep);
            }
        }
    }

    /// Closes everything, without a word to the guest.
    pub(crate) fn clear(&mut self) {
        self.table.clear();
        self.ready = VecDeque::new();
        self.resets = VecDeque::new();
    }

    /// Moves what can be moved. True: there is more to do at once.
    pub(crate) fn run(
        &mut self,
        memory: &GuestMemoryMmap,
        receive: &mut Ring,
        transmit: &mut Ring,
    ) -> Result<bool, Broken> {
        let more = self.take_from_guest(memory, transmit)?;
        Ok(self.give_to_guest(memory, receive)? || more)
    }

    fn take_from_guest(&mut self, memory: &GuestMemoryMmap, ring: &mut Ring) -> Result<bool, Broken> {
        let mut taken = 0;
        loop {
            ring.hush(memory)?;
            while taken < TURN
                && let Some(chain) = ring.pop(memory, Access::Read)?
            {
                taken += 1;
                self.on_chain(&chain);
                ring.complete(memory, chain.head, 0)?;
            }
            if taken == TURN || !ring.listen(memory)? {
                break;
            }
        }
        if taken > 0 {
            ring.signal(memory)?;
        }
        Ok(taken == TURN)
    }

    /// One packet of the guest. What makes no sense is dropped.
    fn on_chain(&mut self, chain: &Chain<'_>) {
        let mut bytes = [0; HEADER_LEN];
        let Some(payload) = read_header(&chain.buffers, &mut bytes) else { return };
        let header = Header::decode(&bytes);
        if header.src_cid != self.guest_cid || header.dst_cid != HOST_CID {
            return;
        }
        let (port, guest_port) = (header.dst_port, header.src_port);
        let room: usize = payload.iter().map(VolatileSlice::len).sum();
        let fate = match self.table.endpoint(port) {
            Some(endpoint) if endpoint.connection.guest_port() == guest_port => {
                let truncated = header.op() == Some(Op::Data) && room < header.len as usize;
                if truncated || header.kind != TYPE_STREAM {
                    Fate::Reset
                } else {
                    endpoint.on_packet(&header, &payload)
                }
            }
            _ => {
                // Not a connection, or not one any more; and no guest opens one to the host.
                if header.op() != Some(Op::Reset) {
                    self.reset(port, guest_port);
                }
                return;
            }
        };
        self.settle(port, fate);
    }

    fn reset(&mut self, port: u32, guest_port: u32) {
        if self.resets.len() < MAX_RESETS {
            self.resets.push_back((port, guest_port));
        }
    }

    /// Lets a connection go on, or ends it.
    fn settle(&mut self, port: u32, fate: Fate) {
        let Some(endpoint) = self.table.endpoint(port) else { return };
        if fate == Fate::Keep {
            if !endpoint.queued && endpoint.has_work() {
                endpoint.queued = true;
                self.ready.push_back(port);
            }
            return;
        }
        let guest_port = endpoint.connection.guest_port();
        if endpoint.queued {
            // It could stay there for long if the guest takes no packets.
            self.ready.retain(|queued| *queued != port);
        }
        self.table.remove(port);
        if fate == Fate::Reset {
            self.reset(port, guest_port);
        }
    }

    fn give_to_guest(&mut self, memory: &GuestMemoryMmap, ring: &mut Ring) -> Result<bool, Broken> {
        let mut spare: Option<Chain<'_>> = None;
        let mut given = 0;
        while given < TURN && !(self.resets.is_empty() && self.ready.is_empty()) {
            let chain = match spare.take() {
                Some(chain) => chain,
                None => match ring.pop(memory, Access::Write)? {
                    Some(chain) => chain,
                    None if ring.listen(memory)? => continue,
                    None => break,
                },
            };
            let packet = match skip(&chain.buffers, HEADER_LEN) {
                Some(payload) => self.next_packet(&payload),
                // No room for a header: it goes back empty.
                None => Some(Header::default()),
            };
            match packet {
                Some(header) => {
                    let bytes = write_header(&chain.buffers, &header);
                    ring.complete(memory, chain.head, bytes)?;
                    given += 1;
                    if given % SIGNAL_EVERY == 0 {
                        ring.signal(memory)?;
                    }
                }
                None => spare = Some(chain),
            }
        }
        if spare.is_some() {
            ring.unpop();
        }
        if given > 0 {
            ring.signal(memory)?;
        }
        Ok(given == TURN)
    }

    /// The next packet for the guest, its payload in `payload`. None: the connection whose turn it was had nothing.
    fn next_packet(&mut self, payload: &[VolatileSlice<'_>]) -> Option<Header> {
        if let Some((port, guest_port)) = self.resets.pop_front() {
            return Some(Header::to_guest(self.guest_cid, port, guest_port, Op::Reset));
        }
        let port = self.ready.pop_front()?;
        let endpoint = self.table.endpoint(port)?;
        endpoint.queued = false;
        match endpoint.produce(payload) {
            Produced::Packet(header) => {
                // Behind the others, if it has more.
                self.settle(port, Fate::Keep);
                Some(header)
            }
            Produced::Nothing => None,
            Produced::Over => {
                self.settle(port, Fate::Reset);
                None
            }
        }
    }
}

/// The buffers without their first `bytes`; none if there are not so many.
fn skip<'m>(buffers: &[VolatileSlice<'m>], mut bytes: usize) -> Option<Vec<VolatileSlice<'m>>> {
    let mut rest = Vec::with_capacity(buffers.len());
    for buffer in buffers {
        let here = bytes.min(buffer.len());
        bytes -= here;
        if here < buffer.len() {
            rest.push(buffer.offset(here).ok()?);
        }
    }
    (bytes == 0).then_some(rest)
}

/// Reads a header; answers the buffers behind it.
fn read_header<'m>(
    buffers: &[VolatileSlice<'m>],
    bytes: &mut [u8; HEADER_LEN],
) -> Option<Vec<VolatileSlice<'m>>> {
    let mut at = 0;
    for buffer in buffers {
        if at == HEADER_LEN {
            break;
        }
        at += buffer.read(&mut bytes[at..], 0).ok()?;
    }
    skip(buffers, HEADER_LEN)
}

/// Writes a header; answers how many bytes of the chain are used with its payload. 0: there is no room.
fn write_header(buffers: &[VolatileSlice<'_>], header: &Header) -> u32 {
    let bytes = header.encode();
    let mut at = 0;
    for buffer in buffers {
        if at == HEADER_LEN {
            break;
        }
        match buffer.write(&bytes[at..], 0) {
            Ok(written) => at += written,
            Err(_) => return 0,
        }
    }
    if at == HEADER_LEN { u32::try_from(HEADER_LEN).unwrap_or(0) + header.len } else { 0 }
}

#[cfg(test)]
mod tests;
