//! The live span that a granule belongs to.

use super::{Bits, WORD, from_bit, highest, lowest};
use crate::atomic::Ordering;
use core::{hint::select_unpredictable, ops::Range};

impl Bits<'_> {
    /// Returns the live span that `granule` belongs to, if it does. For a reader without the lock,
    /// one that is being taken apart may be anything.
    #[inline]
    pub(in crate::jit) fn span_around(self, granule: usize) -> Option<Range<usize>> {
        let word = granule / WORD;
        let (pairs, _) = self.words[..2 * self.lines].as_chunks::<2>();
        let [used, stop] = pairs.get(word)?;
        if used.load(Ordering::Acquire) >> (granule % WORD) & 1 == 0 {
            return None;
        }
        let stop = stop.load(Ordering::Acquire);
        // The words beside it are looked at whether they are needed or not: that depends on the
        // address, and would be predicted wrongly. Before the first granule there is a stop.
        let beside = |word: usize| Some(pairs.get(word)?[1].load(Ordering::Acquire));
        let left = beside(word.wrapping_sub(1)).unwrap_or(if word == 0 { 1 << 63 } else { 0 });
        let right = beside(word + 1).unwrap_or(0);
        let (before, behind) = (stop & !from_bit(granule), stop & from_bit(granule));
        let first = word * WORD;
        let (left, base) = select_unpredictable(before != 0, (before, first), {
            (left, first.wrapping_sub(WORD))
        });
        let (right, end) =
            select_unpredictable(behind != 0, (behind, first), (right, first + WORD));
        if left == 0 || right == 0 {
            return self.long_span_around(granule);
        }
        Some(base.wrapping_add(highest(left) + 1)..end + lowest(right) + 1)
    }

    /// Returns what [`Bits::span_around`] does of a used granule whose span goes beyond the words
    /// beside its own.
    #[cold]
    #[inline(never)]
    fn long_span_around(self, granule: usize) -> Option<Range<usize>> {
        let word = granule / WORD;
        let stop = self.stop(word);
        let (before, behind) = (stop & !from_bit(granule), stop & from_bit(granule));
        let start = match Self::bit(before, highest) {
            Some(bit) => word * WORD + bit + 1,
            None => self.last_stop_before(word).map_or(0, |stop| stop + 1),
        };
        let last = match Self::bit(behind, lowest) {
            Some(bit) => word * WORD + bit,
            None => self.next_stop_behind(word)?,
        };
        Some(start..last + 1)
    }

    /// Returns the live span that starts at `granule`: `None` where nothing is live, and otherwise
    /// an error where something is that starts before. The lock is held.
    #[inline]
    pub(in crate::jit) fn span_from(self, granule: usize) -> Option<Result<Range<usize>, ()>> {
        if !self.is_used(granule) {
            return None;
        }
        if !self.starts(granule) {
            return Some(Err(()));
        }
        // The lock is held: every run has its stop bit.
        Some(Ok(granule..self.next_stop(granule)? + 1))
    }
}
