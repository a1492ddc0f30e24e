//! Archives out and in: names, attributes, hostile tars.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use crate::files::get::get;
use crate::files::pax::TarReader;

/// A tar of raw entries: nothing is checked on the way in.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn add(mut self, kind: EntryType, name: &str, link: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        let fields = header.as_old_mut();
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.add(EntryType::Regular, name, "", content.as_bytes())
    }

    fn put(&self, root: &Path, path: &str) -> Result<(), FilesError> {
        put(root, path, self.0.as_slice(), &PutOptions::default())
    }
}

fn fetch(root: &Path, path: &str) -> Vec<u8> {
    let mut tar = Vec::new();
    get(root, path).unwrap().write(&mut tar).unwrap();
    tar
}

fn members(tar: &[u8]) -> Vec<(String, EntryType, String)> {
    let mut reader = TarReader::new(tar);
    let mut members = Vec::new();
    while let Some(member) = reader.next().unwrap() {
        members.push((lossy(&member.name), member.kind, lossy(&member.link)));
    }
    members
}

fn names(tar: &[u8]) -> Vec<String> {
    members(tar).into_iter().map(|(name, ..)| name).collect()
}

/// A root with a neighbour that nothing may touch.
fn scene() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let (root, outside) = (temp.path().join("root"), temp.path().join("outside"));
    fs::create_dir_all(root.join("dst")).unwrap();
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    (temp, root, outside)
}

#[test]
fn names_are_rebased_as_docker_does() {
    let (_temp, root, _) = scene();
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/b/f"), "x").unwrap();
    symlink("a/b", root.join("l")).unwrap();
    assert_eq!(names(&fetch(&root, "/a")), ["a/", "a/b/", "a/b/f"]);
    assert_eq!(names(&fetch(&root, "/a/")), ["a/", "a/b/", "a/b/f"]);
    assert_eq!(names(&fetch(&root, "/a/.")), ["./", "./b/", "./b/f"]);
    assert_eq!(names(&fetch(&root, "/a/b/f")), ["f"]);
    assert_eq!(members(&fetch(&root, "/l")), [("l".into(), EntryType::Symlink, "a/b".into())]);
    assert_eq!(names(&fetch(&root, "/l/")), ["l/", "l/f"]);
    assert_eq!(names(&fetch(&root, "/l/f")), ["f"]);
    assert_eq!(names(&fetch(&root, "/")), ["/", "/a/", "/a/b/", "/a/b/f", "/dst/", "/l"]);
    assert!(matches!(get(&root, "/none"), Err(FilesError::NotFound(_))));
}

#[test]
fn everything_comes_back() {
    let (_temp, root, _) = scene();
    let source = root.join("src");
    fs::create_dir_all(source.join("sub")).unwrap();
    fs::write(source.join("sub/file"), vec![7; 70_000]).unwrap();
    fs::set_permissions(source.join("sub/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(source.join("sub/file"), source.join("again")).unwrap();
    symlink("../../nowhere", source.join("link")).unwrap();
    let long = "n".repeat(200);
    fs::create_dir_all(source.join(&long)).unwrap();
    fs::write(source.join(&long).join("ü"), "").unwrap();
    symlink(&long, source.join("long")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        source.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
    let owned = std::os::unix::fs::lchown(source.join("sub/file"), Some(3_000_000), Some(5)).is_ok();
    fs::set_permissions(source.join("sub/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    // Version 2 of a capability, with a line end among its bytes.
    let capability = [1, 0, 0, 2, 10, 4, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0];
    let capable = owned
        && rustix::fs::setxattr(
            source.join("sub/file"),
            "security.capability",
            &capability,
            rustix::fs::XattrFlags::empty(),
        )
        .is_ok();
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_234_567);
    let times = fs::FileTimes::new().set_modified(old);
    fs::File::open(source.join("sub/file")).unwrap().set_times(times).unwrap();
    fs::File::open(source.join("sub")).unwrap().set_times(times).unwrap();

    let tar = fetch(&root, "/src/.");
    put(&root, "/dst", tar.as_slice(), &PutOptions::default()).unwrap();
    let copy = root.join("dst");
    assert_eq!(fs::read(copy.join("sub/file")).unwrap(), vec![7; 70_000]);
    let file = fs::symlink_metadata(copy.join("sub/file")).unwrap();
    assert_eq!((file.mode() & 0o7777, file.mtime(), file.nlink()), (0o4751, 1_234_567, 2));
    if owned {
        assert_eq!((file.uid(), file.gid()), (3_000_000, 5));
    }
    if capable {
        let mut value = [0; 64];
        let length =
            rustix::fs::getxattr(copy.join("sub/file"), "security.capability", value.as_mut_slice()).unwrap();
        assert_eq!(value[..length], capability);
    }
    assert_eq!(fs::metadata(copy.join("sub")).unwrap().mtime(), 1_234_567);
    assert_eq!(fs::metadata(copy.join("again")).unwrap().ino(), file.ino());
    assert_eq!(fs::read_link(copy.join("link")).unwrap(), Path::new("../../nowhere"));
    assert_eq!(fs::read_link(copy.join("long")).unwrap(), Path::new(&long));
    assert!(copy.join(&long).join("ü").exists());
    assert_eq!(fs::symlink_metadata(copy.join("pipe")).unwrap().mode(), 0o010_400);
    assert!(!copy.join("socket").exists());
    // And another reader understands it.
    let mut archive = tar::Archive::new(tar.as_slice());
    assert_eq!(archive.entries().unwrap().filter(Result::is_ok).count(), names(&tar).len());
}

#[test]
fn a_file_that_shrinks_or_grows_leaves_the_stream_whole() {
    let (_temp, root, _) = scene();
    fs::create_dir(root.join("d")).unwrap();
    for name in ["a", "b"] {
        fs::write(root.join("d").join(name), vec![b'x'; 1 << 20]).unwrap();
    }
    /// Changes a file when the first bytes come out: its header was written then.
    struct Meddler<'a>(Vec<u8>, &'a Path, u64);
    impl io::Write for Meddler<'_> {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            if self.0.len() > 2048 {
                fs::OpenOptions::new().write(true).open(self.1)?.set_len(self.2)?;
            }
            self.0.extend_from_slice(data);
            Ok(data.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let file = root.join("d/a");
    for length in [1000, 4 << 20] {
        fs::write(&file, vec![b'x'; 1 << 20]).unwrap();
        let mut out = Meddler(Vec::new(), &file, length);
        get(&root, "/d").unwrap().write(&mut out).unwrap();
        assert_eq!(names(&out.0), ["d/", "d/a", "d/b"]);
        assert_eq!(out.0.len(), 512 * 3 + (2 << 20) + 1024);
    }
}

#[test]
fn hostile_names_stay_inside() {
    let (_temp, root, outside) = scene();
    for name in ["../outside/secret", "a/../../../outside/secret", "../../etc/passwd", ".."] {
        let error = Tar::default().file(name, "bad").put(&root, "/dst").unwrap_err();
        assert!(matches!(error, FilesError::Breakout(..)), "{name}: {error}");
    }
    Tar::default().file("/etc/abs", "inside").file("//x/../y", "inside").put(&root, "/dst").unwrap();
    assert_eq!(fs::read_to_string(root.join("dst/etc/abs")).unwrap(), "inside");
    assert_eq!(fs::read_to_string(root.join("dst/y")).unwrap(), "inside");
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "secret");
}

#[test]
fn links_in_a_tar_lead_nowhere_outside() {
    let (_temp, root, outside) = scene();
    let away = outside.to_str().unwrap();
    fs::create_dir_all(root.join("etc")).unwrap();
    for target in [away, "../../outside", "/../../outside", "../../../../../../../../../"] {
        let tar = Tar::default().add(EntryType::Symlink, "link", target, b"").file("link/secret", "bad");
        // Either there is no such directory inside, or the file lands inside.
        let _ = tar.put(&root, "/dst");
        assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "secret", "{target}");
        assert!(!Path::new("/secret").exists());
    }
    // A link over which a file is written is replaced, not followed.
    let link = outside.join("secret");
    Tar::default()
        .add(EntryType::Symlink, "l2", link.to_str().unwrap(), b"")
        .file("l2", "mine")
        .put(&root, "/dst")
        .unwrap();
    assert!(!fs::symlink_metadata(root.join("dst/l2")).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "secret");

    // Hard links: out of the destination by name, and by a symlink on the way.
    let error =
        Tar::default().add(EntryType::Link, "h", "../../outside/secret", b"").put(&root, "/dst").unwrap_err();
    assert!(matches!(error, FilesError::Breakout(..)), "{error}");
    let error = Tar::default()
        .add(EntryType::Symlink, "s", away, b"")
        .add(EntryType::Link, "h", "s/secret", b"")
        .put(&root, "/dst")
        .unwrap_err();
    assert!(matches!(error, FilesError::NotFound(_)), "{error}");
    let error = Tar::default().add(EntryType::Link, "h", "/etc/passwd", b"").put(&root, "/dst").unwrap_err();
    assert!(matches!(error, FilesError::NotFound(_)), "{error}");
    assert_eq!(fs::metadata(outside.join("secret")).unwrap().nlink(), 1);
}

#[test]
fn a_racing_symlink_never_leads_out() {
    let (_temp, root, outside) = scene();
    fs::create_dir_all(root.join("dst/d")).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (spare, real, link) = (root.join("spare"), root.join("dst/d"), root.join("link"));
            symlink(&outside, &link).unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = fs::rename(&real, &spare);
                let _ = fs::rename(&link, &real);
                let _ = fs::rename(&real, &link);
                let _ = fs::rename(&spare, &real);
            }
        });
        for turn in 0..500 {
            let tar = Tar::default().file(&format!("d/f{}", turn % 7), "bad").file("d/secret", "bad");
            let _ = tar.put(&root, "/dst");
            let _ = get(&root, "/dst").and_then(|source| source.write(io::sink()));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "secret");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn replacing() {
    let (_temp, root, outside) = scene();
    fs::create_dir_all(root.join("dst/x/deep/er")).unwrap();
    fs::write(root.join("dst/x/deep/er/f"), "").unwrap();
    symlink(&outside, root.join("dst/x/deep/out")).unwrap();
    let strict = PutOptions { no_overwrite_dir_non_dir: true, ..PutOptions::default() };
    let file = Tar::default().file("x", "now a file");
    let error = put(&root, "/dst", file.0.as_slice(), &strict).unwrap_err();
    assert_eq!(error.to_string(), r#"cannot overwrite directory "/dst/x" with non-directory "x""#);
    file.put(&root, "/dst").unwrap();
    assert_eq!(fs::read_to_string(root.join("dst/x")).unwrap(), "now a file");
    assert!(outside.join("secret").exists());
    let directory = Tar::default().add(EntryType::Directory, "x/", "", b"");
    assert!(matches!(
        put(&root, "/dst", directory.0.as_slice(), &strict),
        Err(FilesError::NonDirectoryWithDirectory(..))
    ));
    directory.put(&root, "/dst").unwrap();
    assert!(root.join("dst/x").is_dir());
    // A text file that runs or is open elsewhere is unlinked, not truncated.
    fs::write(root.join("dst/open"), "old").unwrap();
    let held = fs::File::open(root.join("dst/open")).unwrap();
    Tar::default().file("open", "new").put(&root, "/dst").unwrap();
    assert_eq!(held.metadata().unwrap().len(), 3);
    assert_ne!(held.metadata().unwrap().ino(), fs::metadata(root.join("dst/open")).unwrap().ino());
}

#[test]
fn destinations() {
    let (_temp, root, outside) = scene();
    fs::write(root.join("file"), "").unwrap();
    symlink("/dst", root.join("to")).unwrap();
    symlink(&outside, root.join("out")).unwrap();
    let tar = Tar::default().file("f/g", "1");
    assert!(matches!(tar.put(&root, "/none"), Err(FilesError::NotFound(_))));
    assert!(matches!(tar.put(&root, "/out"), Err(FilesError::NotFound(_))));
    for path in ["/file", "/file/", "/file/x"] {
        assert_eq!(tar.put(&root, path).unwrap_err().to_string(), "extraction point is not a directory");
    }
    let read_only = PutOptions { read_only: true, ..PutOptions::default() };
    let error = put(&root, "/dst", tar.0.as_slice(), &read_only).unwrap_err();
    assert_eq!(error.to_string(), "container rootfs is marked read-only");
    let chown = PutOptions { chown: Some((4, 5)), ..PutOptions::default() };
    for path in ["/to", "/dst/.", "/"] {
        put(&root, path, tar.0.as_slice(), &chown).unwrap();
    }
    let made = fs::metadata(root.join("dst/f/g")).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o777), (4, 5, 0o644));
    assert_eq!(fs::metadata(root.join("dst/f")).unwrap().mode() & 0o777, 0o755);
    assert!(root.join("f/g").exists());
}

#[test]
fn broken_streams() {
    let (_temp, root, _) = scene();
    let tar = Tar::default().file("f", &"x".repeat(2000));
    let cut = put(&root, "/dst", &tar.0[..1500], &PutOptions::default()).unwrap_err();
    assert_eq!(cut.to_string(), "invalid tar archive: unexpected EOF");
    let (sender, reader) = crate::files::chunks::reader(4);
    sender.blocking_send(Ok(bytes::Bytes::copy_from_slice(&tar.0[..1500]))).unwrap();
    sender.blocking_send(Err(io::ErrorKind::ConnectionReset.into())).unwrap();
    assert!(matches!(put(&root, "/dst", reader, &PutOptions::default()), Err(FilesError::Stream(_))));
    let mut owner = tar::Header::new_gnu();
    owner.set_path("o").unwrap();
    owner.set_mode(0);
    owner.set_size(0);
    owner.set_uid(u64::from(u32::MAX));
    owner.set_cksum();
    let error = put(&root, "/dst", owner.as_bytes().as_slice(), &PutOptions::default()).unwrap_err();
    assert!(matches!(error, FilesError::Tar(_)), "{error}");
}

proptest::proptest! {
    #[test]
    fn random_members_never_panic_nor_escape(
        members in proptest::collection::vec((0usize..9, "[ab./]{0,8}", "[ab./]{0,12}", 0usize..600), 0..12),
        noise: Vec<u8>,
    ) {
        let (temp, root, outside) = scene();
        let kinds = [
            EntryType::Regular, EntryType::Link, EntryType::Symlink, EntryType::Directory, EntryType::Fifo,
            EntryType::Char, EntryType::XHeader, EntryType::GNULongName, EntryType::GNUSparse,
        ];
        let mut tar = Tar::default();
        for (kind, name, link, size) in members {
            tar = tar.add(kinds[kind], &name, &link, &vec![b'a'; size]);
        }
        tar.0.extend_from_slice(&noise);
        let _ = tar.put(&root, "/dst");
        assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "secret");
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2);
        let mut out = Vec::new();
        get(&root, "/").unwrap().write(&mut out).unwrap();
        names(&out);
    }
}
