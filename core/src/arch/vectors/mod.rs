//! Halves of words, several at a time, by the vector registers of the CPU.
//!
//! ```text
//!   from   │ 0   1 │ 2   3 │ 4   5 │          copied from the third half on
//!   to     │ 3   4 │ 5   6 │
//! ```
//!
//! A word's lower half is the first one. Words may be written by another thread meanwhile, which is
//! the only one that may: each is then read as it was or as it is, and an answer is any number that
//! it could be.

use crate::atomic::AtomicU64;

#[cfg(all(
    target_arch = "aarch64",
    target_endian = "little",
    target_feature = "neon",
    not(any(miri, all(test, loom)))
))]
#[path = "neon.rs"]
mod by;
#[cfg(not(any(
    all(
        target_arch = "aarch64",
        target_endian = "little",
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

/// Returns which one of sixteen numbers of 31 bits is the first one above `key`, which has 31 bits,
/// too; sixteen if there is none. Of numbers in order, as many are at most `key`.
#[inline(always)]
pub(crate) fn first_above(words: &[AtomicU64; PAIRS], key: u32) -> usize {
    by::first_above(words, key)
}

/// Returns the largest number, of 31 bits each; 0 of none.
#[inline(always)]
pub(crate) fn largest(words: &[AtomicU64]) -> u32 {
    let (twos, rest) = words.as_chunks::<2>();
    let rest = rest.iter().fold(0, |most, word| {
        let (low, high) = halves(word);
        most.max(low).max(high)
    });
    rest.max(by::largest(twos))
}

#[inline]
fn halves(word: &AtomicU64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.load(crate::atomic::Ordering::Relaxed).to_le_bytes();
    (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    )
}

/// Fills words with the halves of other ones from the nth half on. There are as many, and the
/// caller is the only one that may write any of these words.
#[inline(always)]
pub(crate) fn copy_halves(from: &[AtomicU64], nth: usize, to: &[AtomicU64]) {
    assert!(nth + 2 * to.len() <= 2 * from.len(), "as many are there");
    by::copy_halves(from, nth, to);
}

#[cfg(all(test, not(loom)))]
#[path = "scalar.rs"]
mod one_by_one;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::{array, sync::atomic::Ordering::Relaxed};

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
                        let one_by_one = one_by_one::first_above(&words, key);
                        assert_eq!(first_above(&words, key), one_by_one, "{used} {n} {key}");
                    }
                }
            }
        }
    }

    #[test]
    fn vectors_find_what_one_by_one_is_found() {
        const MOST: u32 = u32::MAX >> 1;
        for seed in 0..200_u32 {
            let number = |n: usize| {
                let n = u32::try_from(n).expect("small");
                let any = (seed * 31 + n + 1).wrapping_mul(0x9e37_79b9) >> 1;
                match seed % 4 {
                    0 => any,
                    1 => any % 5,
                    2 => MOST - any % 3,
                    _ => u32::from(n == seed % 16) * MOST,
                }
            };
            let words: [AtomicU64; PAIRS] = array::from_fn(|n| {
                let (low, high) = (number(2 * n), number(2 * n + 1));
                AtomicU64::new(u64::from(low) | u64::from(high) << 32)
            });
            for n in 0..RANKED {
                for key in [number(n), number(n).saturating_sub(1), 0, MOST - 1] {
                    let first = (0..RANKED).find(|&n| number(n) > key).unwrap_or(RANKED);
                    assert_eq!(first_above(&words, key), first);
                    assert_eq!(one_by_one::first_above(&words, key), first);
                }
            }
            for count in 0..=PAIRS {
                let most = (0..2 * count).map(number).max().unwrap_or(0);
                assert_eq!(largest(&words[..count]), most);
                let (twos, _) = words.as_chunks();
                let most = (0..RANKED).map(number).max().unwrap_or(0);
                assert_eq!(one_by_one::largest(twos), most);
            }
        }
    }

    #[test]
    fn vectors_copy_what_single_words_do() {
        let half = |n: usize| u64::try_from(n).expect("small") * 0x0101_0001 + 7;
        let from: [AtomicU64; 24] =
            array::from_fn(|n| AtomicU64::new(half(2 * n) | half(2 * n + 1) << 32));
        let to = || -> [AtomicU64; 24] { array::from_fn(|_| AtomicU64::new(u64::MAX)) };
        for nth in 0..48 {
            for count in 0..=(48 - nth) / 2 {
                let (vectors, single) = (to(), to());
                copy_halves(&from, nth, &vectors[..count]);
                one_by_one::copy_halves(&from, nth, &single[..count]);
                for n in 0..24 {
                    let word = single[n].load(Relaxed);
                    assert_eq!(vectors[n].load(Relaxed), word, "{nth} {count} {n}");
                    let right = half(nth + 2 * n) | half(nth + 2 * n + 1) << 32;
                    assert_eq!(word, if n < count { right } else { u64::MAX });
                }
            }
        }
    }
}
