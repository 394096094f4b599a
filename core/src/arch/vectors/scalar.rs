//! One number after the other, where there are no vector registers that are known here.

use super::{PAIRS, RANKED, halves};
use crate::atomic::{AtomicU64, Ordering};

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

pub(super) fn copy_halves(from: &[AtomicU64], nth: usize, to: &[AtomicU64]) {
    let mut from = from.iter().skip(nth / 2).map(|w| w.load(Ordering::Relaxed));
    if nth.is_multiple_of(2) {
        for (to, word) in to.iter().zip(from) {
            to.store(word, Ordering::Relaxed);
        }
        return;
    }
    let mut low = from.next().unwrap_or(0);
    for (to, next) in to.iter().zip(from) {
        to.store(low >> 32 | next << 32, Ordering::Relaxed);
        low = next;
    }
}
