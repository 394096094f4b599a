//! Word by word, on any CPU.

use crate::atomic::{AtomicU64, Ordering};

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
