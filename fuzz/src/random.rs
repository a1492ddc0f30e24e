//! Repeatable random numbers: the same seed, the same inputs.

/// xorshift64*, good enough to shake bits.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// `seed` may be anything.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`; 0 for 0.
    pub fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        usize::try_from((self.number() >> 11).checked_rem(n).unwrap_or(0)).unwrap_or(0)
    }

    /// A length below two to the power of `bits`; short ones are as likely as long ones.
    pub fn length(&mut self, bits: usize) -> usize {
        let bits = self.below(bits);
        self.below(2 << bits)
    }

    /// One of them.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        self.number().to_be_bytes()[0]
    }
}
