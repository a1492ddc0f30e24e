//! A layer's tar into an EROFS image. What was accepted is read back by diskimg's own test reader, which asserts what the
//! kernel would reject, and now and then by `fsck.erofs`.

#[allow(
    dead_code,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::expect_used,
    clippy::panic,
    reason = "diskimg's tests have it"
)]
#[path = "../../../diskimg/tests/common/image.rs"]
mod image;

use std::{
    fs::File,
    io::Read,
    os::fd::AsRawFd,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use diskimg::{LayerDisk, Limits, Options};
use tar::{EntryType, Header};

use super::choice;
use crate::{Reach, scratch};

pub(super) const WORDS: &[&str] = &[
    "../",
    "/",
    ".wh.",
    ".wh..wh..opq",
    "./",
    "30 mtime=1234567890.123456789\n",
    "GNU.sparse.map=0,1\n",
    "GNU.sparse.size=9\n",
    "SCHILY.xattr.user.a=b\n",
    "path=x\n",
    "linkpath=x\n",
    "size=0\n",
    "uid=4294967295\n",
    "ustar\x0000",
    "ustar  \0",
];

/// Every so many accepted inputs `fsck.erofs` looks at the image.
const FSCK: u32 = 500;
/// Bytes of an image that is read back.
const MAX_IMAGE: u64 = 4 << 20;

pub(super) fn target(data: &[u8]) -> Reach {
    let (how, layers) = choice(data);
    let limits = Limits {
        max_bytes: MAX_IMAGE,
        max_inodes: 500,
        max_entries: 2000,
        max_metadata_bytes: 1 << 20,
        ..Limits::default()
    };
    let Ok(mut file) = tempfile::tempfile_in(scratch::dir()) else { return Reach::Refused };
    let Ok(copy) = file.try_clone() else { return Reach::Refused };
    let Ok(mut disk) = LayerDisk::create(copy, Options { limits, bottom: how & 1 == 0 }) else {
        return Reach::Refused;
    };
    let mut parsed = false;
    // Two layers share the input: the second changes what the first made.
    let cut = if how & 2 == 0 { layers.len() } else { layers.len() / 1024 * 512 };
    for layer in [layers.get(..cut), layers.get(cut..)].into_iter().flatten() {
        match disk.apply(layer) {
            Ok(stats) => parsed |= stats.entries > 0,
            // The first header was good enough to name an entry.
            Err(error) => return Reach::of(parsed || error.to_string().contains("layer entry"), false),
        }
    }
    let Ok(summary) = disk.finish() else { return Reach::of(parsed, false) };
    assert!(summary.bytes <= MAX_IMAGE + (2 << 20), "the image has {} bytes", summary.bytes);
    let mut bytes = Vec::new();
    if read(&mut file, &mut bytes) {
        let nodes = image::Image::new(bytes).tree().len();
        assert!(nodes <= 501, "{nodes} inodes");
        check(&file);
    }
    Reach::of(parsed, parsed)
}

fn read(file: &mut File, bytes: &mut Vec<u8>) -> bool {
    use std::io::Seek;
    file.rewind().is_ok() && file.read_to_end(bytes).is_ok()
}

/// The other implementation's word, where it is installed.
fn check(file: &File) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    if !COUNT.fetch_add(1, Ordering::Relaxed).is_multiple_of(FSCK) {
        return;
    }
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    if let Ok(output) = Command::new("fsck.erofs").arg(path).output() {
        assert!(output.status.success(), "fsck.erofs: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Makes the checksum of every header right.
pub(crate) fn repair(data: &mut [u8]) {
    // Behind the choice that `target` takes first.
    for block in data.get_mut(1..).unwrap_or_default().chunks_exact_mut(512) {
        if block.get(257..262) == Some(b"ustar") {
            let mut header = Header::from_byte_slice(block).clone();
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
}

/// Appends an entry with whatever name.
pub(super) fn entry(out: &mut Vec<u8>, kind: EntryType, name: &str, link: &str, data: &[u8]) {
    let mut header = Header::new_gnu();
    let put = |field: &mut [u8; 100], text: &str| {
        field.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    };
    put(&mut header.as_old_mut().name, name);
    put(&mut header.as_old_mut().linkname, link);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(data.len() as u64);
    if matches!(kind, EntryType::Char | EntryType::Block) {
        // GNU headers have these fields.
        let _ = header.set_device_major(1).and_then(|()| header.set_device_minor(3));
    }
    if kind == EntryType::GNUSparse
        && let Some(gnu) = header.as_gnu_mut()
    {
        gnu.set_real_size(9000);
        if let Some(part) = gnu.sparse.first_mut() {
            part.set_offset(5000);
            part.set_length(data.len() as u64);
        }
    }
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(512), 0);
}

/// A PAX record.
pub(super) fn pax(key: &str, value: &str) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut len = body + 1;
    while body + len.to_string().len() != len {
        len += 1;
    }
    format!("{len} {key}={value}\n").into_bytes()
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    // One by one, so that a piece of one goes well into another; then all.
    let mut all = Vec::new();
    let mut add = |build: &dyn Fn(&mut Vec<u8>)| {
        let mut one = Vec::new();
        build(&mut one);
        all.extend_from_slice(&one);
        one.resize(one.len() + 1024, 0);
        for how in [0, 1] {
            seeds.push([&[how][..], &one].concat());
        }
    };
    add(&|out| {
        entry(out, EntryType::Directory, "d/", "", b"");
        entry(out, EntryType::Regular, "d/file", "", &[7; 5000]);
        entry(out, EntryType::Symlink, "d/link", "../d/file", b"");
        entry(out, EntryType::Link, "hard", "d/file", b"");
    });
    add(&|out| {
        entry(out, EntryType::Regular, ".wh.gone", "", b"");
        entry(out, EntryType::Regular, "d/.wh..wh..opq", "", b"");
        entry(out, EntryType::Symlink, "up", "d", b"");
        entry(out, EntryType::Regular, "up/x", "", b"small");
    });
    add(&|out| {
        entry(out, EntryType::GNULongName, "././@LongLink", "", "long/".repeat(60).as_bytes());
        entry(out, EntryType::Regular, "l", "", b"x");
        entry(out, EntryType::Char, "null", "", b"");
        entry(out, EntryType::Block, "disk", "", b"");
        entry(out, EntryType::Fifo, "fifo", "", b"");
    });
    add(&|out| {
        let records = [
            pax("mtime", "1.5"),
            pax("SCHILY.xattr.user.a", "1\n2"),
            pax("SCHILY.xattr.security.capability", "v"),
        ];
        entry(out, EntryType::XHeader, "pax", "", &records.concat());
        entry(out, EntryType::Regular, "x", "", b"with attributes");
        let records = [pax("path", "very/long"), pax("uid", "70000"), pax("size", "3")];
        entry(out, EntryType::XHeader, "pax", "", &records.concat());
        entry(out, EntryType::Regular, "y", "", b"abc");
    });
    add(&|out| {
        entry(out, EntryType::GNUSparse, "gnu", "", &[1; 100]);
        entry(
            out,
            EntryType::XHeader,
            "pax",
            "",
            &[pax("GNU.sparse.size", "9000"), pax("GNU.sparse.map", "10,5")].concat(),
        );
        entry(out, EntryType::Regular, "sparse", "", b"12345");
        let records =
            [pax("GNU.sparse.major", "1"), pax("GNU.sparse.minor", "0"), pax("GNU.sparse.realsize", "9000")];
        entry(out, EntryType::XHeader, "pax", "", &records.concat());
        let mut content = b"1\n10\n5\n".to_vec();
        content.resize(512, 0);
        content.extend_from_slice(b"12345");
        entry(out, EntryType::Regular, "sparse1", "", &content);
    });
    all.resize(all.len() + 1024, 0);
    seeds.push([&[0][..], &all].concat());
    seeds.push([&[2][..], &all, &all].concat());
    seeds
}
