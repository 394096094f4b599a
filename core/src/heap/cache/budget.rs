//! How much a thread may ask for before it looks at the clock, and how many blocks it takes from a
//! bin at once.

use super::Cache;
use crate::atomic::Ordering::Relaxed;

/// Blocks that a magazine gets at once at first. Twice as many each time, until a tick finds them
/// unused.
pub(super) const BATCH: u8 = 4;

/// Bytes that a thread may ask for before it looks at the clock for the first time.
pub(super) const BUDGET: u64 = 16 << 10;

/// The least and the most that it may ask for between two looks, later.
const BUDGET_LEAST: u64 = 1 << 10;

const BUDGET_MOST: u64 = 256 << 10;

/// Bytes of it that a call for a block without a class uses up: a sixteenth of the greatest.
const BIG: usize = 16 << 10;

/// How many times a thread looks at the clock, about, in the time after which free memory goes
/// back.
const LOOKS: u64 = 16;

/// How many times as often it looks while pages of slabs are being given back.
const SOON: u64 = 4;

/// The bytes that [`Cache::hurry`] takes from a budget to use it up: more than a thread ever asks
/// for.
const HURRY: u64 = 1 << 62;

impl Cache {
    /// Counts what is asked for; says whether the thread need not look at the clock yet. Only the
    /// thread that has the cache does.
    #[inline]
    pub(in crate::heap) fn count(&self, bytes: usize) -> bool {
        let left = self.budget.load(Relaxed).wrapping_sub(bytes as u64);
        self.budget.store(left, Relaxed);
        left.cast_signed() >= 0
    }

    /// Counts a call for a block without a class, which asks for `bytes`, or frees one and asks for
    /// none; says whether the thread need not look at the clock yet. Only the thread that has the
    /// cache does.
    pub(in crate::heap) fn count_big(&self, bytes: usize) -> bool {
        // Such calls are few and long: by their bytes each would use a budget up.
        let granted = self.granted.load(Relaxed).wrapping_add(bytes as u64);
        self.granted
            .store(granted.wrapping_sub(BIG as u64), Relaxed);
        self.count(BIG)
    }

    /// Says whether the thread has used up what it may ask for before it looks at the clock.
    #[inline]
    pub(in crate::heap) fn is_due(&self) -> bool {
        self.budget.load(Relaxed).cast_signed() < 0
    }

    /// Begins to count for a thread that looks at the clock now, if there is one; `period_ms` is
    /// how long memory stays free before it goes back. A thread that is to look `soon` may ask for
    /// little.
    pub(in crate::heap) fn grant(&self, now_ms: Option<u64>, period_ms: u64, soon: bool) {
        let requested = self.requested();
        let mut grant = self.grant.load(Relaxed);
        if let Some(now_ms) = now_ms {
            let since = now_ms.saturating_sub(self.looked.swap(now_ms, Relaxed));
            if since > period_ms / LOOKS {
                grant = (grant / 2).max(BUDGET_LEAST);
            } else if since < period_ms / LOOKS / 2 && !soon {
                grant = (grant * 2).min(BUDGET_MOST);
            }
            self.grant.store(grant, Relaxed);
        }
        if soon {
            grant = (grant / SOON).max(BUDGET_LEAST);
        }
        // So that the next look comes after as much, whatever this thread asked for at once.
        self.granted.store(requested.wrapping_add(grant), Relaxed);
        self.budget.store(grant, Relaxed);
    }

    /// Returns the bytes that were ever asked for by it.
    pub(in crate::heap) fn requested(&self) -> u64 {
        let mut left = self.budget.load(Relaxed);
        if left.cast_signed() < -(HURRY / 2).cast_signed() {
            left = left.wrapping_add(HURRY);
        }
        self.granted.load(Relaxed).wrapping_sub(left)
    }

    /// Has the thread that has the cache take a slow path at its next call. One that is in a call
    /// at this moment may not see it, and takes one soon by itself.
    pub(in crate::heap) fn hurry(&self) {
        let left = self.budget.load(Relaxed);
        if left.cast_signed() >= 0 {
            let _ = self
                .budget
                .compare_exchange(left, left.wrapping_sub(HURRY), Relaxed, Relaxed);
        }
        self.window_len.store(0, Relaxed);
    }

    /// Returns how many blocks a magazine gets that is empty, `most` at most and at least one.
    pub(in crate::heap) fn batch(&self, class: usize, most: u32) -> u32 {
        let batch = self.batches[class].load(Relaxed);
        self.batches[class].store(batch.saturating_mul(2), Relaxed);
        u32::from(batch).min(most).max(1)
    }

    /// Has magazines begin with few blocks again.
    pub(in crate::heap) fn begin_small(&self) {
        for batch in &self.batches {
            batch.store(BATCH, Relaxed);
        }
    }
}
