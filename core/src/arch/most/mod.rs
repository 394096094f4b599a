//! The first one of sixteen numbers above another one, and the largest of many, in no order and
//! without a branch.
//!
//! Numbers lie two a word, the lower half first, and have 31 bits.

use super::{PAIRS, rank::RANKED};
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

/// Returns which one of sixteen numbers is the first one above `key`, which has 31 bits, too;
/// sixteen if there is none.
#[inline(always)]
pub(crate) fn first_above(words: &[AtomicU64; PAIRS], key: u32) -> usize {
    by::first_above(words, key)
}

/// Returns the largest number, 0 of none.
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

#[cfg(all(test, not(loom)))]
#[path = "scalar.rs"]
mod one_by_one;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::array;

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
}
