//! Sparse files: old GNU headers (`S`) and the three PAX forms GNU tar writes. EROFS gets the whole file;
//! runs of zeros become holes of the image file.

use super::number;

/// Bound on the pieces of one file, so that a map cannot eat memory.
pub(super) const MAX_PIECES: usize = 65_536;

/// Where the stored bytes of a sparse file belong.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct SparseMap {
    /// (offset, length), ascending and disjoint, as stored one after the other.
    pub(super) pieces: Vec<(u64, u64)>,
    /// Size of the file with its holes.
    pub(super) real_size: u64,
}

impl SparseMap {
    /// Checks order and bounds; `stored` is what the archive holds of the file.
    pub(super) fn is_valid(&self, stored: u64) -> bool {
        let mut end = 0u64;
        let mut sum = 0u64;
        for &(offset, len) in &self.pieces {
            if offset < end {
                return false;
            }
            match offset.checked_add(len) {
                Some(e) if e <= self.real_size => end = e,
                _ => return false,
            }
            sum += len;
        }
        sum == stored
    }

    /// Adds the entries of an old GNU header or its extension (24 bytes each). `false` if one is malformed.
    pub(super) fn add_gnu(&mut self, entries: &[u8]) -> bool {
        for entry in entries.chunks_exact(24) {
            if entry[0] == 0 {
                break;
            }
            let (Some(offset), Some(len)) =
                (number::parse_unsigned(&entry[..12]), number::parse_unsigned(&entry[12..]))
            else {
                return false;
            };
            self.pieces.push((offset, len));
        }
        self.pieces.len() <= MAX_PIECES
    }
}

/// The `GNU.sparse.*` records of a PAX header.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    /// `GNU.sparse.name`: the file's true name.
    pub(super) name: Option<Vec<u8>>,
    /// `GNU.sparse.realsize` (1.0) or `GNU.sparse.size` (0.x).
    pub(super) real_size: Option<u64>,
    /// `GNU.sparse.major` = 1: the map precedes the data.
    pub(super) map_in_data: bool,
    /// `GNU.sparse.map` (0.1), or offset and numbytes records (0.0), as a flat list.
    numbers: Vec<u64>,
    has_map: bool,
}

impl PaxSparse {
    /// Takes one record without the `GNU.sparse.` prefix; `false` if malformed.
    pub(super) fn record(&mut self, key: &[u8], value: &[u8]) -> bool {
        let number = super::pax::decimal(value);
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"major" => self.map_in_data = number == Some(1),
            b"realsize" | b"size" => match number {
                Some(size) => self.real_size = Some(size),
                None => return false,
            },
            b"offset" | b"numbytes" => {
                self.has_map = true;
                match number {
                    Some(n) => self.numbers.push(n),
                    None => return false,
                }
            }
            b"map" => {
                self.has_map = true;
                self.numbers.clear();
                for part in value.split(|&b| b == b',').filter(|part| !part.is_empty()) {
                    match super::pax::decimal(part) {
                        Some(n) => self.numbers.push(n),
                        None => return false,
                    }
                }
            }
            _ => {}
        }
        self.numbers.len() <= 2 * MAX_PIECES
    }

    /// The map of the 0.x forms; `Some(None)` if it is malformed.
    pub(super) fn inline_map(&self) -> Option<Option<SparseMap>> {
        if self.map_in_data || !self.has_map {
            return None;
        }
        let Some(real_size) = self.real_size else { return Some(None) };
        if !self.numbers.len().is_multiple_of(2) {
            return Some(None);
        }
        let pieces = self.numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        Some(Some(SparseMap { pieces, real_size }))
    }
}
