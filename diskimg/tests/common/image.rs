//! A reader of uncompressed EROFS images that asserts what the kernel would reject.

#![allow(clippy::cast_possible_truncation, reason = "test data")]

use std::collections::BTreeMap;

const BLOCK: usize = 4096;

pub(crate) struct Image {
    bytes: Vec<u8>,
}

/// An inode as a test sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) nid: u64,
    /// st_mode with the type.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) nlink: u32,
    pub(crate) mtime: (i64, u32),
    pub(crate) size: u64,
    /// Device number of devices.
    pub(crate) rdev: u32,
    /// Content of files, target of symlinks.
    pub(crate) data: Vec<u8>,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
}

impl Node {
    pub(crate) fn is_dir(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }

    pub(crate) fn is_whiteout(&self) -> bool {
        self.mode & 0o170_000 == 0o020_000 && self.rdev == 0
    }

    pub(crate) fn is_opaque(&self) -> bool {
        self.xattrs.get("trusted.overlay.opaque").is_some_and(|v| v == b"y")
    }
}

impl Image {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let image = Self { bytes };
        assert_eq!(image.u32(1024), 0xE0F5_E1E2);
        assert_eq!(image.bytes[1024 + 12], 12, "block bits");
        assert_eq!(image.u32(1024 + 80), 0, "no incompatible features");
        assert_eq!(image.u32(1024 + 36) as usize * BLOCK, image.bytes.len());
        image
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes[at..at + 2].try_into().expect("2"))
    }
    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("4"))
    }
    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().expect("8"))
    }

    /// Every path ("" for the root) with its inode.
    pub(crate) fn tree(&self) -> BTreeMap<String, Node> {
        let mut out = BTreeMap::new();
        let root = u64::from(self.u16(1024 + 14));
        self.walk(root, root, String::new(), &mut out);
        let mut nids: Vec<u64> = out.values().map(|node| node.nid).collect();
        nids.sort_unstable();
        nids.dedup();
        assert_eq!(self.u64(1024 + 16), nids.len() as u64, "number of inodes");
        out
    }

    fn walk(&self, nid: u64, parent: u64, path: String, out: &mut BTreeMap<String, Node>) {
        assert!(nid > 0);
        let node = self.inode(nid);
        if node.is_dir() {
            let mut last: Option<Vec<u8>> = None;
            let mut dots = 0;
            for (name, target, file_type) in self.dirents(&node.data) {
                assert!(last.as_ref().is_none_or(|last| *last < name), "{path}: names are sorted");
                match &*name {
                    b"." => assert_eq!((target, dots), (nid, 0)),
                    b".." => assert_eq!((target, dots), (parent, 1)),
                    _ => {
                        let sep = if path.is_empty() { "" } else { "/" };
                        let child = format!("{path}{sep}{}", String::from_utf8_lossy(&name));
                        let expect = match self.inode(target).mode >> 12 {
                            0o10 => 1,
                            0o4 => 2,
                            0o2 => 3,
                            0o6 => 4,
                            0o1 => 5,
                            0o12 => 7,
                            other => panic!("{child}: file type {other:o}"),
                        };
                        assert_eq!(file_type, expect, "{child}");
                        self.walk(target, nid, child, out);
                    }
                }
                dots += usize::from(&*name == b"." || &*name == b"..");
                last = Some(name);
            }
            assert_eq!(dots, 2, "{path}: has . and ..");
        }
        out.insert(path, node);
    }

    fn dirents(&self, data: &[u8]) -> Vec<(Vec<u8>, u64, u8)> {
        let mut out = Vec::new();
        for block in data.chunks(BLOCK) {
            let offset = |i: usize| usize::from(u16::from_le_bytes([block[i * 12 + 8], block[i * 12 + 9]]));
            let count = offset(0) / 12;
            assert!(count > 0 && offset(0) % 12 == 0);
            for i in 0..count {
                let end = if i + 1 < count { offset(i + 1) } else { block.len() };
                let mut name = block[offset(i)..end].to_vec();
                if i + 1 == count {
                    name.truncate(name.iter().position(|&b| b == 0).unwrap_or(name.len()));
                }
                let nid = u64::from_le_bytes(block[i * 12..i * 12 + 8].try_into().expect("8"));
                out.push((name, nid, block[i * 12 + 10]));
            }
        }
        out
    }

    fn inode(&self, nid: u64) -> Node {
        let meta = self.u32(1024 + 40) as usize * BLOCK;
        let at = meta + nid as usize * 32;
        let format = self.u16(at);
        let extended = format & 1 == 1;
        let icount = usize::from(self.u16(at + 2));
        let mode = self.u16(at + 4);
        let (head, size, union, uid, gid, nlink, mtime) = if extended {
            let mtime = (self.u64(at + 32).cast_signed(), self.u32(at + 40));
            let (uid, gid) = (self.u32(at + 24), self.u32(at + 28));
            (64, self.u64(at + 8), self.u32(at + 16), uid, gid, self.u32(at + 44), mtime)
        } else {
            let mtime = (self.u64(1024 + 24).cast_signed(), self.u32(1024 + 32));
            let (uid, gid) = (u32::from(self.u16(at + 24)), u32::from(self.u16(at + 26)));
            (32, u64::from(self.u32(at + 8)), self.u32(at + 16), uid, gid, self.u16(at + 6).into(), mtime)
        };
        assert!(at % BLOCK + head <= BLOCK, "inode crosses a block");
        let xattr_len = if icount == 0 { 0 } else { 12 + 4 * (icount - 1) };
        let xattrs = self.xattrs(at + head, xattr_len);
        let mut data = Vec::new();
        let mut rdev = 0;
        match mode >> 12 {
            0o10 | 0o4 | 0o12 => {
                let inline = match format >> 1 {
                    0 => 0,
                    2 => size as usize % BLOCK,
                    other => panic!("layout {other}"),
                };
                let whole = size as usize - inline;
                let start = union as usize * BLOCK;
                if whole > 0 {
                    data.extend_from_slice(&self.bytes[start..start + whole]);
                }
                if inline > 0 {
                    let tail = at + head + xattr_len;
                    assert_eq!(tail / BLOCK, (tail + inline - 1) / BLOCK, "inline data crosses a block");
                    assert_eq!(at / BLOCK, tail / BLOCK, "inline data is in the inode's block");
                    data.extend_from_slice(&self.bytes[tail..tail + inline]);
                }
            }
            _ => rdev = union,
        }
        Node { nid, mode, uid, gid, nlink, mtime, size, rdev, data, xattrs }
    }

    fn xattrs(&self, at: usize, len: usize) -> BTreeMap<String, Vec<u8>> {
        let mut out = BTreeMap::new();
        let mut pos = at + 12;
        while len > 0 && pos < at + len {
            let (name_len, index) = (usize::from(self.bytes[pos]), self.bytes[pos + 1]);
            let value_len = usize::from(self.u16(pos + 2));
            let prefix = match index {
                1 => "user.",
                2 => "system.posix_acl_access",
                3 => "system.posix_acl_default",
                4 => "trusted.",
                6 => "security.",
                other => panic!("xattr index {other}"),
            };
            let name = &self.bytes[pos + 4..pos + 4 + name_len];
            let value = &self.bytes[pos + 4 + name_len..pos + 4 + name_len + value_len];
            out.insert(format!("{prefix}{}", String::from_utf8_lossy(name)), value.to_vec());
            pos += (4 + name_len + value_len).next_multiple_of(4);
        }
        out
    }
}
