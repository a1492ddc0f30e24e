//! Layer bombs: each ends with the limit it hits, within a bounded memory and time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers")]

use std::io::Read;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

use diskimg::{Bound, Error, LayerDisk, Limits, Options};
use tar::{EntryType, Header};

/// Makes entries for ever.
struct Endless<F> {
    make: F,
    count: u64,
    buf: Vec<u8>,
    at: usize,
}

impl<F: FnMut(u64, &mut Vec<u8>)> Endless<F> {
    fn new(make: F) -> Self {
        Self { make, count: 0, buf: Vec::new(), at: 0 }
    }
}

impl<F: FnMut(u64, &mut Vec<u8>)> Read for Endless<F> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.buf.len() {
            self.buf.clear();
            self.at = 0;
            (self.make)(self.count, &mut self.buf);
            self.count += 1;
        }
        let n = out.len().min(self.buf.len() - self.at);
        out[..n].copy_from_slice(&self.buf[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

fn header(out: &mut Vec<u8>, kind: EntryType, name: &str, link: &str, size: u64) {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
}

fn kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Applies a bomb; what it hit, and the memory it took at its worst in MiB.
fn explode(bomb: impl Read, limits: Limits) -> (Result<u64, Error>, u64) {
    // Resets VmHWM.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    // Before the first bomb: what malloc keeps from one to the next counts against it.
    static BEFORE: LazyLock<u64> = LazyLock::new(|| kib("VmRSS"));
    let before = *BEFORE;
    let start = Instant::now();
    let file = tempfile::tempfile().unwrap();
    let mut disk = LayerDisk::create(file, Options { limits, bottom: true }).unwrap();
    let outcome = disk.apply(bomb).and_then(|_| disk.finish()).map(|summary| summary.bytes);
    let peak = kib("VmHWM").saturating_sub(before) >> 10;
    eprintln!("{outcome:?}: {peak} MiB, {:.1?}", start.elapsed());
    (outcome, peak)
}

/// The memory of the process is measured: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn limit(bomb: impl Read, limits: Limits) -> (Bound, u64) {
    match explode(bomb, limits) {
        (Err(Error::Limit { what, .. }), peak) => (what, peak),
        (other, _) => panic!("{other:?}"),
    }
}

/// SPEC I8
#[test]
fn bombs_end_at_their_limit_in_bounded_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let limits = Limits::of(1 << 30, 40_000);
    // What the writer itself needs: buffers, tails of small files.
    let most = (limits.max_metadata_bytes >> 20) + 16;
    let check = |what, wanted, (bound, peak): (Bound, u64)| {
        assert_eq!(bound, wanted, "{what}");
        assert!(peak <= most, "{what}: {peak} MiB, at most {most} are stated");
    };
    let kind = EntryType::Regular;
    check(
        "files",
        Bound::Inodes,
        limit(Endless::new(|i, out| header(out, kind, &format!("d{}/{i}", i >> 9), "", 0)), limits),
    );
    check(
        "one directory",
        Bound::Inodes,
        limit(Endless::new(|i, out| header(out, kind, &format!("d/{i}"), "", 0)), limits),
    );
    check(
        "directories",
        Bound::Inodes,
        limit(
            Endless::new(|i, out| header(out, EntryType::Directory, &format!("d{}/{i}", i >> 9), "", 0)),
            limits,
        ),
    );
    let link = |i: u64, out: &mut Vec<u8>| match i {
        0 => header(out, kind, "f", "", 0),
        _ => header(out, EntryType::Link, &format!("d{}/{i}", i >> 9), "f", 0),
    };
    check("hard links", Bound::Metadata, limit(Endless::new(link), limits));
    let target = "t".repeat(90);
    let symlink = |i: u64, out: &mut Vec<u8>| header(out, EntryType::Symlink, &format!("{i}"), &target, 0);
    check("symlinks", Bound::Metadata, limit(Endless::new(symlink), limits));
    // As much as is allowed, written to the end.
    let full = |i: u64, out: &mut Vec<u8>| match i {
        0..39_990 => header(out, kind, &format!("d/{i}"), "", 0),
        39_990 => out.resize(512, 0),
        _ => {}
    };
    let (outcome, peak) = explode(Endless::new(full), limits);
    assert!(outcome.is_ok() && peak <= most, "{outcome:?}, {peak} MiB");
    let attributes = |i: u64, out: &mut Vec<u8>| {
        let record = |len: usize| {
            [format!("{len} SCHILY.xattr.user.a=").into_bytes(), vec![b'v'; len - 27], b"\n".to_vec()]
                .concat()
        };
        let pax = record(60_000);
        header(out, EntryType::XHeader, "pax", "", pax.len() as u64);
        out.extend_from_slice(&pax);
        out.resize(out.len().next_multiple_of(512), 0);
        header(out, kind, &format!("{i}"), "", 0);
    };
    check("attributes", Bound::Metadata, limit(Endless::new(attributes), limits));
    let small = |i: u64, out: &mut Vec<u8>| {
        header(out, kind, &format!("{i}"), "", 4000);
        out.resize(out.len() + 4096, b'x');
    };
    let disk = Limits { max_bytes: 90 << 20, ..limits };
    let (bound, peak) = limit(Endless::new(small), disk);
    assert_eq!(bound, Bound::Bytes, "small files");
    assert!(peak <= most + 64, "small files: {peak} MiB");
}

/// SPEC I8
#[test]
fn what_leaves_no_file_behind_is_bounded_too() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let limits = Limits::of(32 << 20, 1000);
    let comment = |_: u64, out: &mut Vec<u8>| {
        let pax = [&b"1048576 comment="[..], &[b'c'; (1 << 20) - 17], b"\n"].concat();
        header(out, EntryType::XHeader, "pax", "", pax.len() as u64);
        out.extend_from_slice(&pax);
        header(out, EntryType::Regular, "same", "", 0);
    };
    assert_eq!(limit(Endless::new(comment), limits).0, Bound::Bytes, "extended headers");
    let global = |_: u64, out: &mut Vec<u8>| header(out, EntryType::XGlobalHeader, "pax", "", 0);
    assert!(explode(Endless::new(global), limits).0.is_err(), "global headers");
    let same = |_: u64, out: &mut Vec<u8>| header(out, EntryType::Regular, "same", "", 0);
    assert_eq!(limit(Endless::new(same), limits).0, Bound::Entries, "one name again and again");
    assert_eq!(limit(std::io::repeat(0), limits).0, Bound::Bytes, "zeros behind the end");
    let sparse = |i: u64, out: &mut Vec<u8>| {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..8].copy_from_slice(&i.to_le_bytes().map(|b| b | 0x40));
        header.set_entry_type(EntryType::GNUSparse);
        header.set_size(0);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.as_gnu_mut().unwrap().set_real_size(16 << 20);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
    };
    assert_eq!(limit(Endless::new(sparse), limits).0, Bound::Bytes, "sparse files");
    // The map of an old sparse file that never ends.
    let endless_map = |i: u64, out: &mut Vec<u8>| {
        if i == 0 {
            sparse(0, out);
            out[482] = 1;
            let mut header = Header::from_byte_slice(&out[..]).clone();
            header.set_cksum();
            out.copy_from_slice(header.as_bytes());
        } else {
            out.resize(504, 0);
            out.resize(512, 1);
        }
    };
    assert_eq!(limit(Endless::new(endless_map), limits).0, Bound::Bytes, "sparse map");
}

fn timed(what: &str, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    // Linear work takes well under a second; what this guards against takes minutes.
    assert!(start.elapsed().as_secs() < 20, "{what}: {:?}", start.elapsed());
}

/// SPEC I8
#[test]
fn no_entry_costs_more_than_its_size() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let limits = Limits::of(1 << 30, 100_000);
    let apply = move |layers: Vec<Vec<u8>>| {
        let mut disk =
            LayerDisk::create(tempfile::tempfile().unwrap(), Options { limits, bottom: false }).unwrap();
        for layer in layers {
            if disk.apply(&layer[..]).is_err() {
                return false;
            }
        }
        disk.finish().is_ok()
    };
    let mut layer = Vec::new();
    for i in 0..30_000 {
        header(&mut layer, EntryType::Regular, &format!("d/{i}"), "", 0);
    }
    let lower = layer.clone();
    for _ in 0..30_000 {
        header(&mut layer, EntryType::Regular, "d/.wh..wh..opq", "", 0);
        header(&mut layer, EntryType::Regular, ".wh.d", "", 0);
    }
    timed("opaque again and again", || assert!(apply(vec![lower, layer])));
    // Forty links of fifty steps each in every path.
    let mut layer = Vec::new();
    let target = "../d/".repeat(18);
    header(&mut layer, EntryType::Directory, "d", "", 0);
    for i in 0..39 {
        header(&mut layer, EntryType::Symlink, &format!("d/l{i}"), &format!("{target}l{}", i + 1), 0);
    }
    header(&mut layer, EntryType::Symlink, "d/l39", ".", 0);
    header(&mut layer, EntryType::Regular, "d/l0/file", "", 0);
    assert!(!apply(vec![layer]), "1400 steps for one name");
    // As deep as names allow, and deeper by way of links.
    let deep = |prefix: &str, depth: usize, out: &mut Vec<u8>| {
        let name = format!("{prefix}{}", "a/".repeat(depth));
        header(out, EntryType::GNULongName, "././@LongLink", "", name.len() as u64);
        out.extend_from_slice(name.as_bytes());
        out.resize(out.len().next_multiple_of(512), 0);
        header(out, EntryType::Directory, "x", "", 0);
    };
    let mut layer = Vec::new();
    deep("", 2000, &mut layer);
    let mut hides = Vec::new();
    header(&mut hides, EntryType::Regular, ".wh..wh..opq", "", 0);
    // A small stack, as of a thread of a runtime: nothing may recurse by depth.
    let small = std::thread::Builder::new().stack_size(256 << 10);
    small.spawn(move || assert!(apply(vec![layer, hides]))).unwrap().join().unwrap();
    let mut layer = Vec::new();
    deep("", 500, &mut layer);
    header(&mut layer, EntryType::Symlink, "l", &"a/".repeat(50), 0);
    deep("l/", 2040, &mut layer);
    assert!(!apply(vec![layer]), "nested too deep");
}
