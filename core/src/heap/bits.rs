//! A bitmap of the granules of a segment, guarded by a lock: atomics keep its holder from needing
//! exclusive references, and cost nothing.

use super::segment::GRANULES;
use core::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

const WORDS: usize = GRANULES / 64;

pub(super) struct Bits([AtomicU64; WORDS]);

/// Yields the words that a range of bits lies in, and which bits of each.
fn parts(range: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    (range.start / 64..range.end.div_ceil(64)).map(move |word| {
        let first = range.start.saturating_sub(word * 64);
        let behind = (range.end - word * 64).min(64);
        (word, (u64::MAX << first) & (u64::MAX >> (64 - behind)))
    })
}

impl Bits {
    pub(super) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    pub(super) fn word(&self, n: usize) -> u64 {
        self.0[n].load(Relaxed)
    }

    pub(super) fn set(&self, range: Range<usize>) {
        for (n, mask) in parts(range) {
            self.0[n].store(self.word(n) | mask, Relaxed);
        }
    }

    pub(super) fn clear(&self, range: Range<usize>) {
        for (n, mask) in parts(range) {
            self.0[n].store(self.word(n) & !mask, Relaxed);
        }
    }

    pub(super) fn copy(&self, from: &Self) {
        for n in 0..WORDS {
            self.0[n].store(from.word(n), Relaxed);
        }
    }

    pub(super) fn all(&self, range: Range<usize>) -> bool {
        parts(range).all(|(n, mask)| self.word(n) & mask == mask)
    }

    pub(super) fn none(&self, range: Range<usize>) -> bool {
        parts(range).all(|(n, mask)| self.word(n) & mask == 0)
    }

    /// Returns the first run of ones from bit `from` on.
    pub(super) fn run(&self, from: usize) -> Option<Range<usize>> {
        Self::run_by(from, |n| self.word(n))
    }

    /// Returns the first run of zeros within `range`.
    pub(super) fn gap(&self, range: Range<usize>) -> Option<Range<usize>> {
        let run = Self::run_by(range.start, |n| !self.word(n))?;
        (run.start < range.end).then(|| run.start..run.end.min(range.end))
    }

    /// Returns the first run of ones in `words` from bit `from` on.
    pub(super) fn run_by(from: usize, words: impl Fn(usize) -> u64) -> Option<Range<usize>> {
        let first = Self::next(from, &words)?;
        let end = Self::next(first, |n| !words(n)).unwrap_or(GRANULES);
        Some(first..end)
    }

    /// Returns the last run of ones in `words` below bit `end`.
    pub(super) fn last_run_by(end: usize, words: impl Fn(usize) -> u64) -> Option<Range<usize>> {
        let last = Self::last(end, &words)?;
        let start = Self::last(last, |n| !words(n)).map_or(0, |zero| zero + 1);
        Some(start..last + 1)
    }

    /// Returns the last one in `words` below bit `end`.
    fn last(end: usize, words: impl Fn(usize) -> u64) -> Option<usize> {
        parts(0..end)
            .map(|(n, mask)| (n, words(n) & mask))
            .filter(|(_, bits)| *bits != 0)
            .last()
            .map(|(n, bits)| n * 64 + bits.ilog2() as usize)
    }

    /// Returns how many ones there are in a range.
    pub(super) fn count(&self, range: &Range<usize>) -> usize {
        parts(range.clone())
            .map(|(n, mask)| (self.word(n) & mask).count_ones() as usize)
            .sum()
    }

    /// Returns how many ones there are in `words`.
    pub(super) fn count_by(words: impl Fn(usize) -> u64) -> usize {
        (0..WORDS).map(|n| words(n).count_ones() as usize).sum()
    }

    /// Returns the first one in `words` from bit `from` on.
    fn next(from: usize, words: impl Fn(usize) -> u64) -> Option<usize> {
        let mut mask = u64::MAX << (from % 64);
        for n in from / 64..WORDS {
            let bits = words(n) & mask;
            if bits != 0 {
                return Some(n * 64 + bits.trailing_zeros() as usize);
            }
            mask = u64::MAX;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_gaps_match_single_bits() {
        for (start, end) in [
            (0, 1),
            (3, 64),
            (60, 70),
            (64, 128),
            (63, 129),
            (1000, 1024),
            (0, 1024),
        ] {
            let bits = Bits::new();
            bits.set(start..end);
            let is_set = |n: usize| bits.word(n / 64) >> (n % 64) & 1 == 1;
            assert!((0..GRANULES).all(|n| is_set(n) == (start..end).contains(&n)));
            assert_eq!(bits.run(0), Some(start..end));
            assert_eq!(bits.run(end), None);
            let last = |below| Bits::last_run_by(below, |n| bits.word(n));
            assert_eq!(last(GRANULES), Some(start..end));
            assert_eq!(last(end), Some(start..end));
            assert_eq!(last(start + 1), Some(start..start + 1));
            assert_eq!(last(start), None);
            assert_eq!(Bits::count_by(|n| bits.word(n)), end - start);
            assert_eq!(bits.count(&(start + 1..GRANULES)), end - start - 1);
            assert_eq!(bits.gap(start..end), None);
            assert!(bits.all(start..end));
            assert!(end == GRANULES || bits.none(end..GRANULES));
            bits.clear(start..end);
            assert_eq!(bits.run(0), None);
            assert_eq!(bits.gap(start..end), Some(start..end));
        }
    }
}
