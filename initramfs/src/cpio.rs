//! Writer of the "newc" cpio format, as the kernel reads it
//! (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Deterministic: no clock, no owner, no inode number of the machine that builds enters the archive.

/// First bytes of every member.
const MAGIC: &str = "070701";
/// Name of the member that ends an archive.
const TRAILER: &str = "TRAILER!!!";
/// Members and their data start on multiples of this.
const ALIGN: usize = 4;
/// The archive's length is a multiple of this, so that another one may be appended.
const BLOCK: usize = 512;

/// What a member is; `mode` holds permission bits only.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind<'a> {
    /// A regular file.
    File {
        /// Permission bits.
        mode: u32,
        /// The whole content.
        content: &'a [u8],
    },
    /// A directory.
    Folder {
        /// Permission bits.
        mode: u32,
    },
    /// A character device: only numbers in a header, so that no root is needed to make one.
    CharDevice {
        /// Permission bits.
        mode: u32,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// Why a member cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Sizes are 32 bits in this format.
    #[error("{0}: a member of a cpio archive must be smaller than 4 GiB")]
    TooLarge(String),
}

/// An archive under construction; members keep the order in which they are added.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    members: u32,
}

/// The header fields that differ between members.
struct Header<'a> {
    name: &'a str,
    inode: u32,
    mode: u32,
    links: u32,
    size: u32,
    device: (u32, u32),
}

impl Archive {
    /// Appends a member called `name` (no leading slash; parents first).
    pub(crate) fn add(&mut self, name: &str, kind: Kind<'_>) -> Result<(), Error> {
        let (mode, links, content, device): (u32, u32, &[u8], _) = match kind {
            Kind::File { mode, content } => (0o100_000 | mode, 1, content, (0, 0)),
            Kind::Folder { mode } => (0o040_000 | mode, 2, &[], (0, 0)),
            Kind::CharDevice { mode, major, minor } => (0o020_000 | mode, 1, &[], (major, minor)),
        };
        let size = u32::try_from(content.len()).map_err(|_| Error::TooLarge(name.to_owned()))?;
        // Numbered in order: the kernel takes equal numbers with several links for hard links.
        self.members += 1;
        self.header(&Header { name, inode: self.members, mode, links, size, device });
        self.bytes.extend_from_slice(content);
        self.pad(ALIGN);
        Ok(())
    }

    /// Ends the archive and hands out its bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.header(&Header { name: TRAILER, inode: 0, mode: 0, links: 1, size: 0, device: (0, 0) });
        self.pad(BLOCK);
        self.bytes
    }

    fn header(&mut self, header: &Header<'_>) {
        let name_size = header.name.len() as u64 + 1;
        let fields: [u64; 13] = [
            header.inode.into(),
            header.mode.into(),
            0, // uid
            0, // gid
            header.links.into(),
            0, // mtime
            header.size.into(),
            0, // major and minor of the device it lies on
            0,
            header.device.0.into(), // major and minor of the device it is
            header.device.1.into(),
            name_size,
            0, // checksum, unused in this variant
        ];
        self.bytes.extend_from_slice(MAGIC.as_bytes());
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(header.name.as_bytes());
        self.bytes.push(0);
        self.pad(ALIGN);
    }

    fn pad(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_laid_out_as_the_format_says() {
        let mut archive = Archive::default();
        archive.add("init", Kind::File { mode: 0o755, content: b"abcde" }).unwrap();
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        // magic, ino, mode, uid, gid, nlink, mtime, size, dev major/minor, rdev major/minor, name size, check
        let header = "070701\
            00000001000081ED000000000000000000000001000000000000000500000000000000000000000000000000\
            0000000500000000";
        assert_eq!(&bytes[..110], header.as_bytes());
        // 110 bytes of header and 5 of name, padded to 116; 5 bytes of data, padded to 124.
        assert_eq!(&bytes[110..116], b"init\0\0");
        assert_eq!(&bytes[116..124], b"abcde\0\0\0");
        assert_eq!(&bytes[124..130], b"070701");
        assert!(text.contains("TRAILER!!!"));
        assert_eq!(bytes.len() % BLOCK, 0);
    }

    #[test]
    fn device_numbers_are_in_the_header() {
        let mut archive = Archive::default();
        archive.add("console", Kind::CharDevice { mode: 0o600, major: 5, minor: 1 }).unwrap();
        let bytes = archive.finish();
        assert_eq!(&bytes[14..22], b"00002180");
        assert_eq!(&bytes[78..94], b"0000000500000001");
    }
}
