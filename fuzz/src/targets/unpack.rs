//! `docker cp` into a container: a hostile tar into a root with links that lead out. Nothing outside the root may change.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
};

use tar::EntryType;

use super::{
    choice,
    layer::{entry, pax},
};
use crate::{Reach, scratch};

/// A root with doors, and a neighbour that nothing may touch.
fn scene(dir: &Path) -> std::io::Result<()> {
    let _ = fs::remove_dir_all(dir);
    let (root, outside) = (dir.join("root"), dir.join("outside"));
    fs::create_dir_all(root.join("dst/sub"))?;
    fs::create_dir_all(&outside)?;
    fs::write(outside.join("secret"), "secret")?;
    fs::write(root.join("dst/file"), "old")?;
    symlink("../../outside", root.join("dst/up"))?;
    symlink(&outside, root.join("dst/away"))?;
    symlink("../outside/secret", root.join("door"))?;
    symlink("dst/sub", root.join("in"))
}

/// What must stay: names, content, links and owner of everything outside.
fn outside(dir: &Path) -> Option<(Vec<String>, Vec<u8>, u64, u32)> {
    let mut names = Vec::new();
    for folder in [dir, &dir.join("outside")] {
        names.extend(
            fs::read_dir(folder)
                .ok()?
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned()),
        );
    }
    names.sort();
    let secret = dir.join("outside/secret");
    let stat = fs::symlink_metadata(&secret).ok()?;
    Some((names, fs::read(&secret).ok()?, stat.nlink(), stat.mode()))
}

pub(super) fn target(data: &[u8]) -> Reach {
    let (how, tar) = choice(data);
    let dir = scratch::dir().join("unpack");
    if scene(&dir).is_err() {
        return Reach::Refused;
    }
    let before = outside(&dir);
    let path = ["/dst", "/", "/in", "/dst/sub/.."][usize::from(how % 4)];
    let accepted = guest_init::fuzzing::unpack(&dir.join("root"), path, tar);
    assert!(before.is_some() && outside(&dir) == before, "something outside the root has changed");
    let parsed =
        tar::Archive::new(tar).entries().is_ok_and(|mut all| all.next().is_some_and(|one| one.is_ok()));
    Reach::of(parsed, accepted && parsed)
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let mut add = |how: u8, entries: &[(EntryType, &str, &str, &[u8])]| {
        let mut out = vec![how];
        for (kind, name, link, data) in entries {
            entry(&mut out, *kind, name, link, data);
        }
        out.resize(out.len() + 1024, 0);
        seeds.push(out);
    };
    use EntryType as T;
    add(
        0,
        &[
            (T::Directory, "d/", "", b""),
            (T::Regular, "d/f", "", b"data"),
            (T::Link, "h", "d/f", b""),
            (T::Symlink, "l", "d", b""),
        ],
    );
    add(
        1,
        &[
            (T::Regular, "door", "", b"x"),
            (T::Regular, "dst/up/secret", "", b"x"),
            (T::Regular, "dst/away/secret", "", b"x"),
        ],
    );
    add(
        0,
        &[
            (T::Symlink, "s", "../../outside", b""),
            (T::Regular, "s/secret", "", b"x"),
            (T::Link, "t", "up/secret", b""),
        ],
    );
    add(0, &[(T::Regular, "../../outside/secret", "", b"x"), (T::Regular, "/dst/x", "", b"x")]);
    add(
        2,
        &[
            (T::Fifo, "p", "", b""),
            (T::Regular, "file", "", &[1; 2000]),
            (T::Directory, "file", "", b""),
            (T::Regular, "sub", "", b""),
        ],
    );
    add(
        3,
        &[
            (T::XHeader, "pax", "", &pax("path", "../outside/secret")),
            (T::Regular, "x", "", b"x"),
            (T::GNULongName, "n", "", b"long/name"),
            (T::Regular, "y", "", b"y"),
        ],
    );
    seeds
}
