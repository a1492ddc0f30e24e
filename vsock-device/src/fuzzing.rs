//! The device and a guest whose every move, rings included, is the input of a fuzz target. Not an interface.

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::Arc,
    time::{Duration, Instant},
};

use virtio_queue::QueueT;
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::{Epoll, EpollEvent};

use crate::{
    hybrid::{Line, LineParser},
    packet::Header,
    queue::{Broken, Ring},
    switch::Switch,
};

const SIZE: u16 = 16;
const CLIENT_TOKEN: u64 = 1 << 32;
const GUEST_CID: u64 = 3;
const FIRST_PORT: u32 = 1 << 30;
const MOST_CLIENTS: usize = 8;
/// Rings in the first page of two regions without a gap, and a third one at the end of all addresses.
const RINGS: [u64; 2] = [0x1000, 0x2000];
const REGIONS: [(GuestAddress, usize); 3] =
    [(GuestAddress(0), 0x8000), (GuestAddress(0x8000), 0x8000), (GuestAddress(u64::MAX - 0x1fff), 0x1000)];
/// Where packets and receive buffers lie.
const BUFFERS: u64 = 0x4000;

/// What a guest's script achieved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Times the device gave something into the receive ring.
    pub received: u32,
    /// Bytes clients got, the `OK` line included.
    pub to_clients: usize,
    /// Rings the device gave up.
    pub broken: u32,
}

/// The port in a client's first line, if the line is one.
#[must_use]
pub fn first_line(bytes: &[u8]) -> Option<u32> {
    let mut parser = LineParser::default();
    bytes.iter().find_map(|byte| match parser.push(*byte) {
        Line::Partial => None,
        Line::Connect(port) => Some(Some(port)),
        Line::Invalid => Some(None),
    })?
}

/// A header, decoded and written again.
#[must_use]
pub fn header(bytes: &[u8; 44]) -> [u8; 44] {
    Header::decode(bytes).encode()
}

/// Lets the guest and some clients do what `script` says, one instruction after the other.
#[must_use]
pub fn play(script: &[u8]) -> Seen {
    let Some(mut machine) = Machine::new() else { return Seen::default() };
    let mut script = Script(script);
    // Bounds the time of one input.
    for _ in 0..400 {
        let Some(instruction) = script.byte() else { break };
        machine.act(instruction, &mut script);
        machine.run();
    }
    machine.events();
    machine.seen
}

/// The rest of the input; at its end all reads are zeros.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn u8(&mut self) -> u8 {
        self.byte().unwrap_or_default()
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    /// Small numbers, numbers around powers of two, or any.
    fn number(&mut self) -> u64 {
        match self.u8() {
            small @ 0..0x80 => u64::from(small),
            shift @ 0x80..0xc0 => (1_u64 << (shift & 63)).wrapping_sub(u64::from(self.u8() & 3)),
            _ => (0..8).fold(0, |all, _| (all << 8) | u64::from(self.u8())),
        }
    }

    /// The low half of [`Self::number`].
    fn word(&mut self) -> u32 {
        u32::try_from(self.number() & 0xffff_ffff).unwrap_or_default()
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let wanted = usize::from(self.u8()).min(most).min(self.0.len());
        let (taken, rest) = self.0.split_at(wanted);
        self.0 = rest;
        taken.to_vec()
    }
}

struct Machine {
    memory: GuestMemoryMmap,
    epoll: Arc<Epoll>,
    switch: Switch,
    rings: [Ring; 2],
    offered: [u16; 2],
    clients: Vec<UnixStream>,
    now: Instant,
    seen: Seen,
}

fn new_ring(base: u64) -> Option<Ring> {
    let mut ring = Ring::new(SIZE).ok()?;
    ring.queue.try_set_desc_table_address(GuestAddress(base)).ok()?;
    ring.queue.try_set_avail_ring_address(GuestAddress(base + 0x400)).ok()?;
    ring.queue.try_set_used_ring_address(GuestAddress(base + 0x800)).ok()?;
    ring.queue.set_event_idx(true);
    ring.queue.set_ready(true);
    ring.enabled = true;
    Some(ring)
}

impl Machine {
    fn new() -> Option<Self> {
        let epoll = Arc::new(Epoll::new().ok()?);
        Some(Self {
            memory: GuestMemoryMmap::from_ranges(&REGIONS).ok()?,
            switch: Switch::new(GUEST_CID, Arc::clone(&epoll), CLIENT_TOKEN),
            epoll,
            rings: [new_ring(RINGS[0])?, new_ring(RINGS[1])?],
            offered: [0; 2],
            clients: Vec::new(),
            now: Instant::now(),
            seen: Seen::default(),
        })
    }

    fn act(&mut self, instruction: u8, script: &mut Script<'_>) {
        match instruction % 12 {
            0 => {
                let (at, value) = (0x1000 + u64::from(script.u16() % 0x2000), script.u16());
                self.write(value, at);
            }
            1 => {
                let (ring, index) = (usize::from(script.u8() & 1), script.u16() % SIZE);
                let (at, len) = (script.number(), script.number());
                self.descriptor(ring, index, at, len, script.u16(), script.u16());
            }
            2 => self.publish(usize::from(script.u8() & 1), script.u16()),
            3 => self.packet(script),
            4 => self.connect(script),
            5 => {
                if let Some(client) = self.client(script) {
                    let bytes = script.bytes(200).repeat(usize::from(script.u8()));
                    let _ = client.write(&bytes);
                }
            }
            6 => self.hang_up(script),
            7 => self.read(script),
            8 => self.offer(script),
            9 => self.events(),
            10 => {
                self.now += Duration::from_millis(u64::from(script.u16()));
                self.switch.sweep(self.now);
            }
            _ => self.restart(),
        }
    }

    fn write<T: ByteValued>(&self, value: T, at: u64) {
        // What lies outside is not written.
        let _ = self.memory.write_obj(value, GuestAddress(at));
    }

    fn descriptor(&self, ring: usize, index: u16, at: u64, len: u64, flags: u16, next: u16) {
        let entry = RINGS[ring] + 16 * u64::from(index);
        self.write(at, entry);
        self.write(u32::try_from(len & 0xffff_ffff).unwrap_or_default(), entry + 8);
        self.write(flags, entry + 12);
        self.write(next, entry + 14);
    }

    fn publish(&mut self, ring: usize, head: u16) {
        let offered = self.offered[ring];
        self.write(head, RINGS[ring] + 0x404 + 2 * u64::from(offered % SIZE));
        self.offered[ring] = offered.wrapping_add(1);
        self.write(self.offered[ring], RINGS[ring] + 0x402);
    }

    /// A packet of a driver that keeps to the form, whatever it says in it.
    fn packet(&mut self, script: &mut Script<'_>) {
        let payload = script.bytes(200);
        let shape = script.u8();
        let header = Header {
            src_cid: if shape & 1 == 0 { GUEST_CID } else { script.number() },
            dst_cid: if shape & 2 == 0 { 2 } else { script.number() },
            src_port: if shape & 4 == 0 { 5555 } else { u32::from(script.u16()) },
            dst_port: FIRST_PORT.wrapping_add(u32::from(script.u8() % 16)),
            len: if shape & 8 == 0 {
                u32::try_from(payload.len()).unwrap_or_default()
            } else {
                script.word()
            },
            kind: if shape & 16 == 0 { 1 } else { script.u16() },
            op: u16::from(script.u8() % 9),
            flags: u32::from(script.u8() & 3),
            buf_alloc: script.word(),
            fwd_cnt: script.word(),
        };
        let _ = self.memory.write(&header.encode(), GuestAddress(BUFFERS));
        let _ = self.memory.write(&payload, GuestAddress(BUFFERS + 44));
        let len = 44 + payload.len() as u64;
        if shape & 32 == 0 {
            self.descriptor(1, 0, BUFFERS, len, 0, 0);
        } else {
            // Cut in two, within the header.
            self.descriptor(1, 0, BUFFERS, 20, 1, 1);
            self.descriptor(1, 1, BUFFERS + 20, len - 20, 0, 0);
        }
        self.publish(1, 0);
    }

    fn connect(&mut self, script: &mut Script<'_>) {
        let Ok((ours, mut theirs)) = UnixStream::pair() else { return };
        if self.clients.len() == MOST_CLIENTS || theirs.set_nonblocking(true).is_err() {
            return;
        }
        self.switch.accept(ours);
        let line = script.bytes(64);
        let _ = theirs.write_all(if line.is_empty() { b"CONNECT 5555\n" } else { &line });
        self.clients.push(theirs);
        self.events();
    }

    fn client(&mut self, script: &mut Script<'_>) -> Option<&mut UnixStream> {
        let at = usize::from(script.u8()).checked_rem(self.clients.len())?;
        self.clients.get_mut(at)
    }

    fn hang_up(&mut self, script: &mut Script<'_>) {
        let how = script.u8() % 4;
        let at = usize::from(script.u8());
        match (how, at.checked_rem(self.clients.len())) {
            (_, None) => {}
            (0, Some(at)) => drop(self.clients.swap_remove(at)),
            (how, Some(at)) => {
                let how = [Shutdown::Read, Shutdown::Write, Shutdown::Both][usize::from(how) - 1];
                let _ = self.clients[at].shutdown(how);
            }
        }
    }

    fn read(&mut self, script: &mut Script<'_>) {
        let mut bytes = [0; 4096];
        if let Some(client) = self.client(script)
            && let Ok(count) = client.read(&mut bytes)
        {
            self.seen.to_clients += count;
        }
        self.events();
    }

    fn offer(&mut self, script: &mut Script<'_>) {
        let (count, len) = (u16::from(script.u8()) % SIZE, script.number());
        for _ in 0..count {
            let index = self.offered[0] % SIZE;
            self.descriptor(0, index, BUFFERS + 0x1000 + 0x400 * u64::from(index), len, 2, 0);
            self.publish(0, index);
        }
    }

    fn events(&mut self) {
        let mut events = [EpollEvent::default(); 16];
        let Ok(count) = self.epoll.wait(0, &mut events) else { return };
        for event in &events[..count] {
            if let Some(port) =
                event.data().checked_sub(CLIENT_TOKEN).and_then(|port| u32::try_from(port).ok())
            {
                self.switch.on_event(port, event.event_set(), true);
            }
        }
        self.run();
    }

    /// What the event loop does: broken rings are not touched until the driver starts anew.
    fn run(&mut self) {
        let [receive, transmit] = &mut self.rings;
        if !(receive.usable() && transmit.usable()) {
            return;
        }
        let before = receive.queue.next_used();
        for _ in 0..4 {
            match self.switch.run(&self.memory, receive, transmit) {
                Ok(true) => {}
                Ok(false) => break,
                Err(Broken { .. }) => {
                    self.seen.broken += 1;
                    (receive.broken, transmit.broken) = (true, true);
                    self.switch.clear();
                    break;
                }
            }
        }
        self.seen.received += u32::from(receive.queue.next_used() != before);
    }

    fn restart(&mut self) {
        let (Some(receive), Some(transmit)) = (new_ring(RINGS[0]), new_ring(RINGS[1])) else { return };
        self.rings = [receive, transmit];
        self.offered = [0; 2];
        for ring in RINGS {
            let _ = self.memory.write(&[0; 0x1000], GuestAddress(ring));
        }
        self.switch.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_can_open_a_connection_and_pass_bytes() {
        let mut script = vec![4, 0, 8, 8, 0x8b, 0];
        // RESPONSE, then data "hello".
        script.extend([3, 0, 0, 0, 2, 0, 0x90, 0, 0]);
        script.extend([3, 5, b'h', b'e', b'l', b'l', b'o', 0, 0, 5, 0, 0x90, 0, 0]);
        script.extend([7, 0]);
        let seen = play(&script);
        assert_eq!((seen.to_clients, seen.broken), ("OK 1073741824\nhello".len(), 0), "{seen:?}");
        assert!(seen.received >= 1);
        assert_eq!(first_line(b"CONNECT 5\n"), Some(5));
    }

    #[test]
    fn scribbled_rings_are_given_up() {
        // The available index jumps beyond the ring.
        let seen = play(&[0, 2, 0x14, 0xff, 0x7f, 9]);
        assert_eq!(seen.broken, 1, "{seen:?}");
    }
}
