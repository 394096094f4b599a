//! Randomness that a seed repeats.

/// SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014): small,
/// and more than random enough for the choice of test operations.
#[derive(Clone, Debug)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// Starts at `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Returns the next number.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = self.state;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns the next number as an address or a size.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "any bits do, on 32-bit hosts the low ones"
    )]
    pub const fn next_usize(&mut self) -> usize {
        self.next_u64() as usize
    }

    /// Returns a number below `bound`, which is not zero. The bias does not matter to a test.
    pub const fn below(&mut self, bound: usize) -> usize {
        self.next_usize() % bound
    }

    /// Returns a number from `least` to `most`, both included.
    pub const fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    /// Shuffles `items` (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for n in (1..items.len()).rev() {
            items.swap(n, self.below(n + 1));
        }
    }
}
