//! An index over a spooled tar archive. Names are keys only: nothing is ever written by them.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    sync::atomic::{AtomicU64, Ordering},
};

use diskimg::{MemberKind, Members};
use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// Most members of an archive: a 1000-layer image has three for each layer.
const MAX_MEMBERS: usize = 100_000;
/// Longest name in an archive, and bytes of all of them.
const MAX_NAME: usize = 4096;
const MAX_NAMES: usize = 32 << 20;
/// Bytes of all manifests and configurations.
const MAX_TEXT: u64 = 64 << 20;
/// Most images of an archive, and most names of an image.
pub(super) const MAX_IMAGES: usize = 1000;
/// Links followed before a name is given up.
const MAX_LINKS: usize = 8;

/// Where a file lies in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Member {
    offset: u64,
    pub(super) size: u64,
}

enum Entry {
    File(Member),
    /// A symlink or hard link, as a name from the archive's root.
    Link(String),
}

/// An opened archive.
pub(super) struct Archive {
    spool: NamedTempFile,
    entries: HashMap<String, Entry>,
    /// Bytes that may still be read into memory: one small file may be named thousands of times.
    budget: AtomicU64,
}

impl Archive {
    pub(super) fn open(spool: NamedTempFile) -> Result<Self> {
        let file = spool.reopen().map_err(|e| invalid(&format!("cannot reopen it: {e}")))?;
        let members = Members::new(file).map_err(|e| invalid(&e.to_string()))?;
        let mut entries = HashMap::new();
        let mut names = 0;
        for (count, member) in members.enumerate() {
            let member = member.map_err(|e| invalid(&e.to_string()))?;
            if count >= MAX_MEMBERS {
                return Err(invalid(&format!("it has more than {MAX_MEMBERS} files")));
            }
            let raw = text(&member.name)?;
            let name = normalise("", &raw).ok_or_else(|| escape(&raw))?;
            let found = match member.kind {
                MemberKind::File { offset, size } => Entry::File(Member { offset, size }),
                MemberKind::Symlink(to) => {
                    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                    Entry::Link(normalise(folder, &text(&to)?).ok_or_else(|| escape(&raw))?)
                }
                MemberKind::HardLink(to) => {
                    Entry::Link(normalise("", &text(&to)?).ok_or_else(|| escape(&raw))?)
                }
                MemberKind::Other => continue,
            };
            names += name.len() + if let Entry::Link(to) = &found { to.len() } else { 0 };
            if names > MAX_NAMES {
                return Err(invalid("the names in it are too long"));
            }
            entries.insert(name, found);
        }
        Ok(Self { spool, entries, budget: AtomicU64::new(MAX_TEXT) })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The file behind a name, links followed.
    pub(super) fn member(&self, name: &str) -> Result<Member> {
        let mut key = normalise("", name).ok_or_else(|| escape(name))?;
        for _ in 0..MAX_LINKS {
            match self.entries.get(&key) {
                Some(Entry::File(member)) => return Ok(*member),
                Some(Entry::Link(to)) => key.clone_from(to),
                None => return Err(invalid(&format!("it lacks the file {name:?}"))),
            }
        }
        Err(invalid(&format!("the links of {name:?} do not end")))
    }

    pub(super) fn reader(&self, member: &Member) -> MemberReader<'_, impl Fn(u64) + use<>> {
        MemberReader {
            file: self.spool.as_file(),
            start: member.offset,
            size: member.size,
            read: 0,
            report: |_| {},
        }
    }

    /// A whole small file.
    pub(super) fn read(&self, name: &str, max: u64) -> Result<Vec<u8>> {
        let member = self.member(name)?;
        let spend = |left: u64| left.checked_sub(member.size);
        if self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_err() {
            return Err(invalid(&format!("its manifests and configurations exceed {MAX_TEXT} bytes")));
        }
        if member.size > max {
            return Err(invalid(&format!("{name:?} has {} bytes; at most {max} are taken", member.size)));
        }
        let mut bytes = Vec::new();
        self.reader(&member)
            .read_to_end(&mut bytes)
            .map_err(|e| invalid(&format!("cannot read {name:?}: {e}")))?;
        Ok(bytes)
    }
}

/// Reads one member.
pub(super) struct MemberReader<'a, F> {
    file: &'a File,
    start: u64,
    size: u64,
    read: u64,
    report: F,
}

impl<'a, F> MemberReader<'a, F> {
    /// Calls `report` with the bytes read so far.
    pub(super) fn reporting<G: Fn(u64)>(self, report: G) -> MemberReader<'a, G> {
        MemberReader { file: self.file, start: self.start, size: self.size, read: self.read, report }
    }
}

impl<F: Fn(u64)> Read for MemberReader<'_, F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.read).unwrap_or(usize::MAX).min(buf.len());
        if left == 0 {
            return Ok(0);
        }
        match self.file.read_at(&mut buf[..left], self.start + self.read)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.read += n as u64;
                (self.report)(self.read);
                Ok(n)
            }
        }
    }
}

fn text(name: &[u8]) -> Result<String> {
    if name.len() > MAX_NAME {
        return Err(invalid(&format!("a name in it is longer than {MAX_NAME} bytes")));
    }
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// A name from the archive's root, `..` resolved; nothing if it leaves the archive.
fn normalise(folder: &str, name: &str) -> Option<String> {
    if name.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

pub(super) fn invalid(why: &str) -> Error {
    Error::InvalidParameter(format!("invalid archive: {why}"))
}

fn escape(name: &str) -> Error {
    invalid(&format!("the name {name:?} leads out of it"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn archive(build: impl FnOnce(&mut tar::Builder<&mut NamedTempFile>)) -> Result<Archive> {
        let mut file = NamedTempFile::new().unwrap();
        let mut builder = tar::Builder::new(&mut file);
        build(&mut builder);
        builder.finish().unwrap();
        drop(builder);
        file.flush().unwrap();
        Archive::open(file)
    }

    fn put(
        builder: &mut tar::Builder<&mut NamedTempFile>,
        name: &str,
        kind: tar::EntryType,
        link: &str,
        data: &[u8],
    ) {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data).unwrap();
    }

    #[test]
    fn links_are_followed_within() {
        use tar::EntryType as T;
        let archive = archive(|b| {
            put(b, "./x.tar", T::Regular, "", b"data");
            put(b, "d/layer.tar", T::Symlink, "../x.tar", b"");
            put(b, "hard", T::Link, "d/layer.tar", b"");
            put(b, "loop", T::Symlink, "loop", b"");
        })
        .unwrap();
        assert_eq!(archive.read("hard", 10).unwrap(), b"data");
        assert!(archive.read("hard", 3).is_err() && archive.read("loop", 9).is_err());
        assert!(archive.member("../x.tar").is_err() && archive.member("/x.tar").is_err());
    }

    #[test]
    fn escapes_are_refused() {
        use tar::EntryType as T;
        for (name, kind, link) in [
            ("../a", T::Regular, ""),
            ("/etc/passwd", T::Regular, ""),
            ("a", T::Symlink, "../../etc/passwd"),
            ("a", T::Symlink, "/etc/passwd"),
            ("a", T::Link, "../x"),
        ] {
            let error = archive(|b| put(b, name, kind, link, b"")).err().unwrap();
            assert!(error.to_string().contains("leads out"), "{name}: {error}");
        }
    }
}
