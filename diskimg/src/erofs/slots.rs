//! Places for inodes in the metadata area.

/// Size of a metadata block.
const BLOCK: u64 = crate::data::BLOCK;
/// Inode numbers count units of this size.
pub(super) const SLOT: u64 = 32;
/// Blocks with room left that are remembered.
const OPEN: usize = 64;

/// Hands out places, filling gaps that inline data leaves.
pub(super) struct Slots {
    /// (block, bytes used), oldest first.
    open: Vec<(u64, u64)>,
    blocks: u64,
}

impl Slots {
    /// The first slot stays empty: inode number 0 means "no entry" to some readers of directories.
    pub(super) fn new() -> Self {
        Self { open: vec![(0, SLOT)], blocks: 1 }
    }

    /// Blocks used so far.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Byte offset for `need` bytes. They cross no block boundary (inode, inline data and a symlink's target
    /// must not), unless they are larger than a block, which only attributes can be.
    pub(super) fn place(&mut self, need: u64) -> u64 {
        let need = need.next_multiple_of(SLOT);
        if let Some(at) = self.open.iter().position(|&(_, used)| used + need <= BLOCK) {
            let (block, used) = self.open[at];
            if used + need == BLOCK {
                self.open.remove(at);
            } else {
                self.open[at].1 += need;
            }
            return block * BLOCK + used;
        }
        let first = self.blocks;
        self.blocks += need.div_ceil(BLOCK);
        let used = need % BLOCK;
        if used > 0 {
            if self.open.len() == OPEN {
                self.open.remove(0);
            }
            self.open.push((self.blocks - 1, used));
        }
        first * BLOCK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_and_blocks_not_crossed() {
        let mut slots = Slots::new();
        assert_eq!(slots.place(64), 32);
        assert_eq!(slots.place(4033), 4096);
        assert_eq!(slots.place(32), 96);
        assert_eq!(slots.place(40), 128);
        assert_eq!(slots.place(10_000), 2 * 4096);
        assert_eq!(slots.place(2000), 192);
        assert_eq!(slots.place(2240), 4 * 4096 + 1824, "behind the large one");
        assert_eq!(slots.blocks(), 5);
    }
}
