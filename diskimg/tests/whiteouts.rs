//! Deletions and merging: OCI image-spec layer.md, and what overlayfs needs of an upper disk.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers")]

mod common;

use common::archive::Archive;
use common::build;
use common::image::Node;
use diskimg::{Error, Fault, Options};
use std::collections::BTreeMap;

fn merged(layers: &[Vec<u8>]) -> BTreeMap<String, Node> {
    build(layers, Options::bottom()).unwrap().0.tree()
}

fn upper(layers: &[Vec<u8>]) -> BTreeMap<String, Node> {
    build(layers, Options::upper()).unwrap().0.tree()
}

fn paths(tree: &BTreeMap<String, Node>) -> Vec<&str> {
    tree.keys().map(String::as_str).filter(|path| !path.is_empty()).collect()
}

fn base() -> Vec<u8> {
    Archive::new()
        .dir("d", 0o700)
        .file("d/a", b"1")
        .file("d/b", b"1")
        .dir("d/sub", 0o700)
        .file("d/sub/x", b"1")
        .file("f", b"1")
        .done()
}

#[test]
fn whiteouts_delete_and_leave_nothing_in_a_merged_chain() {
    let tree = merged(&[base(), Archive::new().file("d/.wh.a", b"").file(".wh.f", b"").done()]);
    assert_eq!(paths(&tree), ["d", "d/b", "d/sub", "d/sub/x"]);
    let tree = merged(&[base(), Archive::new().file(".wh.d", b"").file("gone/.wh.x", b"").done()]);
    assert_eq!(paths(&tree), ["f"]);
}

#[test]
fn a_whiteout_never_hides_its_own_layer() {
    for first in [true, false] {
        let whiteouts = |a: Archive| a.file(".wh.f", b"").file(".wh.d", b"").file("e/.wh..wh..opq", b"");
        let files = |a: Archive| {
            a.file("f", b"2").dir("d", 0o755).file("d/new", b"2").file("e/1", b"2").file("e/deep/2", b"2")
        };
        let layer = if first { files(whiteouts(Archive::new())) } else { whiteouts(files(Archive::new())) };
        let lower = Archive::new().file("e/0", b"").file("e/deep/0", b"").done();
        let layer = layer.done();
        let tree = merged(&[base(), lower, layer.clone()]);
        assert_eq!(
            paths(&tree),
            ["d", "d/new", "e", "e/1", "e/deep", "e/deep/2", "f"],
            "whiteouts first: {first}"
        );
        assert_eq!((&*tree["f"].data, tree["d"].mode), (&b"2"[..], 0o040_755));
        let tree = upper(&[layer]);
        assert_eq!(paths(&tree), ["d", "d/new", "e", "e/1", "e/deep", "e/deep/2", "f"]);
        assert!(tree["d"].is_opaque() && tree["e"].is_opaque() && !tree["e/deep"].is_opaque());
    }
}

#[test]
fn an_upper_disk_keeps_whiteouts_for_overlayfs() {
    let tree =
        upper(&[Archive::new().file("d/.wh.a", b"").file("o/.wh..wh..opq", b"").file("o/n", b"").done()]);
    assert_eq!(paths(&tree), ["d", "d/a", "o", "o/n"]);
    assert!(tree["d/a"].is_whiteout());
    assert!(tree["o"].is_opaque() && !tree["d"].is_opaque());
    // Layers merged above an unknown base keep hiding it.
    let tree = upper(&[base(), Archive::new().file(".wh.d", b"").file(".wh.f", b"").done()]);
    assert_eq!(paths(&tree), ["d", "f"]);
    assert!(tree["d"].is_whiteout() && tree["f"].is_whiteout());
    let again = Archive::new().dir("d", 0o755).file("d/new", b"").file("f", b"3").done();
    let tree = upper(&[base(), Archive::new().file(".wh.d", b"").file(".wh.f", b"").done(), again]);
    assert_eq!(paths(&tree), ["d", "d/new", "f"]);
    assert!(tree["d"].is_opaque() && tree["f"].data == b"3");
    // A directory over a file of a lower layer hides what the base may have there.
    let tree = upper(&[base(), Archive::new().dir("f", 0o755).done()]);
    assert!(tree["f"].is_dir() && tree["f"].is_opaque());
}

#[test]
fn opaque_root_is_told() {
    let layer = || Archive::new().file(".wh..wh..opq", b"").file("new", b"").done();
    let (image, summary) = build(&[base(), layer()], Options::upper()).unwrap();
    assert!(summary.root_opaque);
    assert_eq!(paths(&image.tree()), ["new"]);
    let (_, summary) = build(&[base(), layer()], Options::bottom()).unwrap();
    assert!(!summary.root_opaque);
}

#[test]
fn directories_merge_and_everything_else_replaces() {
    let second =
        Archive::new().dir("d", 0o711).file("d/a", b"22").file("d/sub", b"file").dir("f", 0o700).done();
    let tree = merged(&[base(), second]);
    assert_eq!(paths(&tree), ["d", "d/a", "d/b", "d/sub", "f"]);
    assert_eq!(
        (tree["d"].mode, &*tree["d/a"].data, &*tree["d/sub"].data),
        (0o040_711, &b"22"[..], &b"file"[..])
    );
    assert!(tree["f"].is_dir());
}

#[test]
fn aufs_leftovers_are_skipped_and_markers_do_not_need_entries() {
    let layer = Archive::new().file(".wh..wh.plnk/1.2", b"").file(".wh..wh.aufs", b"").file("x", b"").done();
    assert_eq!(paths(&merged(&[layer])), ["x"]);
}

#[test]
fn hard_links_reach_lower_layers_of_the_chain_only() {
    let link = || Archive::new().hardlink("d/again", "d/sub/x").done();
    let tree = merged(&[base(), link()]);
    assert_eq!(tree["d/again"], tree["d/sub/x"]);
    assert_eq!(tree["d/again"].nlink, 2);
    // The name that goes leaves the other.
    let tree = merged(&[base(), link(), Archive::new().file("d/.wh.sub", b"").done()]);
    assert_eq!((tree["d/again"].nlink, &*tree["d/again"].data), (1, &b"1"[..]));
    // Replacing a directory by a link to something in it.
    let tree = merged(&[base(), Archive::new().hardlink("d", "d/sub/x").done()]);
    assert_eq!((paths(&tree), &*tree["d"].data), (vec!["d", "f"], &b"1"[..]));
    // Onto itself.
    let tree = merged(&[base(), Archive::new().hardlink("f", "f").done()]);
    assert_eq!(tree["f"].nlink, 1);
    match build(&[link()], Options::upper()).map(|_| ()) {
        Err(Error::Entry { fault: Fault::LinkTargetMissing, entry }) => assert_eq!(entry, "d/again"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn parent_symlinks_stay_inside_and_are_followed_in_their_layer_only() {
    let layer = Archive::new()
        .dir("real", 0o755)
        .symlink("in", "real")
        .symlink("out", "../../../../etc")
        .symlink("abs", "/real/./new")
        .file("in/1", b"")
        .file("out/passwd", b"")
        .file("abs/2", b"")
        .done();
    let tree = merged(std::slice::from_ref(&layer));
    assert_eq!(
        paths(&tree),
        ["abs", "etc", "etc/passwd", "in", "out", "real", "real/1", "real/new", "real/new/2"]
    );
    // Stacked, the second layer would show a directory in place of the link: merged it is the same.
    let tree = merged(&[layer, Archive::new().file("in/3", b"").done()]);
    assert!(tree["in"].is_dir() && tree.contains_key("in/3") && !tree.contains_key("real/3"));
}

#[test]
fn a_chain_of_127_layers() {
    let layers: Vec<_> = (0..127)
        .map(|i| {
            let layer = Archive::new().file("count", i.to_string().as_bytes()).file(&format!("l{i}"), b"x");
            if i > 0 { layer.file(&format!(".wh.l{}", i - 1), b"") } else { layer }.done()
        })
        .collect();
    let tree = merged(&layers);
    assert_eq!(paths(&tree), ["count", "l126"]);
    assert_eq!(tree["count"].data, b"126");
}

#[test]
fn deleted_content_is_not_left_in_the_image() {
    let secret = b"do not ship this, 32 bytes long.".repeat(1000);
    let first = Archive::new().file("secret", &secret).file("kept", &[1; 9000]).done();
    let (image, _) =
        build(&[first, Archive::new().file(".wh.secret", b"").done()], Options::bottom()).unwrap();
    assert_eq!(image.tree()["kept"].data, [1; 9000]);
    assert!(!image.bytes().windows(32).any(|window| window == &secret[..32]));
}
