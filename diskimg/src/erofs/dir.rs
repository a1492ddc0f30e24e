//! Directory blocks: `struct erofs_dirent` records, then the names, all names in byte order so that the
//! kernel can search by halving.

const DIRENT: usize = 12;
const BLOCK: usize = crate::data::BLOCK as usize;

/// One name of a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dirent<'a> {
    pub(super) name: &'a [u8],
    pub(super) id: u32,
    /// `EROFS_FT_*`, the same numbers as `FT_*`.
    pub(super) file_type: u8,
}

/// Number of names in each block, and bytes used in the last.
pub(super) struct Shape {
    pub(super) counts: Vec<usize>,
    pub(super) last_used: usize,
}

impl Shape {
    /// Bytes of the directory: all blocks but the last are full.
    pub(super) fn size(&self) -> u64 {
        ((self.counts.len() - 1) * BLOCK + self.last_used) as u64
    }
}

/// Cuts sorted names into blocks.
pub(super) fn shape(entries: &[Dirent<'_>]) -> Shape {
    let mut counts = Vec::new();
    let (mut count, mut used) = (0, 0);
    for entry in entries {
        let need = DIRENT + entry.name.len();
        if used + need > BLOCK {
            counts.push(count);
            (count, used) = (0, 0);
        }
        count += 1;
        used += need;
    }
    counts.push(count);
    Shape { counts, last_used: used }
}

/// The directory's bytes; `nid` gives an inode's number.
pub(super) fn encode(entries: &[Dirent<'_>], shape: &Shape, nid: impl Fn(u32) -> u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(shape.counts.len() * BLOCK);
    let mut rest = entries;
    for &count in &shape.counts {
        let (block, more) = rest.split_at(count);
        rest = more;
        out.resize(out.len().next_multiple_of(BLOCK), 0);
        let mut name_offset = count * DIRENT;
        for entry in block {
            out.extend_from_slice(&nid(entry.id).to_le_bytes());
            out.extend_from_slice(&(name_offset as u16).to_le_bytes());
            out.extend_from_slice(&[entry.file_type, 0]);
            name_offset += entry.name.len();
        }
        for entry in block {
            out.extend_from_slice(entry.name);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_filled_but_never_crossed() {
        let names: Vec<String> = (0..1000).map(|i| format!("{i:0>60}")).collect();
        let entries: Vec<_> =
            names.iter().map(|n| Dirent { name: n.as_bytes(), id: 7, file_type: 1 }).collect();
        let shape = shape(&entries);
        // 72 bytes each: 56 in a block.
        assert_eq!(shape.counts.len(), 18);
        assert_eq!((shape.counts[0], shape.counts[17], shape.last_used), (56, 48, 48 * 72));
        let bytes = encode(&entries, &shape, |id| u64::from(id) * 3);
        assert_eq!(bytes.len() as u64, shape.size());
        let second = &bytes[BLOCK..];
        assert_eq!(second[..12], [21, 0, 0, 0, 0, 0, 0, 0, (56u16 * 12).to_le_bytes()[0], 2, 1, 0]);
        assert_eq!(&second[56 * 12..56 * 12 + 60], names[56].as_bytes());
    }
}
