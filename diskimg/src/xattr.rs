//! Extended attributes as archives carry them and as EROFS stores them.

use crate::error::Fault;

/// Bytes of encoded attributes one inode may have: Linux's own bound for one value and for a name list.
pub(crate) const MAX_ENCODED: usize = 64 << 10;

/// Size of `struct erofs_xattr_ibody_header`.
pub(crate) const IBODY_HEADER: usize = 12;

/// EROFS name prefix indexes (`EROFS_XATTR_INDEX_*`).
const USER: u8 = 1;
const ACL_ACCESS: u8 = 2;
const ACL_DEFAULT: u8 = 3;
const TRUSTED: u8 = 4;
const SECURITY: u8 = 6;

/// One attribute: prefix index, rest of the name, value.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Xattr {
    index: u8,
    name: Box<[u8]>,
    value: Box<[u8]>,
}

impl Xattr {
    fn encoded_len(&self) -> usize {
        (4 + self.name.len() + self.value.len()).next_multiple_of(4)
    }
}

/// The attributes of one inode, sorted, so that equal layers give equal images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Xattrs {
    all: Vec<Xattr>,
    /// Encoded bytes of `all`, kept so that thousands of attributes cost no quadratic time.
    encoded: usize,
}

impl Xattrs {
    /// Takes an attribute by its full name. `Ok(false)`: left out on purpose, namely
    /// - `trusted.overlay.*`, with which a layer could steer overlayfs (redirects, opaque directories),
    /// - namespaces EROFS cannot store, and ACLs that the kernel could not parse.
    pub(crate) fn insert(&mut self, full_name: &[u8], value: &[u8]) -> Result<bool, Fault> {
        if full_name.contains(&0) {
            return Err(Fault::Nul);
        }
        if full_name.len() > 255 || value.len() > usize::from(u16::MAX) {
            return Err(Fault::XattrsTooLarge);
        }
        let Some((index, name)) = split_name(full_name) else { return Ok(false) };
        if (index == TRUSTED && name.starts_with(b"overlay."))
            || (matches!(index, ACL_ACCESS | ACL_DEFAULT) && !is_acl(value))
        {
            return Ok(false);
        }
        self.set(index, name, value);
        if self.encoded_len() > MAX_ENCODED { Err(Fault::XattrsTooLarge) } else { Ok(true) }
    }

    /// Marks a directory as opaque for overlayfs.
    pub(crate) fn set_opaque(&mut self) {
        self.set(TRUSTED, b"overlay.opaque", b"y");
    }

    fn set(&mut self, index: u8, name: &[u8], value: &[u8]) {
        let xattr = Xattr { index, name: name.into(), value: value.into() };
        self.encoded += xattr.encoded_len();
        match self.all.binary_search_by(|x| (x.index, &*x.name).cmp(&(index, name))) {
            Ok(at) => {
                self.encoded -= self.all[at].encoded_len();
                self.all[at] = xattr;
            }
            Err(at) => self.all.insert(at, xattr),
        }
    }

    /// Bytes in memory, for the metadata limit.
    pub(crate) fn weight(&self) -> u64 {
        self.all.iter().map(|x| (x.name.len() + x.value.len() + size_of::<Xattr>()) as u64).sum()
    }

    /// Bytes behind the inode: 0 without attributes, else a multiple of 4.
    pub(crate) fn encoded_len(&self) -> usize {
        if self.all.is_empty() { 0 } else { IBODY_HEADER + self.encoded }
    }

    /// Appends `struct erofs_xattr_ibody_header` and the inline entries.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        if self.all.is_empty() {
            return;
        }
        out.extend_from_slice(&[0; IBODY_HEADER]);
        for x in &self.all {
            // insert() bounds both lengths.
            out.push(x.name.len() as u8);
            out.push(x.index);
            out.extend_from_slice(&(x.value.len() as u16).to_le_bytes());
            out.extend_from_slice(&x.name);
            out.extend_from_slice(&x.value);
            out.resize(out.len().next_multiple_of(4), 0);
        }
    }
}

/// Prefix index and rest of a full name; `None` for a namespace that EROFS has not.
fn split_name(full: &[u8]) -> Option<(u8, &[u8])> {
    match full {
        b"system.posix_acl_access" => return Some((ACL_ACCESS, b"")),
        b"system.posix_acl_default" => return Some((ACL_DEFAULT, b"")),
        _ => {}
    }
    [(USER, &b"user."[..]), (TRUSTED, b"trusted."), (SECURITY, b"security.")]
        .into_iter()
        .find_map(|(index, prefix)| full.strip_prefix(prefix).map(|rest| (index, rest)))
        .filter(|(_, rest)| !rest.is_empty())
}

/// `struct posix_acl_xattr_header` (version 2) and 8-byte entries; anything else makes every access fail.
fn is_acl(value: &[u8]) -> bool {
    value.len() >= 4 && value[..4] == 2u32.to_le_bytes() && (value.len() - 4).is_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlay_and_unknown_namespaces_are_left_out() {
        let mut x = Xattrs::default();
        assert!(!x.insert(b"trusted.overlay.opaque", b"y").unwrap());
        assert!(!x.insert(b"trusted.overlay.redirect", b"/etc").unwrap());
        assert!(!x.insert(b"system.nfs4_acl", b"..").unwrap());
        assert!(!x.insert(b"user.", b"..").unwrap());
        assert!(!x.insert(b"system.posix_acl_access", b"junk").unwrap());
        assert_eq!(x.encoded_len(), 0);
        assert!(x.insert(b"trusted.other", b"1").unwrap());
    }

    #[test]
    fn encoding_is_sorted_padded_and_as_long_as_announced() {
        let mut x = Xattrs::default();
        x.insert(b"security.capability", &[1; 20]).unwrap();
        x.insert(b"user.b", b"two").unwrap();
        x.insert(b"user.a", b"old").unwrap();
        x.insert(b"user.a", b"1").unwrap();
        let mut out = Vec::new();
        x.encode(&mut out);
        assert_eq!(out.len(), x.encoded_len());
        assert_eq!(&out[12..20], b"\x01\x01\x01\x00a1\0\0");
        assert_eq!(&out[20..28], b"\x01\x01\x03\x00btwo");
        assert_eq!(&out[28..32], &[10, 6, 20, 0]);
    }

    #[test]
    fn too_large_is_refused() {
        let mut x = Xattrs::default();
        assert_eq!(x.insert(&[b"user.", &[b'n'; 251][..]].concat(), b""), Err(Fault::XattrsTooLarge));
        x.insert(b"user.a", &[0; 40_000]).unwrap();
        assert_eq!(x.insert(b"user.b", &[0; 40_000]), Err(Fault::XattrsTooLarge));
    }
}
