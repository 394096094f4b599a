//! Copying halves of words, several at a time.
//!
//! ```text
//!   from   │ 0   1 │ 2   3 │ 4   5 │          from the third half on
//!   to     │ 3   4 │ 5   6 │
//! ```
//!
//! Words that are copied to may be read by others meanwhile, who get old ones or new ones, each as
//! a whole; those that are copied from are not written by anybody.

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

/// Fills words with the halves of other ones from the nth half on: a word's lower half is the first
/// one. There are as many; the caller is the only one that may write any of these words.
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
