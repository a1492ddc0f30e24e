//! The switch against a scripted guest with rings in memory, and real sockets.

use std::io::{Read, Write};

use proptest::prelude::*;
use virtio_queue::QueueT;
use vm_memory::GuestAddress;

use super::*;
use crate::{
    credit::BUFFER,
    packet::{SHUTDOWN_RECEIVE, SHUTDOWN_SEND},
};

const SIZE: u16 = 16;
const CLIENTS: u64 = 1 << 32;
const PORT: u32 = 1 << 30;
const RX: u64 = 0x1000;
const TX: u64 = 0x2000;
const RX_BUFFERS: u64 = 0x1_0000;
const TX_BUFFER: u64 = 0x10_0000;
const RX_BUFFER_LEN: u64 = 0x1000;

/// A driver as simple as can be: every chain is one descriptor.
struct Guest {
    memory: GuestMemoryMmap,
    rx: Ring,
    tx: Ring,
    rx_offered: u16,
    rx_seen: u16,
    tx_offered: u16,
    switch: Switch,
}

fn ring(base: u64) -> Ring {
    let mut ring = Ring::new(SIZE).unwrap();
    ring.queue.try_set_desc_table_address(GuestAddress(base)).unwrap();
    ring.queue.try_set_avail_ring_address(GuestAddress(base + 0x400)).unwrap();
    ring.queue.try_set_used_ring_address(GuestAddress(base + 0x800)).unwrap();
    ring.queue.set_event_idx(true);
    ring.queue.set_ready(true);
    ring
}

impl Guest {
    fn new(rx_buffers: u16) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap();
        let switch = Switch::new(3, Arc::new(Epoll::new().unwrap()), CLIENTS);
        let (rx, tx) = (ring(RX), ring(TX));
        let mut guest = Self { memory, rx, tx, rx_offered: 0, rx_seen: 0, tx_offered: 0, switch };
        guest.offer(rx_buffers);
        guest
    }

    fn write<T: vm_memory::ByteValued>(&self, value: T, at: u64) {
        self.memory.write_obj(value, GuestAddress(at)).unwrap();
    }

    fn read_u16(&self, at: u64) -> u16 {
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }

    fn descriptor(&self, base: u64, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let at = base + 16 * u64::from(index);
        self.write(address, at);
        self.write(len, at + 8);
        self.write(flags, at + 12);
        self.write(next, at + 14);
    }

    fn publish(&self, base: u64, offered: u16, head: u16) -> u16 {
        self.write(head, base + 0x404 + 2 * u64::from(offered % SIZE));
        self.write(offered.wrapping_add(1), base + 0x402);
        offered.wrapping_add(1)
    }

    fn offer(&mut self, buffers: u16) {
        for _ in 0..buffers {
            let index = self.rx_offered % SIZE;
            let address = RX_BUFFERS + RX_BUFFER_LEN * u64::from(index);
            self.descriptor(RX, index, address, u32::try_from(RX_BUFFER_LEN).unwrap(), 2, 0);
            self.rx_offered = self.publish(RX, self.rx_offered, index);
        }
    }

    fn run(&mut self) {
        while self.switch.run(&self.memory, &mut self.rx, &mut self.tx).unwrap() {}
    }

    /// Sends a packet and lets the device work.
    fn send(&mut self, header: &Header, payload: &[u8]) {
        self.memory.write(&header.encode(), GuestAddress(TX_BUFFER)).unwrap();
        self.memory.write(payload, GuestAddress(TX_BUFFER + 44)).unwrap();
        let len = u32::try_from(HEADER_LEN + payload.len()).unwrap();
        self.descriptor(TX, 0, TX_BUFFER, len, 0, 0);
        self.tx_offered = self.publish(TX, self.tx_offered, 0);
        self.run();
        assert_eq!(self.read_u16(TX + 0x802), self.tx_offered, "every packet is given back");
    }

    /// What has come since the last call; the buffers are offered again.
    fn received(&mut self) -> Vec<(Header, Vec<u8>)> {
        let used = self.read_u16(RX + 0x802);
        let mut packets = Vec::new();
        while self.rx_seen != used {
            let entry = RX + 0x804 + 8 * u64::from(self.rx_seen % SIZE);
            let head: u32 = self.memory.read_obj(GuestAddress(entry)).unwrap();
            let len: u32 = self.memory.read_obj(GuestAddress(entry + 4)).unwrap();
            let mut bytes = vec![0; len as usize];
            let at = RX_BUFFERS + RX_BUFFER_LEN * u64::from(head);
            self.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
            let payload = bytes.split_off(HEADER_LEN);
            packets.push((Header::decode(&bytes.try_into().unwrap()), payload));
            self.rx_seen = self.rx_seen.wrapping_add(1);
            self.offer(1);
        }
        packets
    }

    fn ops(&mut self) -> Vec<Op> {
        self.received().into_iter().map(|(header, _)| header.op().unwrap()).collect()
    }

    /// Handles what has happened to the clients' sockets.
    fn events(&mut self) {
        let mut events = [EpollEvent::default(); 64];
        let count = self.switch.epoll.clone().wait(0, &mut events).unwrap();
        for event in &events[..count] {
            let port = u32::try_from(event.data() - CLIENTS).unwrap();
            self.switch.on_event(port, event.event_set(), true);
        }
        self.run();
    }

    fn client(&mut self) -> UnixStream {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        self.switch.accept(ours);
        theirs.write_all(b"CONNECT 5555\n").unwrap();
        self.events();
        theirs
    }

    /// A client whose connection the guest has accepted.
    fn connected(&mut self) -> UnixStream {
        let mut client = self.client();
        assert_eq!(self.ops(), [Op::Request]);
        self.send(&packet(Op::Response), &[]);
        let mut line = [0; 14];
        client.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"OK 1073741824\n");
        client
    }

    fn clients(&mut self) -> usize {
        usize::from(self.switch.table.get(PORT).is_some())
    }
}

fn packet(op: Op) -> Header {
    let header = Header::to_guest(2, 5555, PORT, op);
    Header { src_cid: 3, buf_alloc: 100_000, ..header }
}

fn data(payload: &[u8]) -> Header {
    Header { len: u32::try_from(payload.len()).unwrap(), ..packet(Op::Data) }
}

fn shutdown(flags: u32) -> Header {
    Header { flags, ..packet(Op::Shutdown) }
}

#[test]
fn bytes_pass_both_ways() {
    let mut guest = Guest::new(8);
    let mut client = guest.connected();
    client.write_all(&[7; 10_000]).unwrap();
    guest.events();
    let packets = guest.received();
    assert_eq!(packets.iter().map(|(_, payload)| payload.len()).collect::<Vec<_>>(), [4052, 4052, 1896]);
    assert!(
        packets
            .iter()
            .all(|(header, payload)| payload.len() == header.len as usize && payload.iter().all(|b| *b == 7))
    );
    guest.send(&data(b"answer"), b"answer");
    let mut answer = [0; 6];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
}

#[test]
fn a_client_that_gives_up_before_the_answer_costs_a_reset_and_no_more() {
    let mut guest = Guest::new(8);
    drop(guest.client());
    assert_eq!(guest.ops(), [Op::Request]);
    guest.events();
    assert_eq!((guest.ops(), guest.clients()), (vec![Op::Reset], 0));
    guest.send(&packet(Op::Response), &[]);
    assert_eq!(guest.ops(), [Op::Reset], "the answer came too late");
    // The next one is served.
    drop(guest.client());
    assert_eq!(guest.ops(), [Op::Request]);
}

#[test]
fn a_client_that_gives_up_before_the_guest_has_room_leaves_no_trace() {
    let mut guest = Guest::new(0);
    drop(guest.client());
    guest.events();
    assert_eq!((guest.clients(), guest.switch.ready.len()), (0, 0));
    guest.offer(4);
    guest.run();
    assert_eq!(guest.ops(), []);
}

#[test]
fn a_guest_that_never_answers_is_given_up() {
    let mut guest = Guest::new(8);
    let mut client = guest.client();
    guest.switch.sweep(Instant::now() + crate::table::PATIENCE);
    guest.run();
    assert_eq!(guest.ops(), [Op::Request, Op::Reset]);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_guest_whose_driver_lost_the_request_is_asked_again() {
    let mut guest = Guest::new(8);
    let mut client = guest.client();
    let start = Instant::now();
    for after in [50, 150, 250, 290] {
        guest.switch.sweep(start + std::time::Duration::from_millis(after));
        guest.run();
    }
    assert_eq!(guest.ops(), [Op::Request, Op::Request, Op::Request]);
    guest.send(&packet(Op::Response), &[]);
    let mut line = [0; 14];
    client.read_exact(&mut line).unwrap();
    guest.switch.sweep(start + crate::table::PATIENCE * 2);
    guest.run();
    assert_eq!((guest.ops(), guest.clients()), (vec![], 1));
}

#[test]
fn a_refusal_is_an_end_without_a_line() {
    let mut guest = Guest::new(8);
    let mut client = guest.client();
    guest.send(&packet(Op::Reset), &[]);
    assert_eq!(guest.ops(), [Op::Request]);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn nobody_gets_to_the_guest_without_its_driver() {
    let mut guest = Guest::new(8);
    let (ours, mut client) = UnixStream::pair().unwrap();
    guest.switch.accept(ours);
    client.write_all(b"CONNECT 5555\n").unwrap();
    guest.switch.on_event(PORT, EventSet::IN, false);
    guest.run();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(guest.ops(), []);
}

#[test]
fn a_guest_cannot_open_a_connection() {
    let mut guest = Guest::new(8);
    guest.send(&Header { dst_port: 80, ..packet(Op::Request) }, &[]);
    let packets = guest.received();
    let want = Header { len: 0, ..Header::to_guest(3, 80, 5555, Op::Reset) };
    assert_eq!(packets, [(want, Vec::new())]);
}

#[test]
fn strangers_and_resets_for_nobody_are_not_answered() {
    let mut guest = Guest::new(8);
    guest.send(&Header { src_cid: 4, ..packet(Op::Request) }, &[]);
    guest.send(&Header { dst_cid: 5, ..packet(Op::Request) }, &[]);
    guest.send(&packet(Op::Reset), &[]);
    assert_eq!(guest.ops(), []);
}

#[test]
fn a_payload_shorter_than_its_header_says_ends_the_connection() {
    let mut guest = Guest::new(8);
    let mut client = guest.connected();
    guest.send(&Header { len: 7, ..packet(Op::Data) }, b"six by");
    assert_eq!(guest.ops(), [Op::Reset]);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn half_closes_pass_and_the_full_close_is_answered_when_all_is_delivered() {
    let mut guest = Guest::new(8);
    let mut client = guest.connected();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    guest.events();
    let packets = guest.received();
    assert_eq!(packets.len(), 1);
    assert_eq!((packets[0].0.op(), packets[0].0.flags), (Some(Op::Shutdown), SHUTDOWN_SEND));
    // More than the client's socket holds, so some stays here.
    let part = [9; 60_000];
    for _ in 0..4 {
        guest.send(&data(&part), &part);
    }
    guest.send(&shutdown(SHUTDOWN_SEND | SHUTDOWN_RECEIVE), &[]);
    guest.events();
    assert!(!guest.ops().contains(&Op::Reset), "not all is delivered");
    let mut got = vec![0; 240_000];
    for chunk in got.chunks_mut(10_000) {
        client.read_exact(chunk).unwrap();
        guest.events();
    }
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!((guest.ops(), guest.clients()), (vec![Op::Reset], 0));
}

#[test]
fn a_guest_that_overruns_its_credit_loses_the_connection() {
    let mut guest = Guest::new(8);
    let _client = guest.connected();
    let part = [9; 60_000];
    let limit = 20 * BUFFER as usize / part.len();
    let sent = (0..limit).take_while(|_| {
        guest.send(&data(&part), &part);
        guest.clients() == 1
    });
    let sent = sent.count() * part.len();
    assert!(sent >= BUFFER as usize, "the promised room was there");
    assert!(guest.ops().contains(&Op::Reset));
}

#[test]
fn a_slow_reader_in_one_connection_does_not_stop_another() {
    let mut guest = Guest::new(8);
    let mut first = guest.connected();
    first.write_all(&[1; 150_000]).unwrap();
    guest.events();
    while !guest.received().is_empty() {
        guest.run();
    }
    // The guest's 100,000 bytes are full; another client gets through.
    drop(guest.client());
    assert!(guest.ops().contains(&Op::Request));
}

#[test]
fn resets_are_bounded_when_the_guest_takes_none() {
    let mut guest = Guest::new(0);
    for _ in 0..MAX_RESETS + 100 {
        guest.send(&packet(Op::Request), &[]);
    }
    assert_eq!(guest.switch.resets.len(), MAX_RESETS);
}

#[test]
fn a_broken_ring_is_an_error() {
    let mut guest = Guest::new(8);
    guest.write(500_u16, TX + 0x402);
    assert!(guest.switch.run(&guest.memory, &mut guest.rx, &mut guest.tx).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn garbage_in_the_rings_is_survived(
        tables in prop::collection::vec((0..2_u64, 0..SIZE, any::<(u64, u32, u16, u16)>(), any::<bool>()), 0..40),
        heads in prop::collection::vec((0..2_u64, any::<u16>(), 0..64_u16), 0..20),
        packets in prop::collection::vec((any::<[u8; HEADER_LEN]>(), any::<bool>()), 0..10),
    ) {
        let mut guest = Guest::new(4);
        let mut client = guest.connected();
        let _ = client.write_all(b"some bytes for the guest");
        for (mut header, ours) in packets {
            if ours {
                // As if for the connection, with odd fields.
                let good = packet(Op::Data).encode();
                header[..24].copy_from_slice(&good[..24]);
                header[28..30].copy_from_slice(&good[28..30]);
                header[30] %= 9;
                header[31] = 0;
            }
            guest.send(&Header::decode(&header), b"payload");
        }
        for (which, index, (address, len, flags, next), near) in tables {
            let base = if which == 0 { RX } else { TX };
            let address = if near { address % (5 << 20) } else { address };
            guest.descriptor(base, index, address, len, flags, next % (2 * SIZE));
        }
        for (which, head, index) in heads {
            let base = if which == 0 { RX } else { TX };
            guest.write(head % (2 * SIZE), base + 0x404 + 2 * u64::from(index % SIZE));
            guest.write(index, base + 0x402);
            // An error means that the ring is not used again; the rest must hold anyway.
            for _ in 0..4 {
                let _ = guest.switch.run(&guest.memory, &mut guest.rx, &mut guest.tx);
            }
            guest.switch.on_event(PORT, EventSet::IN | EventSet::OUT, true);
        }
        prop_assert!(guest.switch.resets.len() <= MAX_RESETS);
    }
}

#[test]
fn shutdown_of_the_guests_reading_side_reaches_the_client() {
    let mut guest = Guest::new(8);
    let mut client = guest.connected();
    guest.send(&shutdown(SHUTDOWN_RECEIVE), &[]);
    assert_eq!(client.write(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    guest.send(&data(b"still"), b"still");
    let mut got = [0; 5];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"still");
}
