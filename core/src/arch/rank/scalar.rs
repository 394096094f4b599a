//! One number after the other, where there are no vector registers that are known here.

use super::PAIRS;
use crate::atomic::{AtomicU64, Ordering};

#[inline]
pub(super) fn rank_pairs(words: &[AtomicU64; PAIRS], key: u32) -> usize {
    let reached = |word: &AtomicU64| {
        let word = word.load(Ordering::Relaxed);
        let (low, high) = (word & u64::from(u32::MAX), word >> 32);
        usize::from(low <= key.into()) + usize::from(high <= key.into())
    };
    words.iter().map(reached).sum()
}
