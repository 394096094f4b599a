//! Which granules have memory: how it comes, goes back, and is counted.

use super::Segment;
use crate::{heap::bits::Bits, provider::Purged};
use core::{ops::Range, sync::atomic::Ordering::Relaxed};

impl Segment {
    /// Returns which granules can be written, to [restore](Segment::restore_access).
    pub(in crate::heap) fn take_access(&self, part: &Range<usize>) -> Bits {
        let before = Bits::new();
        before.copy(&self.committed);
        self.committed.clear(part.clone());
        before
    }

    pub(in crate::heap) fn restore_access(&self, before: &Bits) {
        self.committed.copy(before);
    }

    /// Says whether memory comes by large pages.
    pub(in crate::heap) fn has_large_pages(&self) -> bool {
        self.large.load(Relaxed) != 0
    }

    /// Says whether no granule can be written.
    pub(in crate::heap) fn are_empty(&self, part: &Range<usize>) -> bool {
        self.committed.none(part.clone())
    }

    /// Returns how many borders there are in and around `part` between granules that can be written
    /// and others.
    pub(in crate::heap) fn borders(&self, part: &Range<usize>) -> usize {
        let is_writable = |n: usize| n < self.granules() && !self.committed.none(n..n + 1);
        let is_border = |n: usize| is_writable(n) != (n != 0 && is_writable(n - 1));
        (part.start..=part.end).filter(|n| is_border(*n)).count()
    }

    /// Returns the first run within `part` that cannot be written.
    pub(in crate::heap) fn uncommitted(&self, part: &Range<usize>) -> Option<Range<usize>> {
        self.committed.gap(part.clone())
    }

    /// Returns the large pages around `part`, if memory comes by those.
    fn large_around(&self, part: &Range<usize>) -> Option<Range<usize>> {
        let large = self.large.load(Relaxed);
        let first = part.start.checked_div(large)?;
        Some(first * large..part.end.next_multiple_of(large))
    }

    /// Returns the large pages around `hole`, if memory comes by those, and none of it has any yet.
    pub(in crate::heap) fn whole(&self, hole: &Range<usize>) -> Option<Range<usize>> {
        let whole = self.large_around(hole)?;
        let fresh = self.committed.none(whole.clone()) && self.lost.none(whole.clone());
        fresh.then_some(whole)
    }

    /// Yields the parts of free granules that are worth giving back now that `part` of them is
    /// free: where memory came by large pages, whole ones around it that are free and have memory.
    pub(in crate::heap) fn worth_around(
        &self,
        part: &Range<usize>,
    ) -> impl Iterator<Item = Range<usize>> {
        let (parts, step) = match self.large_around(part) {
            Some(whole) => (whole, self.large.load(Relaxed)),
            None => (part.clone(), part.len().max(1)),
        };
        let parts = parts.step_by(step).map(move |n| n..n + step);
        parts.filter(|part| {
            self.are_free(part) && self.committed.all(part.clone()) && self.with_memory(part) != 0
        })
    }

    /// Returns the part of free granules that is worth giving back by and by: where memory came by
    /// large pages, whole ones.
    pub(in crate::heap) fn worth(&self, run: &Range<usize>) -> Range<usize> {
        let large = self.large.load(Relaxed);
        if large == 0 {
            return run.clone();
        }
        let start = run.start.next_multiple_of(large).min(run.end);
        start..(run.end / large * large).max(start)
    }

    pub(in crate::heap) fn commit(&self, part: Range<usize>) {
        self.committed.set(part);
    }

    /// Returns which free granules have memory that may go back, in a word of the bitmaps.
    fn giveable(&self, word: usize) -> u64 {
        self.free.word(word) & self.committed.word(word) & !self.purged.word(word)
    }

    /// Returns the first run of free granules from granule `from` on that can be written.
    pub(in crate::heap) fn writable(&self, from: usize) -> Option<Range<usize>> {
        Bits::run_by(from, |word| {
            self.free.word(word) & self.committed.word(word)
        })
    }

    /// Returns the first run of free granules with memory from granule `from` on; if so, of those
    /// that are aged, and that the host did not refuse.
    pub(in crate::heap) fn returnable(&self, from: usize, only_aged: bool) -> Option<Range<usize>> {
        Bits::run_by(from, |word| {
            let all = self.giveable(word);
            if only_aged {
                all & self.aged.word(word) & !self.refused.word(word)
            } else {
                all
            }
        })
    }

    /// Returns the last run of free granules with memory below granule `end`.
    pub(in crate::heap) fn last_returnable(&self, end: usize) -> Option<Range<usize>> {
        Bits::last_run_by(end, |word| self.giveable(word))
    }

    /// Returns the longest run of free granules that can be written.
    pub(in crate::heap) fn longest_writable(&self) -> Option<Range<usize>> {
        let first = self.writable(0);
        core::iter::successors(first, |run| self.writable(run.end)).max_by_key(Range::len)
    }

    /// Returns how many runs of granules cannot be written: each costs a mapping or two.
    pub(in crate::heap) fn gaps(&self) -> usize {
        let next = |from: usize| {
            let rest = from..self.granules();
            self.committed.gap(rest)
        };
        core::iter::successors(next(0), |run| next(run.end)).count()
    }

    /// Returns how many granules within `part` have memory, as far as the heap is concerned.
    pub(in crate::heap) fn with_memory(&self, part: &Range<usize>) -> usize {
        self.committed.count(part) - self.purged.count(part)
    }

    /// Returns how many granules within `part` gave theirs back.
    pub(in crate::heap) fn purged_in(&self, part: &Range<usize>) -> usize {
        self.purged.count(part)
    }

    /// Returns how many granules with memory are free; if so, of those that were at the last tick,
    /// and ever since.
    pub(in crate::heap) fn idle_count(&self, only_aged: bool) -> usize {
        Bits::count_by(|word| {
            let all = self.giveable(word);
            if only_aged {
                all & self.aged.word(word)
            } else {
                all
            }
        })
    }

    /// Notes that memory comes by base pages from now on.
    pub(in crate::heap) fn use_base_pages(&self) {
        let large = self.large.load(Relaxed);
        if large == 0 {
            return;
        }
        let in_use = |word| self.used.word(word) & !self.purged.word(word);
        for page in (0..self.granules()).step_by(large).map(|n| n..n + large) {
            // Granules were touched with others of the same large page.
            if Bits::run_by(page.start, in_use).is_some_and(|run| run.start < page.end) {
                self.used.set(page);
            }
        }
        self.large.store(0, Relaxed);
    }

    /// Returns how many free granules the host would not take memory back of.
    pub(in crate::heap) fn refused_count(&self) -> usize {
        Bits::count_by(|word| self.refused.word(word))
    }

    /// Returns how many granules have memory that was never in use, nor came by a large page with
    /// some that was.
    pub(in crate::heap) fn unused(&self) -> usize {
        let in_use = |word| self.used.word(word) & !self.purged.word(word);
        let large = self.large.load(Relaxed);
        if large == 0 {
            let unused = |word| self.committed.word(word) & !in_use(word);
            return Bits::count_by(|word| unused(word) & !self.purged.word(word));
        }
        let pages = (0..self.granules()).step_by(large).map(|n| n..n + large);
        pages
            .filter(|page| Bits::run_by(page.start, in_use).is_none_or(|run| run.start >= page.end))
            .map(|page| self.with_memory(&page))
            .sum()
    }

    pub(in crate::heap) fn decommit(&self, part: &Range<usize>) {
        for bits in [
            &self.committed,
            &self.used,
            &self.purged,
            &self.refused,
            &self.aged,
        ] {
            bits.clear(part.clone());
        }
    }

    /// Notes what became of the memory of free granules.
    pub(in crate::heap) fn purge(&self, part: &Range<usize>, shown: Purged) {
        self.aged.clear(part.clone());
        if shown == Purged::Kept {
            self.refused.set(part.clone());
            return;
        }
        self.refused.clear(part.clone());
        self.purged.set(part.clone());
        if shown == Purged::Zero {
            self.used.clear(part.clone());
        }
    }

    /// Marks all that is free now as aged.
    pub(in crate::heap) fn age(&self) {
        self.aged.copy(&self.free);
    }
}
