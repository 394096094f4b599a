//! Runs of granules: taken, freed, joined and listed. The lock is held for all of it.

use super::{Bits, WORD, from_bit, lowest, masks, up_to_bit};
use crate::atomic::{AtomicU64, Ordering};
use core::ops::Range;

impl<'a> Bits<'a> {
    /// Makes a range of granules a span if it is just one free run. The lock is held.
    #[inline(always)]
    pub(in crate::jit) fn take_run(self, run: &Range<usize>) -> bool {
        let (word, last) = (run.start / WORD, run.end - 1);
        if last >= self.count || !self.starts(run.start) {
            return false;
        }
        let (used, stop) = self.pair(word);
        if last / WORD == word {
            let mask = from_bit(run.start) & up_to_bit(last);
            let old = used.load(Ordering::Relaxed);
            if old & mask != 0 || stop.load(Ordering::Relaxed) & mask != 1 << (last % WORD) {
                return false;
            }
            used.store(old | mask, Ordering::Release);
            return true;
        }
        Self::take_long_run(self.words, self.count, run.start, run.end)
    }

    /// Does what [`Bits::take_run`] does of a run in several words.
    #[inline(never)]
    fn take_long_run(words: &'a [AtomicU64], count: usize, start: usize, end: usize) -> bool {
        // No summaries are looked at.
        let bits = Self::new(words, count, 0);
        let whole = bits.is_free_run(&(start..end));
        if whole {
            bits.set_used(start..end, true);
        }
        whole
    }

    /// Says whether a range of granules is just one free run. The lock is held.
    #[inline]
    pub(in crate::jit) fn is_free_run(self, run: &Range<usize>) -> bool {
        let last = run.end - 1;
        last < self.count
            && self.starts(run.start)
            && masks(run.clone()).all(|(word, mask)| {
                let end = if word == last / WORD {
                    1 << (last % WORD)
                } else {
                    0
                };
                self.used(word) & mask == 0 && self.stop(word) & mask == end
            })
    }

    /// Returns where the run starts that a granule belongs to. The lock is held.
    #[inline]
    pub(in crate::jit) fn run_start(self, granule: usize) -> usize {
        self.last_stop(granule).map_or(0, |stop| stop + 1)
    }

    /// Yields the free runs that start in a word, in order. The lock is held.
    #[inline]
    pub(in crate::jit) fn free_runs_from(
        self,
        word: usize,
    ) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let first = word * WORD;
        let (mut free, stop) = (!self.used(word), self.stop(word));
        if first + WORD > self.count {
            free &= up_to_bit(self.count - 1);
        }
        if free & 1 == 1 && !self.starts(first) {
            // A run that comes over from the word before does not start here.
            free &= Self::bit(stop, lowest).map_or(0, |end| !up_to_bit(end));
        }
        core::iter::from_fn(move || {
            let start = Self::bit(free, lowest)?;
            let Some(end) = Self::bit(stop & from_bit(start), lowest) else {
                free = 0;
                // The lock is held: every run has its stop bit.
                return Some(first + start..self.next_stop_behind(word)? + 1);
            };
            free &= !up_to_bit(end);
            Some(first + start..first + end + 1)
        })
    }

    /// Makes a part of a free run a span. The lock is held.
    #[inline]
    pub(in crate::jit) fn allocate(self, run: &Range<usize>, span: Range<usize>) {
        if span.start > run.start {
            self.set_stop(span.start - 1);
        }
        if span.end < run.end {
            self.set_stop(span.end - 1);
        }
        self.set_used(span, true);
    }

    /// Makes the first granules of a free run a span. The lock is held.
    #[inline]
    pub(in crate::jit) fn allocate_first(self, run: &Range<usize>, need: usize) {
        let end = run.start + need;
        if end < run.end {
            self.set_stop(end - 1);
        }
        self.set_used(run.start..end, true);
    }

    /// Frees the tail of a live span behind its first `keep` granules; all of it for zero. Returns
    /// the free run that this makes, beside which others may lie. The lock is held.
    #[inline]
    pub(in crate::jit) fn free_tail(self, span: Range<usize>, keep: usize) -> Range<usize> {
        let free = span.start + keep..span.end;
        self.set_used(free.clone(), false);
        if keep > 0 {
            self.set_stop(free.start - 1);
        }
        free
    }

    /// Makes one run of a free run and of the one that ends where it starts, if there is one. The
    /// lock is held.
    #[inline]
    pub(in crate::jit) fn join_left(self, run: &mut Range<usize>) -> bool {
        if run.start == 0 || self.is_used(run.start - 1) {
            return false;
        }
        let boundary = run.start - 1;
        run.start = self.last_stop(boundary).map_or(0, |stop| stop + 1);
        self.clear_stop(boundary);
        true
    }

    /// Makes one run of the free ones that meet at a granule. The lock is held.
    #[inline]
    pub(in crate::jit) fn join(self, granule: usize) {
        self.clear_stop(granule - 1);
    }

    /// Makes one run of a free run and of the one that starts where it ends, if there is one. The
    /// lock is held.
    #[inline]
    pub(in crate::jit) fn join_right(self, run: &mut Range<usize>) -> bool {
        if run.end == self.count || self.is_used(run.end) {
            return false;
        }
        // The lock is held: every run has its stop bit.
        let Some(stop) = self.next_stop(run.end) else {
            return false;
        };
        self.clear_stop(run.end - 1);
        run.end = stop + 1;
        true
    }

    /// Returns where spans start in a word, and its stop bits. The lock is held.
    #[inline]
    pub(in crate::jit) fn starts_in(self, word: usize) -> (u64, u64) {
        let stops = self.stop(word);
        let before = match word.checked_sub(1) {
            Some(before) => self.stop(before) >> (WORD - 1),
            None => 1,
        };
        (self.used(word) & (stops << 1 | before), stops)
    }

    /// Returns where the span ends that starts at a granule. The lock is held, or the span is the
    /// caller's.
    #[inline]
    pub(in crate::jit) fn end_of(self, start: usize) -> usize {
        // The lock is held: every run has its stop bit.
        self.next_stop(start).map_or(self.count, |stop| stop + 1)
    }

    /// Yields the maximal runs of used granules, in order. The lock is held.
    pub(in crate::jit) fn used_runs(self) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let mut at = 0;
        core::iter::from_fn(move || {
            let start = self.next_where(at, true)?;
            let end = self.next_where(start, false).unwrap_or(self.count);
            at = end;
            Some(start..end)
        })
    }

    /// Returns the first granule from `from` on that is used, or is not.
    fn next_where(self, from: usize, used: bool) -> Option<usize> {
        masks(from..self.count).find_map(|(word, mask)| {
            let bits = self.used(word);
            let found = mask & if used { bits } else { !bits };
            Self::bit(found, lowest).map(|bit| word * WORD + bit)
        })
    }
}
