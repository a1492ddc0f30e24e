//! A container's own `/etc/passwd` and `/etc/group`, and docker's `--user` and `--group-add`.

use std::fs;

use super::line;
use crate::{Reach, scratch};

pub(super) const WORDS: &[&str] = &[
    "root:x:0:0::/root:/bin/sh\n",
    "u:x:1000:1000::/:\n",
    ":",
    "\n",
    "-1",
    "4294967295",
    "2147483647",
    "g:x:5:u,v\n",
    "u:g",
    "0:0",
];

/// The user, a newline, additional groups with commas, a newline, then passwd, a NUL byte, and group.
pub(super) fn target(data: &[u8]) -> Reach {
    let root = scratch::dir().join("account");
    let (user, rest) = line(data);
    let (groups, files) = line(rest);
    let cut = files.iter().position(|byte| *byte == 0).unwrap_or(files.len());
    let (passwd, group) = files.split_at(cut);
    let etc = root.join("etc");
    if fs::create_dir_all(&etc).is_err() || fs::write(etc.join("passwd"), passwd).is_err() {
        return Reach::Refused;
    }
    let _ = fs::write(etc.join("group"), group.get(1..).unwrap_or_default());
    let user = String::from_utf8_lossy(user);
    let groups: Vec<String> =
        groups.split(|b| *b == b',').take(20).map(|g| String::from_utf8_lossy(g).into_owned()).collect();
    let account = guest_init::fuzzing::account(&root, &user, if groups == [""] { &[] } else { &groups });
    if let Some((uid, gid)) = account {
        // Docker's range; an id beyond it would be another id as a signed number.
        assert!(uid <= 0x7fff_ffff && gid <= 0x7fff_ffff, "{uid}:{gid}");
    }
    Reach::of(passwd.contains(&b':'), account.is_some())
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let files = "root:x:0:0:root:/root:/bin/sh\nu:x:1000:1001:,,,:/home/u:/bin/sh\n1:x:7:7::/:\n# c\nbad\n\0root:x:0:\ng:x:5:u,v\nh:x:6:u\n";
    ["u", "u:g", "1000", "1:h", "", "0:5"].map(|user| format!("{user}\ng,6\n{files}").into_bytes()).to_vec()
}
