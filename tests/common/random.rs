//! Numbers that a seed repeats.

/// Marsaglia's xorshift64. A seed is not zero.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Returns a number of 32 bits.
    pub(crate) fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 32).expect("32 bits")
    }

    /// Returns a number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.next() % bound
    }

    /// Returns a number below one of these.
    pub(crate) fn up_to(&mut self, bounds: [usize; 3]) -> usize {
        let bound = bounds[self.below(3)];
        self.below(bound)
    }
}
