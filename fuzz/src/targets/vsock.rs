//! The vsock device against a guest: packets, credit, and rings full of garbage.

use vsock_device::fuzzing::{header, play};

use crate::Reach;

pub(super) fn target(data: &[u8]) -> Reach {
    if let Some(bytes) = data.first_chunk() {
        assert_eq!(&header(bytes), bytes, "a header does not survive being written");
    }
    let seen = play(data);
    Reach::of(seen.received > 0, seen.to_clients > 14)
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let response = [3, 0, 0, 0, 2, 0, 0x90, 0, 0];
    let hello = [3, 5, b'h', b'e', b'l', b'l', b'o', 0, 0, 5, 0, 0x90, 0, 0];
    let open = [&[4, 0, 8, 15, 0x8b, 0][..], &response].concat();
    let talk = [&open[..], &hello, &[7, 0, 5, 0, 3, b'a', b'b', b'c', 200, 9, 8, 4, 0x8b, 0, 9]].concat();
    let end = [&talk[..], &[3, 0, 0, 0, 4, 3, 0x90, 0, 0, 6, 0, 0, 9, 7, 0]].concat();
    let late = [&open[..], &[10, 0xff, 0xff, 11, 4, 0, 10, 0xff, 0x20]].concat();
    let two = [&open[..], &[4, 0, 9], &[3, 0, 0, 1, 2, 0, 0x90, 0, 0], &hello, &[6, 2, 0, 9, 7, 1]].concat();
    let garbage = vec![
        4, 0, 8, 2, 0x8b, 0, 0, 2, 0x14, 0xff, 0x7f, 9, 1, 1, 0, 0, 0xff, 0xff, 3, 0, 1, 0, 2, 1, 0, 0, 9,
        11, 9,
    ];
    vec![open, talk, end, late, two, garbage]
}
