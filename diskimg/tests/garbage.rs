//! Layers are untrusted: whatever their bytes, writing a disk ends with an image or an error.

#![allow(clippy::cast_possible_truncation, reason = "test data")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers")]

mod common;

use common::archive::Archive;
use diskimg::{LayerDisk, Limits, Options};
use tar::EntryType;

/// xorshift64*: repeatable, and good enough to shake bits.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

fn feed(layers: &[&[u8]], bottom: bool) -> bool {
    let limits = Limits { max_bytes: 4 << 20, max_inodes: 500, ..Limits::default() };
    // In memory where there is such a place: thousands of images are flushed.
    let file = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile()).unwrap();
    let mut disk = LayerDisk::create(file.try_clone().unwrap(), Options { limits, bottom }).unwrap();
    if layers.iter().any(|layer| disk.apply(*layer).is_err()) {
        return false;
    }
    let Ok(summary) = disk.finish() else { return false };
    // What was accepted must be readable.
    let mut bytes = vec![0; summary.bytes as usize];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
    common::image::Image::new(bytes).tree().len() > 1
}

fn seed() -> Vec<u8> {
    Archive::new()
        .dir("d/", 0o755)
        .pax("mtime", b"1.5")
        .pax("SCHILY.xattr.user.a", b"1\n2")
        .file("d/file", &[7; 5000])
        .file(".wh.gone", b"")
        .file("d/.wh..wh..opq", b"")
        .symlink("d/link", "../d/file")
        .symlink("up", "d")
        .file("up/x", b"small")
        .hardlink("hard", "d/file")
        .file(&"long".repeat(40), b"x")
        .raw(EntryType::GNUSparse, b"gnu", &[1; 100], |h| {
            let gnu = h.as_gnu_mut().unwrap();
            gnu.set_real_size(9000);
            gnu.sparse[0].set_offset(5000);
            gnu.sparse[0].set_length(100);
        })
        .pax("GNU.sparse.size", b"9000")
        .pax("GNU.sparse.map", b"10,5")
        .file("sparse", b"12345")
        .raw(EntryType::Char, b"dev", b"", |h| h.set_device_major(1).unwrap())
        .done()
}

#[test]
fn random_bytes_never_panic() {
    let mut random = Random(1);
    for _ in 0..2000 {
        let bytes: Vec<u8> = (0..random.below(4000)).map(|_| random.next() as u8).collect();
        feed(&[&bytes], true);
    }
}

/// Changes bytes and makes the header checksums right again, so that the change is looked at.
fn mutate(random: &mut Random, layer: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let at = random.below(layer.len());
        match random.below(5) {
            0 => layer[at] = random.next() as u8,
            1 => layer[at] = *b"/.0123456789 =\n\0\xff".get(random.below(17)).unwrap(),
            2 => layer[at / 512 * 512 + 156] = *b"01234567xgLKS\0Z".get(random.below(15)).unwrap(),
            // Sizes and numbers.
            3 => {
                let value = *b"01777\x80\xff\0".get(random.below(8)).unwrap();
                layer[at / 512 * 512 + 100 + random.below(56)] = value;
            }
            _ => {
                let (from, to) = (at / 512 * 512, random.below(layer.len()) / 512 * 512);
                let block: Vec<u8> = layer[from..from + 512].to_vec();
                layer.splice(to..to, block);
            }
        }
    }
    if random.below(10) == 0 {
        layer.truncate(random.below(layer.len()).max(1));
    }
    for block in layer.chunks_exact_mut(512) {
        if block[257..262] == *b"ustar" {
            let mut header = tar::Header::from_byte_slice(block).clone();
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
}

#[test]
fn mutated_layers_never_panic_and_what_is_accepted_reads_back() {
    let mut random = Random(2);
    let seed = seed();
    assert!(feed(&[&seed, &seed], true), "the seed itself is good");
    let mut good = 0;
    for round in 0..4000 {
        let mut layer = seed.clone();
        mutate(&mut random, &mut layer);
        good += usize::from(feed(&[&seed, &layer], round % 2 == 0));
    }
    assert!(
        (400..3900).contains(&good),
        "{good} of 4000 accepted: mutations should be neither mild nor wild"
    );
}
