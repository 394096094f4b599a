//! One number after the other, where there are no vector registers that are known here.

use super::{PAIRS, RANKED, halves};
use crate::atomic::AtomicU64;

#[inline]
pub(super) fn first_above(words: &[AtomicU64; PAIRS], key: u32) -> usize {
    let mut numbers = words.iter().map(halves).flat_map(|(low, high)| [low, high]);
    numbers.position(|n| n > key).unwrap_or(RANKED)
}

#[inline]
pub(super) fn largest(words: &[[AtomicU64; 2]]) -> u32 {
    words
        .as_flattened()
        .iter()
        .map(halves)
        .fold(0, |most, (low, high)| most.max(low).max(high))
}
