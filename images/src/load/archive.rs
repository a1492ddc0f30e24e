//! An index over a spooled tar archive. Names are keys only: nothing is ever written by them.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
};

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// Most members of an archive: a 1000-layer image has three for each layer.
const MAX_MEMBERS: usize = 100_000;
/// Links followed before a name is given up.
const MAX_LINKS: usize = 8;

/// Where a file lies in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
}

impl Archive {
    pub(super) fn open(spool: NamedTempFile) -> Result<Self> {
        let file = spool.reopen().map_err(|e| invalid(&format!("cannot reopen it: {e}")))?;
        let end = file.metadata().map_err(|e| invalid(&e.to_string()))?.len();
        let mut tar = tar::Archive::new(file);
        let mut entries = HashMap::new();
        for entry in tar.entries_with_seek().map_err(|e| invalid(&e.to_string()))? {
            let entry = entry.map_err(|e| invalid(&e.to_string()))?;
            let raw = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = normalise("", &raw).ok_or_else(|| escape(&raw))?;
            let kind = entry.header().entry_type();
            let link = || {
                entry.link_name_bytes().map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
            };
            let found = if kind.is_file() {
                let member = Member { offset: entry.raw_file_position(), size: entry.size() };
                if member.offset.checked_add(member.size).is_none_or(|last| last > end) {
                    return Err(invalid("it ends in the middle of a file"));
                }
                Entry::File(member)
            } else if kind.is_symlink() {
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                Entry::Link(normalise(folder, &link()).ok_or_else(|| escape(&raw))?)
            } else if kind.is_hard_link() {
                Entry::Link(normalise("", &link()).ok_or_else(|| escape(&raw))?)
            } else {
                continue;
            };
            entries.insert(name, found);
            if entries.len() > MAX_MEMBERS {
                return Err(invalid(&format!("it has more than {MAX_MEMBERS} files")));
            }
        }
        Ok(Self { spool, entries })
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
