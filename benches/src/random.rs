//! Seeded random numbers.

use std::ops::RangeInclusive;

/// A small generator of random numbers, xorshift64* (Vigna, "An experimental exploration of
/// Marsaglia's xorshift generators, scrambled", ACM TOMS 42, 2016). The same seed gives the same
/// sequence.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts the sequence of `seed`. Zero, where the generator would stand still, is replaced.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(if seed == 0 {
            0x9e37_79b9_7f4a_7c15
        } else {
            seed
        })
    }

    /// Returns the next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Returns a number below `bound`; zero where that is zero.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the upper half of the product is below the bound"
    )]
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// Returns a number in `range`.
    pub fn within(&mut self, range: &RangeInclusive<usize>) -> usize {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    /// Puts `values` into a random order.
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn ranges_are_kept_and_filled() {
        let mut random = Random::new(1);
        let mut seen = [false; 5];
        for _ in 0..1000 {
            seen[random.within(&(16..=20)) - 16] = true;
        }
        assert_eq!(seen, [true; 5]);
    }

    #[test]
    fn shuffling_loses_nothing() {
        let mut values: Vec<usize> = (0..1000).collect();
        Random::new(2).shuffle(&mut values);
        assert!(!values.is_sorted());
        values.sort_unstable();
        assert!(values.into_iter().eq(0..1000));
    }
}
