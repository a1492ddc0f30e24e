//! What a layer holds is what the image holds.

#![allow(clippy::cast_possible_truncation, reason = "test data")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers")]

mod common;

use common::archive::Archive;
use common::build;
use diskimg::{Bound, Error, Fault, LayerDisk, Limits, Options};
use tar::EntryType;

/// Bytes that no two blocks share.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 7 + i / 4096 * 13) as u8).collect()
}

#[test]
fn sizes_around_block_borders_survive() {
    let sizes =
        [0, 1, 31, 32, 4031, 4032, 4033, 4095, 4096, 4097, 8191, 8192, 70_000, 1 << 20, (3 << 20) + 5];
    let mut archive = Archive::new();
    for size in sizes {
        archive = archive.file(&format!("f{size}"), &pattern(size));
    }
    let (image, _) = build(&[archive.done()], Options::bottom()).unwrap();
    let tree = image.tree();
    for size in sizes {
        let node = &tree[&format!("f{size}")];
        assert_eq!(node.size, size as u64);
        assert!(node.data == pattern(size), "content of {size} bytes");
    }
}

#[test]
fn owners_modes_times_devices_and_links_survive() {
    let archive = Archive::new()
        .raw(EntryType::Directory, b"./", b"", |h| h.set_mode(0o711))
        .pax("uid", b"3000000000")
        .pax("gid", b"70000")
        .pax("mtime", b"1234567890.123456789")
        .raw(EntryType::Regular, b"big-owner", b"x", |h| h.set_mode(0o6755))
        .pax("mtime", b"-1.5")
        .file("old", b"")
        .dir("tmp/", 0o1777)
        .symlink("tmp/link", "/anywhere/../else")
        .hardlink("tmp/hard", "/big-owner")
        .raw(EntryType::Char, b"null", b"", |h| {
            h.set_device_major(1).unwrap();
            h.set_device_minor(3).unwrap();
        })
        .raw(EntryType::Block, b"disk", b"", |h| {
            h.set_device_major(259).unwrap();
            h.set_device_minor(0x12345).unwrap();
        })
        .raw(EntryType::Fifo, b"pipe", b"", |_| {})
        .file("made/up/parents", b"1")
        .done();
    let (image, summary) = build(&[archive], Options::bottom()).unwrap();
    let tree = image.tree();
    assert_eq!(tree[""].mode, 0o040_711);
    let node = &tree["big-owner"];
    assert_eq!((node.mode, node.uid, node.gid, node.nlink), (0o106_755, 3_000_000_000, 70_000, 2));
    assert_eq!(node.mtime, (1_234_567_890, 123_456_789));
    assert_eq!(tree["tmp/hard"], *node);
    assert_eq!(tree["old"].mtime, (-2, 500_000_000));
    assert_eq!((tree["tmp"].mode, tree["tmp"].nlink), (0o041_777, 2));
    assert_eq!((tree["tmp/link"].mode, &*tree["tmp/link"].data), (0o120_644, &b"/anywhere/../else"[..]));
    assert_eq!((tree["null"].mode, tree["null"].rdev), (0o020_644, 0x103));
    assert_eq!((tree["disk"].mode, tree["disk"].rdev), (0o060_644, (0x45) | (259 << 8) | (0x12300 << 12)));
    assert_eq!(tree["pipe"].mode, 0o010_644);
    assert_eq!((tree["made/up"].mode, tree["made"].nlink, tree["made/up"].uid), (0o040_755, 3, 0));
    assert_eq!(tree[""].nlink, 4);
    assert_eq!(summary.inodes, 11);
}

#[test]
fn attributes_survive_newlines_but_overlay_ones_do_not() {
    let acl = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff";
    let archive = Archive::new()
        .pax("SCHILY.xattr.security.capability", b"\x01\0\0\x02\x0a\n=\n\0\0\0\0\0\0\0\0\0\0\0\0")
        .pax("SCHILY.xattr.user.note", b"a=b\n9 c=d\n")
        .pax("SCHILY.xattr.system.posix_acl_access", acl)
        .pax("SCHILY.xattr.trusted.overlay.redirect", b"/etc")
        .file("f", b"data")
        .pax("SCHILY.xattr.user.large", &[7; 20_000])
        .file("g", &pattern(5000))
        .pax("SCHILY.xattr.user.l", &[7; 4000])
        .symlink("s", "target")
        .done();
    let (image, _) = build(&[archive], Options::upper()).unwrap();
    let tree = image.tree();
    let x = &tree["f"].xattrs;
    assert_eq!(x.len(), 3, "{x:?}");
    assert_eq!(x["security.capability"], b"\x01\0\0\x02\x0a\n=\n\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(x["user.note"], b"a=b\n9 c=d\n");
    assert_eq!(x["system.posix_acl_access"], acl);
    assert_eq!(tree["f"].data, b"data");
    assert_eq!(tree["g"].xattrs["user.large"], [7; 20_000]);
    assert!(tree["g"].data == pattern(5000));
    assert_eq!(tree["s"].data, b"target");
}

#[test]
fn large_directories_and_long_names() {
    let long = "n".repeat(255);
    let mut archive = Archive::new().file(&format!("{long}/{long}"), b"deep");
    for i in 0..12_000 {
        archive = archive.file(&format!("many/-file-{i}"), b"");
    }
    archive = archive.symlink("long", &"t".repeat(100));
    archive = archive.pax("linkpath", "p/".repeat(2040).as_bytes()).symlink("longer", "x");
    let (image, _) = build(&[archive.done()], Options::bottom()).unwrap();
    let tree = image.tree();
    assert_eq!(tree.keys().filter(|path| path.starts_with("many/")).count(), 12_000);
    assert_eq!(tree[&format!("{long}/{long}")].data, b"deep");
    assert_eq!(tree["longer"].data, "p/".repeat(2040).as_bytes());
}

#[test]
fn sparse_files_of_every_kind() {
    let mut expect = vec![0; 300_000];
    expect[4096..4196].fill(b'a');
    expect[200_000..200_050].fill(b'b');
    let stored = [[b'a'; 100].as_slice(), &[b'b'; 50]].concat();
    let map = b"2\n4096\n100\n200000\n50\n";
    let mut with_map = map.to_vec();
    with_map.resize(512, 0);
    with_map.extend_from_slice(&stored);
    let archive = Archive::new()
        .raw(EntryType::GNUSparse, b"gnu", &stored, |h| {
            let gnu = h.as_gnu_mut().unwrap();
            gnu.set_real_size(300_000);
            gnu.sparse[0].set_offset(4096);
            gnu.sparse[0].set_length(100);
            gnu.sparse[1].set_offset(200_000);
            gnu.sparse[1].set_length(50);
        })
        .pax("GNU.sparse.major", b"1")
        .pax("GNU.sparse.minor", b"0")
        .pax("GNU.sparse.name", b"pax1")
        .pax("GNU.sparse.realsize", b"300000")
        .file("GNUSparseFile.0/x", &with_map)
        .pax("GNU.sparse.size", b"300000")
        .pax("GNU.sparse.map", b"4096,100,200000,50")
        .file("pax01", &stored)
        .file("after", b"still in step")
        .done();
    let (image, _) = build(&[archive], Options::bottom()).unwrap();
    let tree = image.tree();
    for name in ["gnu", "pax1", "pax01"] {
        assert!(tree[name].data == expect, "{name}");
    }
    assert_eq!(tree["after"].data, b"still in step");
}

#[test]
fn equal_layers_give_equal_bytes() {
    let layer = || Archive::new().file("b", &pattern(9000)).file("a", b"1").symlink("l", "b").done();
    let (one, _) = build(&[layer()], Options::bottom()).unwrap();
    let (two, _) = build(&[layer()], Options::bottom()).unwrap();
    assert!(one.bytes() == two.bytes());
    let other = Archive::new().file("b", &pattern(9000)).file("a", b"2").symlink("l", "b").done();
    let (three, _) = build(&[other], Options::bottom()).unwrap();
    assert!(one.bytes()[1024..1152] != three.bytes()[1024..1152], "another UUID");
}

fn refused(layer: Vec<u8>) -> Fault {
    match build(&[layer], Options::upper()).map(|_| ()) {
        Err(Error::Entry { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn escapes_and_bad_names_are_refused() {
    let file = |name: &str| refused(Archive::new().file(name, b"").done());
    assert_eq!(file("../etc/passwd"), Fault::DotDot);
    assert_eq!(file("a/../../b"), Fault::DotDot);
    assert_eq!(file(&"x".repeat(256)), Fault::NameTooLong);
    assert_eq!(file(&"x/".repeat(2100)), Fault::PathTooLong);
    for name in [".wh.", "a/.wh.", ".wh..", ".wh...", "a/.wh..", ".wh..wh."] {
        assert_eq!(file(name), Fault::BadWhiteout, "{name}");
    }
    assert_eq!(file("./"), Fault::RootNotDirectory);
    assert_eq!(refused(Archive::new().pax("path", b"a\0b").file("x", b"").done()), Fault::Nul);
    assert_eq!(refused(Archive::new().hardlink("a", "../../b").done()), Fault::DotDot);
    assert_eq!(refused(Archive::new().hardlink("a", "b").done()), Fault::LinkTargetMissing);
    assert_eq!(refused(Archive::new().dir("d", 0o755).hardlink("a", "d").done()), Fault::LinkTargetDirectory);
    assert_eq!(refused(Archive::new().file("f", b"").file("f/x", b"").done()), Fault::NotADirectory);
    let looped = Archive::new().symlink("a", "b").symlink("b", "a").file("a/x", b"").done();
    assert_eq!(refused(looped), Fault::SymlinkLoop);
    assert_eq!(refused(Archive::new().pax("uid", b"4294967295").file("f", b"").done()), Fault::Owner);
    assert_eq!(
        refused(Archive::new().raw(EntryType::new(b'Z'), b"z", b"", |_| {}).done()),
        Fault::Type(b'Z')
    );
}

#[test]
fn limits_stop_bombs_before_they_cost() {
    let options = |limits| Options { limits, bottom: true };
    let what = |layer: Vec<u8>, limits| match build(&[layer], options(limits)).map(|_| ()) {
        Err(Error::Limit { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    let default = Limits::default();
    // A header that promises a terabyte is refused before a byte of it is read.
    let huge = Archive::new().raw(EntryType::Regular, b"huge", b"", |h| h.set_size(1 << 40)).done();
    assert_eq!(what(huge, default), Bound::Bytes);
    let many = (0..50).fold(Archive::new(), |archive, i| archive.file(&format!("{i}"), b"")).done();
    assert_eq!(what(many.clone(), Limits { max_inodes: 40, ..default }), Bound::Inodes);
    assert_eq!(what(many.clone(), Limits { max_entries: 40, ..default }), Bound::Entries);
    assert_eq!(what(many, Limits { max_metadata_bytes: 4000, ..default }), Bound::Metadata);
    let parents = Archive::new().file(&"d/".repeat(1000), b"").done();
    assert_eq!(what(parents, Limits { max_inodes: 100, ..default }), Bound::Inodes);
    let pax = Archive::new().raw(EntryType::XHeader, b"x", b"", |h| h.set_size(1 << 40)).done();
    assert!(matches!(build(&[pax], Options::bottom()), Err(Error::Tar { .. })));
}

#[test]
fn a_cut_off_layer_fails_and_poisons_the_disk() {
    let layer = Archive::new().file("a", &pattern(5000)).done();
    let mut disk = LayerDisk::create(tempfile::tempfile().unwrap(), Options::bottom()).unwrap();
    assert!(matches!(disk.apply(&layer[..3000]), Err(Error::Tar { .. })));
    assert!(matches!(disk.apply(&layer[..]), Err(Error::Unfinished)));
    assert!(matches!(disk.finish(), Err(Error::Unfinished)));
}
