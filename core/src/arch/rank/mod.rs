//! How many of sixteen sorted numbers are at most another one, without a branch.
//!
//! Numbers lie two a word, in words that others may write meanwhile: the answer is then any number
//! up to sixteen.

use crate::atomic::AtomicU64;

#[cfg(all(
    target_arch = "aarch64",
    target_feature = "neon",
    not(any(miri, all(test, loom)))
))]
#[path = "neon.rs"]
mod by;
#[cfg(not(any(
    all(
        target_arch = "aarch64",
        target_feature = "neon",
        not(any(miri, all(test, loom)))
    ),
    all(
        target_arch = "x86_64",
        target_feature = "sse2",
        not(any(miri, all(test, loom)))
    )
)))]
#[path = "scalar.rs"]
mod by;
#[cfg(all(
    target_arch = "x86_64",
    target_feature = "sse2",
    not(any(miri, all(test, loom)))
))]
#[path = "sse2.rs"]
mod by;

/// How many numbers are compared at a time.
pub(crate) const RANKED: usize = 16;

/// The words that they lie in.
pub(crate) const PAIRS: usize = RANKED / 2;

/// Returns how many numbers of 31 bits, two a word and in order from the lower half of the first,
/// are at most `key`, which has 31 bits, too.
#[inline(always)]
pub(crate) fn rank_pairs(words: &[AtomicU64; PAIRS], key: u32) -> usize {
    by::rank_pairs(words, key)
}

#[cfg(all(test, not(loom)))]
#[path = "scalar.rs"]
mod one_by_one;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::array;

    #[test]
    fn vectors_count_as_one_by_one() {
        const MOST: u32 = u32::MAX >> 1;
        for used in 0..=RANKED {
            for (first, step) in [(0, 1), (5, 3), (MOST - 120, 7), (0, MOST / 32)] {
                let number = |n: usize| match u32::try_from(n) {
                    Ok(at) if n < used => u64::from(first + at * step),
                    _ => MOST.into(),
                };
                let words: [AtomicU64; PAIRS] =
                    array::from_fn(|n| AtomicU64::new(number(2 * n) | number(2 * n + 1) << 32));
                for n in 0..RANKED {
                    let at = u32::try_from(number(n)).expect("31 bits");
                    for key in [at.saturating_sub(1), at, (at + 1).min(MOST), 0, MOST - 1] {
                        let one_by_one = one_by_one::rank_pairs(&words, key);
                        assert_eq!(rank_pairs(&words, key), one_by_one, "{used} {n} {key}");
                    }
                }
            }
        }
    }
}
