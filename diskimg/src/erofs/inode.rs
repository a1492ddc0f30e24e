//! `struct erofs_inode_compact` and `struct erofs_inode_extended`.

/// Data in consecutive blocks.
pub(super) const FLAT_PLAIN: u16 = 0;
/// The same, with the last part of a block behind the inode.
pub(super) const FLAT_INLINE: u16 = 2;

/// Size of the compact form; also the unit of inode numbers.
pub(super) const COMPACT: usize = 32;
/// Size of the extended form.
pub(super) const EXTENDED: usize = 64;

/// Fields of an inode on disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct DiskInode {
    pub(super) layout: u16,
    /// Encoded size of the extended attributes.
    pub(super) xattr_len: usize,
    /// st_mode with the file type.
    pub(super) mode: u16,
    pub(super) nlink: u32,
    pub(super) size: u64,
    /// First block, or the device number.
    pub(super) union: u32,
    /// st_ino for 32-bit callers.
    pub(super) ino: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
}

impl DiskInode {
    /// 32 bytes are enough: no field is out of range and the time is the image's.
    pub(super) fn fits_compact(&self, build_time: (i64, u32)) -> bool {
        let small = |n: u32| n <= u32::from(u16::MAX);
        self.mtime == build_time
            && small(self.uid)
            && small(self.gid)
            && small(self.nlink)
            && u32::try_from(self.size).is_ok()
    }

    /// Appends the inode in the given form.
    pub(super) fn encode(&self, extended: bool, out: &mut Vec<u8>) {
        let mut put = |bytes: &[u8]| out.extend_from_slice(bytes);
        put(&((self.layout << 1) | u16::from(extended)).to_le_bytes());
        put(&self.xattr_icount().to_le_bytes());
        put(&self.mode.to_le_bytes());
        if extended {
            put(&[0; 2]);
            put(&self.size.to_le_bytes());
            put(&self.union.to_le_bytes());
            put(&self.ino.to_le_bytes());
            put(&self.uid.to_le_bytes());
            put(&self.gid.to_le_bytes());
            put(&self.mtime.0.to_le_bytes());
            put(&self.mtime.1.to_le_bytes());
            put(&self.nlink.to_le_bytes());
            put(&[0; 16]);
        } else {
            // fits_compact() checked the ranges.
            put(&(self.nlink as u16).to_le_bytes());
            put(&(self.size as u32).to_le_bytes());
            put(&[0; 4]);
            put(&self.union.to_le_bytes());
            put(&self.ino.to_le_bytes());
            put(&(self.uid as u16).to_le_bytes());
            put(&(self.gid as u16).to_le_bytes());
            put(&[0; 4]);
        }
    }

    /// `i_xattr_icount`: the attributes' size in units of 4 bytes, as `erofs_xattr_ibody_size` counts it.
    fn xattr_icount(&self) -> u16 {
        match self.xattr_len {
            0 => 0,
            // At most 64 KiB, see xattr::MAX_ENCODED.
            len => ((len - crate::xattr::IBODY_HEADER) / 4 + 1) as u16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INODE: DiskInode = DiskInode {
        layout: FLAT_INLINE,
        xattr_len: 20,
        mode: 0o100_644,
        nlink: 1,
        size: 5,
        union: 7,
        ino: 9,
        uid: 1000,
        gid: 100,
        mtime: (50, 0),
    };

    #[test]
    fn forms_have_their_sizes() {
        let (mut compact, mut extended) = (Vec::new(), Vec::new());
        INODE.encode(false, &mut compact);
        INODE.encode(true, &mut extended);
        assert_eq!((compact.len(), extended.len()), (COMPACT, EXTENDED));
        assert_eq!(compact[..4], [4, 0, 3, 0]);
        assert_eq!(extended[..4], [5, 0, 3, 0]);
    }

    #[test]
    fn compact_only_where_it_loses_nothing() {
        assert!(INODE.fits_compact((50, 0)));
        assert!(!INODE.fits_compact((50, 1)));
        for inode in [
            DiskInode { uid: 65_536, ..INODE },
            DiskInode { gid: 65_536, ..INODE },
            DiskInode { nlink: 65_536, ..INODE },
            DiskInode { size: 1 << 32, ..INODE },
        ] {
            assert!(!inode.fits_compact((50, 0)), "{inode:?}");
        }
    }
}
