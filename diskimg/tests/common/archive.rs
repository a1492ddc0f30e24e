//! Archives made in memory.

use tar::{EntryType, Header};

/// An archive under construction. Names are written as they are, however bad.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    pax: Vec<u8>,
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds an entry; the header can be changed by `edit`.
    pub(crate) fn raw(
        mut self,
        kind: EntryType,
        name: &[u8],
        data: &[u8],
        edit: impl FnOnce(&mut Header),
    ) -> Self {
        if !self.pax.is_empty() {
            let pax = std::mem::take(&mut self.pax);
            self.push(EntryType::XHeader, b"pax", &pax, |_| {});
        }
        if name.len() > 100 {
            self.push(EntryType::GNULongName, b"././@LongLink", &[name, b"\0"].concat(), |_| {});
        }
        self.push(kind, name, data, edit);
        self
    }

    fn push(&mut self, kind: EntryType, name: &[u8], data: &[u8], edit: impl FnOnce(&mut Header)) {
        let mut header = Header::new_gnu();
        let short = &name[..name.len().min(100)];
        header.as_old_mut().name[..short.len()].copy_from_slice(short);
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(data.len() as u64);
        edit(&mut header);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    /// A PAX record for the next entry.
    pub(crate) fn pax(mut self, key: &str, value: &[u8]) -> Self {
        let body = key.len() + value.len() + 3;
        let mut len = body + 1;
        while body + len.to_string().len() != len {
            len += 1;
        }
        self.pax.extend_from_slice(format!("{len} {key}=").as_bytes());
        self.pax.extend_from_slice(value);
        self.pax.push(b'\n');
        self
    }

    pub(crate) fn file(self, name: &str, data: &[u8]) -> Self {
        self.raw(EntryType::Regular, name.as_bytes(), data, |_| {})
    }

    pub(crate) fn dir(self, name: &str, mode: u32) -> Self {
        self.raw(EntryType::Directory, name.as_bytes(), b"", |h| h.set_mode(mode))
    }

    pub(crate) fn link(self, kind: EntryType, name: &str, target: &str) -> Self {
        self.raw(kind, name.as_bytes(), b"", |h| h.set_link_name_literal(target).expect("short target"))
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.link(EntryType::Symlink, name, target)
    }

    pub(crate) fn hardlink(self, name: &str, target: &str) -> Self {
        self.link(EntryType::Link, name, target)
    }

    pub(crate) fn done(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}
