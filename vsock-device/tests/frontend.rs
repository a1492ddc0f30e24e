//! The device against a QEMU that was taken over, and a guest that writes anything into its rings: whatever they do, the thread
//! ends in an orderly way, and soon once it is told to.
#![allow(clippy::cast_possible_truncation, reason = "test data")]
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is missing")]

use std::{
    fs::File,
    io::{IoSlice, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::FileExt, net::UnixStream},
    },
    path::Path,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};
use vsock_device::{Device, End};

/// The guest's memory, which begins at address 0 there and at [`QEMU`] in QEMU.
const MEMORY: u64 = 1 << 20;
const QEMU: u64 = 0x7000_0000_0000;
/// Rings begin at multiples of this: descriptors, what is available, what was used.
const RING: u64 = 0x1_0000;
/// Time the device has to end.
const SOON: Duration = Duration::from_secs(10);

// Requests (QEMU's docs/interop/vhost-user).
const SET_FEATURES: u32 = 2;
const SET_OWNER: u32 = 3;
const SET_MEM_TABLE: u32 = 5;
const SET_VRING_NUM: u32 = 8;
const SET_VRING_ADDR: u32 = 9;
const SET_VRING_BASE: u32 = 10;
const SET_VRING_KICK: u32 = 12;
const SET_VRING_CALL: u32 = 13;
const SET_PROTOCOL_FEATURES: u32 = 16;
const SET_VRING_ENABLE: u32 = 18;

/// What is sent along.
#[derive(Debug, Clone, Copy)]
enum Attached {
    Event,
    Memory,
    /// Memory whose size is not sealed.
    Shrinkable,
    /// One end of a pair whose other end nobody reads.
    Stuck,
    Folder,
}

#[derive(Debug, Clone)]
enum Step {
    /// Any message.
    Message { request: u32, flags: u32, body: Vec<u8>, attached: Vec<Attached> },
    /// A message of the right form about a ring.
    Ring { request: u32, index: u32, value: u32 },
    /// Rings somewhere.
    Address { index: u32, at: [u64; 3] },
    /// Memory from somewhere to somewhere.
    Map { guest: u64, size: u64, qemu: u64, offset: u64, attached: Attached },
    /// An event descriptor, or something else.
    Event { request: u32, index: u64, attached: Attached },
    /// The guest writes into its memory.
    Write { at: u64, bytes: Vec<u8> },
    /// The guest offers chains: so many in a ring.
    Offer { ring: u64, many: u16 },
    /// A host program connects.
    Client,
}

/// A QEMU with its guest.
struct Frontend {
    stream: UnixStream,
    memory: OwnedFd,
    kicks: Vec<OwnedFd>,
    clients: Vec<UnixStream>,
    /// Both ends of pairs, so that nothing ever closes.
    kept: Vec<UnixStream>,
}

fn memory(sealed: bool) -> OwnedFd {
    let memory = memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&memory, MEMORY).unwrap();
    if sealed {
        fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).unwrap();
    }
    memory
}

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK).unwrap()
}

fn words(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

impl Frontend {
    fn new(stream: UnixStream) -> Self {
        // A device that ended or is busy must not hold up the test.
        stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        let kicks = (0..2).map(|_| event()).collect();
        Self { stream, memory: memory(true), kicks, clients: Vec::new(), kept: Vec::new() }
    }

    fn send(&mut self, request: u32, flags: u32, body: &[u8], attached: &[Attached]) {
        let mut files: Vec<OwnedFd> = Vec::new();
        for what in attached {
            files.push(match what {
                Attached::Event => event(),
                Attached::Memory => self.memory.try_clone().unwrap(),
                Attached::Shrinkable => memory(false),
                Attached::Folder => File::open("/").unwrap().into(),
                Attached::Stuck => {
                    let (ours, theirs) = UnixStream::pair().unwrap();
                    ours.set_nonblocking(true).unwrap();
                    while (&ours).write(&[0; 4096]).is_ok() {}
                    ours.set_nonblocking(false).unwrap();
                    self.kept.push(theirs);
                    ours.into()
                }
            });
        }
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
        }
        let size = u32::try_from(body.len()).unwrap();
        let header: Vec<u8> = [request, flags, size].iter().flat_map(|field| field.to_ne_bytes()).collect();
        let slices = [IoSlice::new(&header), IoSlice::new(body)];
        // The device may have had enough.
        let _ = sendmsg(&self.stream, &slices, &mut ancillary, SendFlags::NOSIGNAL);
    }

    fn map(&mut self, guest: u64, size: u64, qemu: u64, offset: u64, attached: Attached) {
        self.send(SET_MEM_TABLE, 1, &words(&[1, guest, size, qemu, offset]), &[attached]);
    }

    fn ring(&mut self, request: u32, index: u32, value: u32) {
        let body: Vec<u8> = [index, value].iter().flat_map(|field| field.to_ne_bytes()).collect();
        self.send(request, 1, &body, &[]);
    }

    fn address(&mut self, index: u32, [descriptors, used, available]: [u64; 3]) {
        // Index and flags are 32 bits each.
        self.send(SET_VRING_ADDR, 1, &words(&[u64::from(index), descriptors, used, available, 0]), &[]);
    }

    /// As QEMU sets it up for a driver.
    fn set_up(&mut self) {
        self.send(SET_OWNER, 1, &[], &[]);
        self.send(SET_FEATURES, 1, &words(&[1 << 32 | 1 << 30 | 1 << 29]), &[]);
        self.send(SET_PROTOCOL_FEATURES, 1, &words(&[1 | 1 << 9]), &[]);
        self.map(0, MEMORY, QEMU, 0, Attached::Memory);
        for index in 0..2 {
            let at = QEMU + RING * u64::from(index);
            self.ring(SET_VRING_NUM, index, 128);
            self.ring(SET_VRING_BASE, index, 0);
            self.address(index, [at, at + 0x8000, at + 0x4000]);
            self.ring(SET_VRING_ENABLE, index, 1);
            self.event(SET_VRING_CALL, u64::from(index), Attached::Event);
            let kick = self.kicks[index as usize].try_clone().unwrap();
            self.send_with(SET_VRING_KICK, &words(&[u64::from(index)]), &kick);
        }
    }

    /// Chains that lead somewhere: each descriptor of a ring at a packet, each entry at its descriptor.
    fn chains(&self) {
        for ring in 0..2 {
            for n in 0..128_u16 {
                let at = 0x4_0000 + 64 * u64::from(n % 32);
                let flags = [if ring == 0 { 2 } else { 0 }, 0, 0, 0];
                let descriptor = [&at.to_ne_bytes()[..], &64_u32.to_ne_bytes(), &flags].concat();
                self.write(RING * ring + 16 * u64::from(n), &descriptor);
                self.write(RING * ring + 0x4004 + 2 * u64::from(n), &n.to_ne_bytes());
            }
        }
    }

    /// How many chains the device has given back.
    fn used(&self, ring: u64) -> u16 {
        let mut used = [0; 2];
        let file = File::from(self.memory.try_clone().unwrap());
        file.read_exact_at(&mut used, RING * ring + 0x8002).unwrap();
        u16::from_ne_bytes(used)
    }

    fn send_with(&mut self, request: u32, body: &[u8], file: &OwnedFd) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let files = [file.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
        let header: Vec<u8> = [request, 1, u32::try_from(body.len()).unwrap()]
            .iter()
            .flat_map(|field| field.to_ne_bytes())
            .collect();
        let _ = sendmsg(
            &self.stream,
            &[IoSlice::new(&header), IoSlice::new(body)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        );
    }

    fn event(&mut self, request: u32, index: u64, attached: Attached) {
        self.send(request, 1, &words(&[index]), &[attached]);
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        let file = File::from(self.memory.try_clone().unwrap());
        let room = usize::try_from(MEMORY.saturating_sub(at)).unwrap();
        file.write_all_at(&bytes[..bytes.len().min(room)], at.min(MEMORY)).unwrap();
    }

    fn take(&mut self, step: &Step, hybrid: &Path) {
        match step {
            Step::Message { request, flags, body, attached } => self.send(*request, *flags, body, attached),
            Step::Ring { request, index, value } => self.ring(*request, *index, *value),
            Step::Address { index, at } => self.address(*index, *at),
            Step::Map { guest, size, qemu, offset, attached } => {
                self.map(*guest, *size, *qemu, *offset, *attached);
            }
            Step::Event { request, index, attached } => self.event(*request, *index, *attached),
            Step::Write { at, bytes } => self.write(*at, bytes),
            Step::Offer { ring, many } => {
                let index = RING * ring + 0x4002;
                let mut present = [0; 2];
                let file = File::from(self.memory.try_clone().unwrap());
                file.read_exact_at(&mut present, index).unwrap();
                self.write(index, &u16::from_ne_bytes(present).wrapping_add(*many).to_ne_bytes());
                let _ = rustix::io::write(&self.kicks[*ring as usize], &1_u64.to_ne_bytes());
            }
            Step::Client => {
                if let Ok(mut client) = UnixStream::connect(hybrid) {
                    let _ = client.write_all(b"CONNECT 5555\nhello");
                    self.clients.push(client);
                }
            }
        }
    }
}

fn attached() -> impl Strategy<Value = Attached> {
    prop_oneof![
        4 => Just(Attached::Event),
        4 => Just(Attached::Memory),
        1 => Just(Attached::Shrinkable),
        1 => Just(Attached::Stuck),
        1 => Just(Attached::Folder),
    ]
}

/// Addresses near what there is, and anywhere.
fn address(base: u64) -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0..MEMORY).prop_map(move |at| base + at),
        1 => (0..64_u64).prop_map(move |back| base.wrapping_add(MEMORY).wrapping_sub(back)),
        1 => any::<u64>(),
        1 => (0..64_u64).prop_map(|back| u64::MAX - back),
    ]
}

/// A descriptor: mostly one that could be.
fn descriptor() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![Just(44), 0..200_u32, any::<u32>()];
    let flags = prop_oneof![0..8_u16, any::<u16>()];
    (address(0), len, flags, 0..140_u16).prop_map(|(at, len, flags, next)| {
        [&at.to_ne_bytes()[..], &len.to_ne_bytes(), &flags.to_ne_bytes(), &next.to_ne_bytes()].concat()
    })
}

/// A packet's header: mostly one of a connection that could be.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let port = prop_oneof![3 => (0..4_u32).prop_map(|n| (1 << 30) + n), 1 => any::<u32>()];
    let numbers = (any::<u32>(), any::<u32>(), any::<u32>());
    (port, prop_oneof![0..200_u32, any::<u32>()], 0..9_u16, 0..5_u32, numbers).prop_map(
        |(port, len, op, flags, (room, taken, _))| {
            let mut bytes = words(&[3, 2]);
            for field in [5555, port, len, u32::from(op) << 16 | 1, flags, room, taken] {
                bytes.extend(field.to_le_bytes());
            }
            bytes
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..200);
    let ring = prop_oneof![Just(SET_VRING_NUM), Just(SET_VRING_BASE), Just(11_u32), Just(SET_VRING_ENABLE)];
    let message = (0..48_u32, prop_oneof![4 => Just(1_u32), 1 => 0..16_u32], bytes()).prop_flat_map(
        |(request, flags, body)| {
            let attached = prop::collection::vec(attached(), 0..4);
            attached.prop_map(move |attached| Step::Message { request, flags, body: body.clone(), attached })
        },
    );
    prop_oneof![
        2 => message,
        2 => (ring, 0..4_u32, prop_oneof![0..300_u32, any::<u32>()])
            .prop_map(|(request, index, value)| Step::Ring { request, index, value }),
        1 => (0..4_u32, [address(QEMU), address(QEMU), address(QEMU)])
            .prop_map(|(index, at)| Step::Address { index, at }),
        1 => (address(0), prop_oneof![Just(MEMORY), any::<u64>(), 0..1_u64 << 22], address(QEMU), 0..1_u64 << 21, attached())
            .prop_map(|(guest, size, qemu, offset, attached)| Step::Map { guest, size, qemu, offset: offset & !0xfff, attached }),
        1 => (12..15_u32, prop_oneof![0..4_u64, any::<u64>()], attached())
            .prop_map(|(request, index, attached)| Step::Event { request, index, attached }),
        4 => (0..2_u64, 0..128_u64, descriptor())
            .prop_map(|(ring, n, bytes)| Step::Write { at: RING * ring + 16 * n, bytes }),
        4 => (0..32_u64, packet()).prop_map(|(n, bytes)| Step::Write { at: 0x4_0000 + 64 * n, bytes }),
        1 => (0..MEMORY, bytes()).prop_map(|(at, bytes)| Step::Write { at, bytes }),
        6 => (0..2_u64, prop_oneof![4 => 1..8_u16, 1 => any::<u16>()]).prop_map(|(ring, many)| Step::Offer { ring, many }),
        2 => Just(Step::Client),
    ]
}

fn play(steps: &[Step]) -> End {
    let folder = tempfile::tempdir().unwrap();
    let hybrid = folder.path().join("v");
    let (ours, theirs) = UnixStream::pair().unwrap();
    let device = Device::attach(3, &hybrid, ours).unwrap();
    let mut answers = theirs.try_clone().unwrap();
    let reader = std::thread::spawn(move || while answers.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {});
    let mut frontend = Frontend::new(theirs);
    frontend.set_up();
    frontend.chains();
    for step in steps {
        frontend.take(step, &hybrid);
    }
    let end = stop_soon(device);
    drop(frontend);
    reader.join().unwrap();
    end
}

/// Ends a device, which must not take long.
fn stop_soon(device: Device) -> End {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(device.stop()));
    told.recv_timeout(SOON).unwrap_or_else(|_| panic!("it has not ended {SOON:?} after it was told to"))
}

proptest! {
    /// SPEC P6
    #[test]
    fn nothing_ends_it_but_in_an_orderly_way(steps in prop::collection::vec(step(), 0..60)) {
        match play(&steps) {
            End::Failed(why) => prop_assert!(!why.contains("died"), "{}", why),
            End::Disconnected | End::Stopped => {}
        }
    }
}

/// SPEC P6
#[test]
fn memory_that_could_shrink_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let _device = Device::attach(3, &folder.path().join("v"), ours).unwrap();
    let mut frontend = Frontend::new(theirs.try_clone().unwrap());
    theirs.set_read_timeout(Some(SOON)).unwrap();
    frontend.send(SET_FEATURES, 1, &words(&[1 << 32 | 1 << 30]), &[]);
    // GET_FEATURES and GET_PROTOCOL_FEATURES.
    for request in [1, 15] {
        frontend.send(request, 1, &[], &[]);
        theirs.read_exact(&mut [0; 20]).unwrap();
    }
    // REPLY_ACK: each answer says whether the message was taken.
    frontend.send(SET_PROTOCOL_FEATURES, 1, &words(&[1 << 3]), &[]);
    for (attached, size, taken) in [
        (Attached::Memory, MEMORY, true),
        (Attached::Shrinkable, MEMORY, false),
        (Attached::Memory, 2 * MEMORY, false),
        (Attached::Folder, MEMORY, false),
    ] {
        frontend.send(SET_MEM_TABLE, 1 | 1 << 3, &words(&[1, 0, size, QEMU, 0]), &[attached]);
        let mut answer = [0; 20];
        theirs.read_exact(&mut answer).unwrap();
        assert_eq!(answer[12..] == [0; 8], taken, "{attached:?} of {size} bytes");
    }
}

/// SPEC P6
#[test]
fn a_descriptor_that_blocks_its_writer_does_not_keep_it_from_being_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let hybrid = folder.path().join("v");
    let (ours, theirs) = UnixStream::pair().unwrap();
    let device = Device::attach(3, &hybrid, ours).unwrap();
    let mut frontend = Frontend::new(theirs);
    frontend.set_up();
    frontend.chains();
    frontend.event(SET_VRING_CALL, 1, Attached::Stuck);
    let deadline = Instant::now() + SOON;
    for round in 1..=2 {
        frontend.take(&Step::Offer { ring: 1, many: 8 }, &hybrid);
        while frontend.used(1) < 8 * round {
            assert!(Instant::now() < deadline, "it does not take what the guest offers");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(stop_soon(device), End::Stopped);
}

/// SPEC P6
#[test]
fn a_message_without_end_does_not_keep_it_from_being_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let device = Device::attach(3, &folder.path().join("v"), ours).unwrap();
    theirs.write_all(&[1, 0, 0]).unwrap();
    // It is in the middle of reading it by now, or soon: either way it ends at once.
    std::thread::sleep(Duration::from_millis(50));
    let asked = Instant::now();
    stop_soon(device);
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}
