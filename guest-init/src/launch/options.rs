//! mount(8) option words.

use std::path::Path;

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::statvfs::{FsFlags, statvfs},
};

/// Words sorted into mount(2)'s flags and the file system's own options.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// `MS_*`
    pub(crate) flags: MsFlags,
    /// What is left, in order.
    pub(crate) data: Vec<String>,
}

impl Options {
    /// Sorts the words; a later one overrides an earlier one.
    pub(crate) fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        let mut flags = MsFlags::empty();
        let mut data = Vec::new();
        for word in words {
            match flag(word) {
                Some((bits, on)) => flags.set(bits, on),
                // Propagation does not matter in a mount namespace that nothing is shared with.
                None if ["rprivate", "private", "rshared", "shared", "rslave", "slave", "defaults", ""]
                    .contains(&word) => {}
                None => data.push(word.to_owned()),
            }
        }
        Self { flags, data }
    }
}

fn flag(word: &str) -> Option<(MsFlags, bool)> {
    Some(match word {
        "ro" => (MsFlags::MS_RDONLY, true),
        "rw" => (MsFlags::MS_RDONLY, false),
        "nosuid" => (MsFlags::MS_NOSUID, true),
        "suid" => (MsFlags::MS_NOSUID, false),
        "nodev" => (MsFlags::MS_NODEV, true),
        "dev" => (MsFlags::MS_NODEV, false),
        "noexec" => (MsFlags::MS_NOEXEC, true),
        "exec" => (MsFlags::MS_NOEXEC, false),
        "sync" => (MsFlags::MS_SYNCHRONOUS, true),
        "async" => (MsFlags::MS_SYNCHRONOUS, false),
        "dirsync" => (MsFlags::MS_DIRSYNC, true),
        "noatime" => (MsFlags::MS_NOATIME, true),
        "atime" => (MsFlags::MS_NOATIME, false),
        "nodiratime" => (MsFlags::MS_NODIRATIME, true),
        "diratime" => (MsFlags::MS_NODIRATIME, false),
        "relatime" => (MsFlags::MS_RELATIME, true),
        "norelatime" => (MsFlags::MS_RELATIME, false),
        "strictatime" => (MsFlags::MS_STRICTATIME, true),
        "nostrictatime" => (MsFlags::MS_STRICTATIME, false),
        _ => return None,
    })
}

/// Adds flags to the mount at `path`, keeping those it has (relatime is kept by the kernel, mount(2)).
pub(crate) fn remount(path: &Path, add: MsFlags) -> Result<(), Errno> {
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | add;
    let has = statvfs(path)?.flags();
    for (seen, flag) in [
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
    ] {
        flags.set(flag, flags.contains(flag) || has.contains(seen));
    }
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_words_win_and_the_rest_is_data() {
        let options = Options::parse(["nosuid", "noexec", "size=64m", "exec", "mode=1777", "rprivate"]);
        assert_eq!(options.flags, MsFlags::MS_NOSUID);
        assert_eq!(options.data, ["size=64m", "mode=1777"]);
    }
}
