//! Where the files of an archive lie, for archives that hold other files than a layer's (`docker load`): the same
//! bounded reader, which jumps over contents.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use super::{EntryKind, TarReader};
use crate::error::{Error, Fault, Result};

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name as the archive has it.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: MemberKind,
}

/// What an entry of an archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberKind {
    /// A file's content in the archive; it ends before the archive does.
    File {
        /// First byte.
        offset: u64,
        /// Bytes.
        size: u64,
    },
    /// A symlink's target.
    Symlink(Vec<u8>),
    /// Another name in the archive.
    HardLink(Vec<u8>),
    /// A directory, device or the like.
    Other,
}

/// Lists an uncompressed archive without reading its contents.
#[derive(Debug)]
pub struct Members {
    tar: TarReader<At>,
    len: u64,
}

impl Members {
    /// Starts at the beginning of `archive`.
    ///
    /// # Errors
    /// [`Error::Io`] if its size cannot be read.
    pub fn new(archive: File) -> Result<Self> {
        let len = archive.metadata().map_err(Error::io("read the archive's size"))?.len();
        Ok(Self { tar: TarReader::new(At { file: archive, pos: 0 }, u64::MAX), len })
    }

    fn member(&mut self) -> Result<Option<Member>> {
        // Over the last content.
        let skip = self.tar.remaining.saturating_add(self.tar.padding);
        self.tar.offset = self.tar.offset.saturating_add(skip);
        self.tar.src.pos = self.tar.offset;
        (self.tar.remaining, self.tar.padding) = (0, 0);
        let Some(entry) = self.tar.next_entry()? else { return Ok(None) };
        let kind = match entry.kind {
            EntryKind::File if entry.sparse.is_some() => {
                return Err(Error::entry(&entry.path, Fault::Sparse));
            }
            EntryKind::File => {
                let end = self.tar.offset.checked_add(entry.size);
                if end.is_none_or(|end| end > self.len) {
                    return Err(self.tar.bad("it ends in the middle of a file"));
                }
                MemberKind::File { offset: self.tar.offset, size: entry.size }
            }
            EntryKind::Symlink => MemberKind::Symlink(entry.link),
            EntryKind::HardLink => MemberKind::HardLink(entry.link),
            _ => MemberKind::Other,
        };
        Ok(Some(Member { name: entry.path, kind }))
    }
}

impl Iterator for Members {
    type Item = Result<Member>;

    /// After an error nothing sensible follows: stop there.
    fn next(&mut self) -> Option<Self::Item> {
        self.member().transpose()
    }
}

/// Reads a file from a place of its own.
#[derive(Debug)]
struct At {
    file: File,
    pos: u64,
}

impl Read for At {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buf, self.pos)?;
        self.pos += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::BLOCK;
    use super::*;

    fn members(bytes: &[u8]) -> Result<Vec<Member>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Members::new(file).unwrap().collect()
    }

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, name, *content).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn contents_are_found_and_cut_ones_refused() {
        let long = "d/".repeat(100) + "name";
        let bytes = archive(&[("a", &[1; 700]), (&long, b"xyz"), ("empty", b"")]);
        let found = members(&bytes).unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!((&*found[1].name, found[2].name.as_slice()), (long.as_bytes(), &b"empty"[..]));
        let MemberKind::File { offset, size } = found[1].kind else { panic!("{found:?}") };
        let (offset, size) = (usize::try_from(offset).unwrap(), usize::try_from(size).unwrap());
        assert_eq!(&bytes[offset..][..size], b"xyz");
        assert!(members(&bytes[..1000]).is_err(), "cut in a content");
        assert!(members(&bytes[..BLOCK + 1024 + 100]).is_err(), "cut in a header");
        assert_eq!(members(b"").unwrap(), []);
    }

    #[test]
    fn a_name_of_gigabytes_is_refused_unread() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(8 << 30);
        header.set_cksum();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.set_len(9 << 30).unwrap();
        let error = Members::new(file).unwrap().next().unwrap().unwrap_err();
        assert!(error.to_string().contains("extended header is larger than 1 MiB"), "{error}");
    }
}
