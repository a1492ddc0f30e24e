//! Entries that lie: names, numbers, extended headers, sparse maps, whiteouts, links. Each is refused, or makes
//! something that stays inside the tree.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers")]

mod common;

use common::archive::Archive;
use common::build;
use diskimg::{Error, Fault, LayerDisk, Options, is_whole};
use std::os::unix::fs::FileExt;
use tar::EntryType;

fn error(layer: Vec<u8>) -> Error {
    match build(&[layer], Options::upper()) {
        Err(error) => error,
        Ok((image, _)) => panic!("{:?}", image.tree().keys()),
    }
}

fn fault(layer: Vec<u8>) -> Fault {
    match error(layer) {
        Error::Entry { fault, .. } => fault,
        other => panic!("{other:?}"),
    }
}

fn paths(layers: &[Vec<u8>]) -> Vec<String> {
    build(layers, Options::bottom()).unwrap().0.tree().into_keys().filter(|path| !path.is_empty()).collect()
}

/// SPEC I4
#[test]
fn nothing_leaves_the_tree() {
    let names = ["../x", "a/../../x", "./../x", "a/..", "/../../etc/passwd", "a/b/../../../x"];
    for name in names {
        assert_eq!(fault(Archive::new().file(name, b"").done()), Fault::DotDot, "{name}");
        assert_eq!(fault(Archive::new().dir(name, 0o755).done()), Fault::DotDot, "{name}");
        assert_eq!(fault(Archive::new().symlink(name, "x").done()), Fault::DotDot, "{name}");
        assert_eq!(fault(Archive::new().hardlink("l", name).done()), Fault::DotDot, "{name}");
        let pax = Archive::new().pax("path", name.as_bytes()).file("fine", b"").done();
        assert_eq!(fault(pax), Fault::DotDot, "{name} in a PAX header");
        let sparse = Archive::new()
            .pax("GNU.sparse.name", name.as_bytes())
            .pax("GNU.sparse.size", b"0")
            .pax("GNU.sparse.map", b"")
            .file("fine", b"");
        assert_eq!(fault(sparse.done()), Fault::DotDot, "{name} as a sparse file's true name");
    }
    assert_eq!(fault(Archive::new().file("../.wh.x", b"").done()), Fault::DotDot);
    // Absolute names and the targets of links start at the tree's root, as in a container.
    let layer = Archive::new()
        .file("/etc/passwd", b"")
        .symlink("up", "../../../../..")
        .symlink("abs", "/etc")
        .symlink("far", "up/../../abs/../../etc")
        .file("up/tmp/1", b"")
        .file("abs/2", b"")
        .file("far/3", b"")
        .hardlink("h", "/../etc/../etc/passwd".trim_start_matches("/../etc/.."))
        .done();
    let expect =
        ["abs", "etc", "etc/2", "etc/3", "etc/passwd", "far", "h", "tmp", "tmp/1", "up"].map(str::to_owned);
    assert_eq!(paths(&[layer]), expect);
    // Below a link that leads nowhere, to a file, or to itself.
    assert_eq!(
        paths(&[Archive::new().symlink("a", "b/c").file("a/x", b"").done()]),
        ["a", "b", "b/c", "b/c/x"]
    );
    assert_eq!(
        fault(Archive::new().file("f", b"").symlink("a", "f").file("a/x", b"").done()),
        Fault::NotADirectory
    );
    assert_eq!(fault(Archive::new().symlink("a", "a").file("a/x", b"").done()), Fault::SymlinkLoop);
}

/// SPEC I4
#[test]
fn hard_links_only_to_files_of_the_tree() {
    let link = |to: &str| fault(Archive::new().dir("d", 0o755).hardlink("l", to).done());
    assert_eq!(link("l"), Fault::LinkTargetMissing, "itself");
    assert_eq!(link("d"), Fault::LinkTargetDirectory);
    for root in ["", "/", ".", "./"] {
        assert_eq!(link(root), Fault::LinkTargetDirectory, "{root:?}");
    }
    assert_eq!(link("/etc/passwd"), Fault::LinkTargetMissing, "the host's");
    let through = Archive::new().symlink("s", "/etc").hardlink("l", "s/passwd").done();
    assert_eq!(fault(through), Fault::LinkTargetMissing, "the host's, by way of a link");
    let whiteout = Archive::new().file(".wh.gone", b"").hardlink("l", "gone").done();
    assert_eq!(fault(whiteout), Fault::LinkTargetMissing);
}

/// SPEC I5
#[test]
fn whiteouts_hide_names_and_nothing_else() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..", "d/.wh...", ".wh..wh.", "d/.wh..wh."] {
        assert_eq!(
            fault(Archive::new().dir("d", 0o755).file(name, b"").done()),
            Fault::BadWhiteout,
            "{name}"
        );
    }
    let base = || Archive::new().file("f", b"1").file("d/x", b"1").done();
    // Of nothing, of a path below a file, of reserved names; as another type than a file.
    let strange = Archive::new()
        .file(".wh.nothing", b"")
        .file("no/such/.wh.dir", b"")
        .file("f/.wh.x", b"")
        .file(".wh..wh.plnk", b"")
        .dir("d/.wh..wh.orph", 0o755)
        .symlink(".wh.other", "f")
        .done();
    assert_eq!(paths(&[base(), strange]), ["d", "d/x", "f"]);
    let root = Archive::new().file("/.wh..wh..opq", b"").file(".wh.d", b"").file("new", b"").done();
    assert_eq!(paths(&[base(), root]), ["new"]);
}

#[test]
fn names_are_bytes() {
    let layer = Archive::new()
        .raw(EntryType::Regular, b"new\nline", b"1", |_| {})
        .raw(EntryType::Regular, b"\xff\xfe\x80", b"2", |_| {})
        .raw(EntryType::Regular, b"esc\x1b[31m", b"3", |_| {})
        .raw(EntryType::Regular, &[b'n'; 255], b"4", |_| {})
        .done();
    let (image, summary) = build(&[layer], Options::bottom()).unwrap();
    let tree = image.tree();
    assert_eq!((tree["new\nline"].size, summary.inodes), (1, 5));
    // Error messages stay printable.
    let text =
        error(Archive::new().raw(EntryType::Regular, b"\x1b[2J/../\n", b"", |_| {}).done()).to_string();
    assert!(!text.contains(['\x1b', '\n']), "{text}");
    let nul = |key: &str| Archive::new().pax(key, b"a\0b").symlink("s", "x").done();
    assert_eq!((fault(nul("path")), fault(nul("linkpath"))), (Fault::Nul, Fault::Nul));
    for long in [256, 4000, 70_000] {
        let fault = fault(Archive::new().pax("path", &vec![b'x'; long]).file("f", b"").done());
        assert!(matches!(fault, Fault::NameTooLong | Fault::PathTooLong), "{long}: {fault}");
    }
    let target = Archive::new().pax("linkpath", &[b'x'; 5000]).symlink("s", "x").done();
    assert_eq!(fault(target), Fault::PathTooLong);
}

#[test]
fn numbers_that_are_none() {
    type Edit = fn(&mut tar::Header);
    let bad: [(&str, Edit); 7] = [
        ("negative size", |h| h.as_old_mut().size = [0xff; 12]),
        ("size of letters", |h| h.as_old_mut().size = *b"hello world\0"),
        ("octal 8", |h| h.as_old_mut().size = *b"00000000008\0"),
        ("size beyond", |h| h.as_old_mut().size = *b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
        ("negative owner", |h| h.as_old_mut().uid = [0xff; 8]),
        ("mode of letters", |h| h.as_old_mut().mode = *b"rwxrwxr\0"),
        ("time of letters", |h| h.as_old_mut().mtime = *b"yesterday\0\0\0"),
    ];
    for (what, edit) in bad {
        let error = error(Archive::new().raw(EntryType::Regular, b"f", b"", edit).done());
        assert!(matches!(error, Error::Tar { .. }), "{what}: {error}");
    }
    for (key, value) in [
        ("size", "-1"),
        ("size", "18446744073709551616"),
        ("size", "9223372036854775807"),
        ("uid", "-5"),
        ("gid", "x"),
        ("mtime", "1e9"),
        ("mtime", "9223372036854775808"),
        ("GNU.sparse.size", "x"),
    ] {
        let error = error(Archive::new().pax(key, value.as_bytes()).file("f", b"").done());
        assert!(matches!(error, Error::Tar { .. }), "{key}={value}: {error}");
    }
    assert_eq!(fault(Archive::new().pax("uid", b"4294967296").file("f", b"").done()), Fault::Owner);
    let device =
        |major: u32| Archive::new().raw(EntryType::Char, b"c", b"", |h| h.set_device_major(major).unwrap());
    assert_eq!(fault(device(4096).done()), Fault::Device);
    assert!(build(&[device(4095).done()], Options::bottom()).is_ok());
    let other = error(Archive::new().file("f", &[1; 600]).done()[..900].to_vec());
    assert!(matches!(other, Error::Tar { .. }), "{other}");
}

#[test]
fn sparse_maps_that_lie() {
    let map = |map: &str, size: &str, stored: &[u8]| {
        Archive::new()
            .pax("GNU.sparse.size", size.as_bytes())
            .pax("GNU.sparse.map", map.as_bytes())
            .file("f", stored)
            .done()
    };
    for (text, size, stored) in [
        ("0,5,3,5", "20", &[1; 10][..]),
        ("10,5,0,5", "20", &[1; 10]),
        ("0,10", "5", &[1; 10]),
        ("0,10", "20", &[1; 5]),
        ("0,5", "20", &[1; 10]),
        ("18446744073709551615,1", "18446744073709551615", &[1; 1]),
        ("1,18446744073709551615", "18446744073709551615", &[1; 1]),
        ("0,1,2", "20", &[1; 1]),
    ] {
        assert_eq!(fault(map(text, size, stored)), Fault::Sparse, "{text} of {size}");
    }
    assert!(matches!(error(map("0,x", "5", b"")), Error::Tar { .. }));
    assert!(matches!(error(map(&"0,0,".repeat(70_000), "5", b"")), Error::Tar { .. }), "a huge map");
    // A size that would overflow the counters, behind an honest file.
    let layer = Archive::new().file("a", b"1").pax("GNU.sparse.size", b"18446744073709551615");
    let layer = layer.pax("GNU.sparse.map", b"").file("f", b"").done();
    assert!(matches!(error(layer), Error::Limit { .. }));
    for data in ["", "1\n", "99999999999\n", "2\n0\n1\n", "x\n", "-1\n"] {
        let mut stored = data.as_bytes().to_vec();
        stored.resize(512, 0);
        let layer = Archive::new()
            .pax("GNU.sparse.major", b"1")
            .pax("GNU.sparse.realsize", b"100")
            .file("f", &stored)
            .done();
        assert!(matches!(error(layer), Error::Tar { .. } | Error::Entry { .. }), "{data:?}");
    }
}

#[test]
fn attributes_that_are_too_large() {
    let one = |value: usize| Archive::new().pax("SCHILY.xattr.user.a", &vec![1; value]).file("f", b"").done();
    assert_eq!(fault(one(65_536)), Fault::XattrsTooLarge);
    assert!(build(&[one(60_000)], Options::bottom()).is_ok());
    let name = format!("SCHILY.xattr.user.{}", "n".repeat(251));
    assert_eq!(fault(Archive::new().pax(&name, b"").file("f", b"").done()), Fault::XattrsTooLarge);
    let many =
        (0..20_000).fold(Archive::new(), |a, i| a.pax(&format!("SCHILY.xattr.user.{i}"), b"")).file("f", b"");
    assert_eq!(fault(many.done()), Fault::XattrsTooLarge);
}

/// SPEC I15
#[test]
fn a_disk_that_was_cut_or_overwritten_is_noticed() {
    let file = tempfile::tempfile().unwrap();
    assert!(!is_whole(&file), "empty");
    let mut disk = LayerDisk::create(file.try_clone().unwrap(), Options::bottom()).unwrap();
    disk.apply(&Archive::new().file("f", &[7; 50_000]).done()[..]).unwrap();
    assert!(!is_whole(&file), "half written");
    let bytes = disk.finish().unwrap().bytes;
    assert!(is_whole(&file));
    file.set_len(bytes - 4096).unwrap();
    assert!(!is_whole(&file), "cut");
    file.set_len(bytes).unwrap();
    assert!(is_whole(&file));
    file.write_all_at(b"x", 1100).unwrap();
    assert!(!is_whole(&file), "overwritten");
}
