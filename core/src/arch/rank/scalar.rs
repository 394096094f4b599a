//! One by one, where there are no vector registers that are known here.

use super::{PAIRS, rank_each};
use crate::atomic::AtomicU64;

#[inline]
pub(super) fn rank_pairs(words: &[AtomicU64; PAIRS], key: u32) -> usize {
    rank_each(words, key)
}
