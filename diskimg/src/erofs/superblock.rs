//! `struct erofs_super_block` (Linux fs/erofs/erofs_fs.h).

/// Byte offset of the super block in the image.
pub(super) const OFFSET: u64 = 1024;

const MAGIC: u32 = 0xE0F5_E1E2;
const BLOCK_BITS: u8 = 12;
const COMPAT_SB_CHKSUM: u32 = 1;

/// What varies between images.
#[derive(Debug, Clone, Copy)]
pub(super) struct SuperBlock {
    pub(super) root_nid: u16,
    pub(super) inodes: u64,
    /// mtime of all compact inodes.
    pub(super) build_time: (i64, u32),
    pub(super) blocks: u32,
    pub(super) meta_block: u32,
    pub(super) uuid: [u8; 16],
}

impl SuperBlock {
    /// Everything from [`OFFSET`] to the end of block 0, with its checksum.
    pub(super) fn encode(&self) -> [u8; 3072] {
        let mut out = [0; 3072];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC.to_le_bytes());
        put(8, &COMPAT_SB_CHKSUM.to_le_bytes());
        put(12, &[BLOCK_BITS, 0]);
        put(14, &self.root_nid.to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(24, &self.build_time.0.to_le_bytes());
        put(32, &self.build_time.1.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        put(40, &self.meta_block.to_le_bytes());
        // 44: xattr_blkaddr stays 0, there are no shared attributes.
        put(48, &self.uuid);
        put(64, b"arca");
        let checksum = crc32c(&out);
        out[4..8].copy_from_slice(&checksum.to_le_bytes());
        out
    }
}

/// The size in blocks that an image states; nothing if these are not the bytes of [`SuperBlock::encode`].
pub(super) fn blocks(bytes: &[u8; 3072]) -> Option<u64> {
    let word = |at: usize| bytes.get(at..at + 4).and_then(|w| w.try_into().ok()).map(u32::from_le_bytes);
    let mut unsigned = *bytes;
    unsigned[4..8].fill(0);
    let fits = word(0)? == MAGIC && word(4)? == crc32c(&unsigned);
    fits.then_some(u64::from(word(36)?))
}

/// CRC-32C as the kernel's `crc32c(~0, ...)`: not inverted at the end. By a table: every start of a container checks its disks.
fn crc32c(data: &[u8]) -> u32 {
    data.iter().fold(!0, |crc, &byte| (crc >> 8) ^ CRC_OF_BYTE[usize::from(crc.to_le_bytes()[0] ^ byte)])
}

static CRC_OF_BYTE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg());
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_castagnoli() {
        // The check value of CRC-32C is e3069283, inverted at the end.
        assert_eq!(crc32c(b"123456789"), !0xe306_9283);
    }
}
