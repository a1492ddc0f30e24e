//! Upper directories as overlayfs leaves them (made by hand: no mount is needed).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, Mode, XattrFlags};

use super::*;

struct Scene {
    temp: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        for name in ["low", "high", "upper"] {
            fs::create_dir(temp.path().join(name)).unwrap();
        }
        Self { temp }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn file(&self, name: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), "").unwrap();
    }

    /// False when this user may not make device nodes.
    fn whiteout(&self, name: &str) -> bool {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        rustix::fs::mknodat(CWD, self.path(name), FileType::CharacterDevice, Mode::empty(), 0).is_ok()
    }

    fn opaque(&self, name: &str) -> bool {
        fs::create_dir_all(self.path(name)).unwrap();
        rustix::fs::setxattr(self.path(name), "trusted.overlay.opaque", b"y", XattrFlags::empty()).is_ok()
    }

    /// Gives directories of two layers the time they have after a copy-up.
    fn same(&self, name: &str) {
        for layer in ["low", "high", "upper"] {
            if let Ok(directory) = fs::File::open(self.path(layer).join(name)) {
                let time = UNIX_EPOCH + Duration::from_secs(1000);
                directory.set_times(fs::FileTimes::new().set_modified(time)).unwrap();
            }
        }
    }

    fn changes(&self, managed: &[&str]) -> Vec<String> {
        let managed = managed.iter().map(|&path| path.to_owned()).collect();
        let lowers = [self.path("low"), self.path("high")];
        let changes = changes(&self.path("upper"), &lowers, &managed).unwrap();
        changes
            .iter()
            .map(|change| format!("{} {}", ["C", "A", "D"][change.kind as usize], change.path))
            .collect()
    }
}

#[test]
fn added_modified_deleted() {
    let scene = Scene::new();
    scene.file("low/etc/passwd");
    scene.file("high/usr/bin/x");
    scene.file("low/var/old");
    scene.file("upper/etc/passwd");
    scene.file("upper/new/sub/file");
    scene.file("upper/etc/a");
    scene.file("upper/etc-b");
    if !scene.whiteout("upper/usr/bin/x") || !scene.whiteout("upper/never") {
        return;
    }
    assert_eq!(
        scene.changes(&[]),
        [
            "C /etc",
            "A /etc/a",
            "C /etc/passwd",
            "A /etc-b",
            "A /new",
            "A /new/sub",
            "A /new/sub/file",
            "C /usr",
            "C /usr/bin",
            "D /usr/bin/x"
        ]
    );
}

#[test]
fn a_directory_that_was_only_copied_up_is_left_out() {
    let scene = Scene::new();
    for file in ["low/a/b/f", "upper/a/b/f", "low/c/d/f", "upper/c/d/g", "low/e/f", "upper/e/f"] {
        scene.file(file);
    }
    for directory in ["a", "a/b", "c", "c/d", "e"] {
        scene.same(directory);
    }
    fs::set_permissions(scene.path("upper/e"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(scene.changes(&[]), ["C /a/b/f", "C /c/d", "A /c/d/g", "C /e", "C /e/f"]);
}

#[test]
fn opaque_directories_hide_all_layers() {
    let scene = Scene::new();
    for file in ["low/d/one", "high/d/two", "high/d/sub/x", "low/d/kept", "upper/d/kept", "upper/d/new"] {
        scene.file(file);
    }
    if !scene.opaque("upper/d") {
        return;
    }
    assert_eq!(scene.changes(&[]), ["C /d", "C /d/kept", "A /d/new", "D /d/one", "D /d/sub", "D /d/two"]);
}

#[test]
fn whiteouts_between_the_layers_count() {
    let scene = Scene::new();
    for file in ["low/a", "low/d/x", "upper/a", "upper/d/x", "high/e/y", "low/e/x", "upper/e/x"] {
        scene.file(file);
    }
    if !scene.whiteout("high/a") || !scene.whiteout("high/d") || !scene.opaque("high/e") {
        return;
    }
    assert_eq!(scene.changes(&[]), ["A /a", "A /d", "A /d/x", "C /e", "A /e/x"]);
}

#[test]
fn kinds_that_change() {
    let scene = Scene::new();
    for file in ["low/file-to-dir", "upper/file-to-dir/x", "low/dir-to-file/x", "upper/dir-to-file"] {
        scene.file(file);
    }
    assert_eq!(scene.changes(&[]), ["C /dir-to-file", "C /file-to-dir", "A /file-to-dir/x"]);
}

#[test]
fn what_arca_makes_is_not_listed() {
    let scene = Scene::new();
    let managed = ["/etc/hosts", "/etc/resolv.conf", "/dev", "/proc", "/sys/"];
    for file in
        ["low/etc/passwd", "upper/etc/hosts", "upper/etc/resolv.conf", "upper/dev/console", "upper/sys/x"]
    {
        scene.file(file);
    }
    fs::create_dir(scene.path("upper/proc")).unwrap();
    assert_eq!(scene.changes(&managed), Vec::<String>::new());
    scene.file("upper/etc/passwd");
    scene.file("upper/etc/hosts.allow");
    assert_eq!(scene.changes(&managed), ["C /etc", "A /etc/hosts.allow", "C /etc/passwd"]);

    let bare = Scene::new();
    bare.file("upper/etc/hosts");
    assert_eq!(bare.changes(&managed), Vec::<String>::new());
    bare.file("upper/etc/own");
    assert_eq!(bare.changes(&managed), ["A /etc", "A /etc/own"]);
}
