//! Segments: addresses reserved at once, whose granules are tracked by bitmaps.
//!
//! ```text
//!   granule      0  1  2  3  4  5  6  7
//!   free         .  .  1  1  .  1  1  1      not in a slab
//!   committed    1  1  1  .  1  1  .  .      can be written
//!   used         1  1  1  .  1  .  .  .      was written since it was fresh: may not read zero
//!   purged       .  .  .  .  .  1  .  .      free, and its memory went back; it has some again when it is written
//!   refused      .  .  1  .  .  .  .  .      free, and the host would not take its memory back
//!   aged         .  .  1  .  .  .  .  .      was free at the last tick, and ever since
//!   lost         .  .  .  .  .  .  .  .      the provider says that somebody else has it now, or it was given back
//! ```
//!
//! Free granules keep their access when their memory goes back, so that no mapping is split. At the
//! highest level of hardening they lose both.

use super::{bits::Bits, class::GRANULE};
use crate::{
    page::{PageRange, PageSize},
    provider::Purged,
};
use core::{
    ops::{Deref, Range},
    ptr::{NonNull, null_mut},
    sync::atomic::{
        AtomicBool, AtomicPtr, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};

/// Granules that a segment has at most: 64 MiB.
pub(super) const GRANULES: usize = 1024;

/// Segments of so many granules, which a heap makes that holds as much already, get their memory by large pages if
/// they have [`LARGE_LEAST`] of them: a program that touches it everywhere misses fewer translations of addresses.
pub(super) const GRANULES_LARGE: usize = 512;

/// Large pages of a segment at least: a single one would bring as much memory at its first touch as all others have.
pub(super) const LARGE_LEAST: usize = 2;

/// A segment, guarded by the lock of the granules.
pub(super) struct Segment {
    start: AtomicPtr<u8>,
    granules: AtomicUsize,
    /// Granules of the large pages that memory comes by; zero for none.
    large: AtomicUsize,
    /// How many are free.
    free_count: AtomicUsize,
    /// No run of free granules is longer.
    longest: AtomicUsize,
    free: Bits,
    committed: Bits,
    used: Bits,
    purged: Bits,
    refused: Bits,
    aged: Bits,
    lost: Bits,
    pub(super) next: SegmentLink,
    /// The one that was made before.
    pub(super) made_before: SegmentLink,
    /// Whether a forked child has another one for the same addresses.
    is_left: AtomicBool,
}

/// A segment's place in the arena, where it stays as long as the heap.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentRef(NonNull<Segment>);

// SAFETY: a shared reference to a Segment, which is made of atomics.
unsafe impl Send for SegmentRef {}

impl SegmentRef {
    /// Takes an initialised segment.
    ///
    /// # Safety
    ///
    /// It stays as long as every copy of this.
    pub(super) const unsafe fn new(segment: NonNull<Segment>) -> Self {
        Self(segment)
    }
}

impl Deref for SegmentRef {
    type Target = Segment;

    fn deref(&self) -> &Segment {
        // SAFETY: initialised and there, as whoever made this promised; changed by atomics only.
        unsafe { self.0.as_ref() }
    }
}

/// The next segment, or none.
pub(super) struct SegmentLink(AtomicPtr<Segment>);

impl SegmentLink {
    pub(super) const fn none() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    pub(super) fn get(&self) -> Option<SegmentRef> {
        NonNull::new(self.0.load(Acquire)).map(SegmentRef)
    }

    pub(super) fn set(&self, to: Option<SegmentRef>) {
        self.0
            .store(to.map_or(null_mut(), |to| to.0.as_ptr()), Release);
    }
}

impl Segment {
    pub(super) const fn new() -> Self {
        Self {
            start: AtomicPtr::new(null_mut()),
            granules: AtomicUsize::new(0),
            large: AtomicUsize::new(0),
            free_count: AtomicUsize::new(0),
            longest: AtomicUsize::new(0),
            free: Bits::new(),
            committed: Bits::new(),
            used: Bits::new(),
            purged: Bits::new(),
            refused: Bits::new(),
            aged: Bits::new(),
            lost: Bits::new(),
            next: SegmentLink::none(),
            made_before: SegmentLink::none(),
            is_left: AtomicBool::new(false),
        }
    }

    /// Takes addresses, whole granules of which are all free and none committed; if they are to get memory by
    /// large pages of so many granules, not zero, whole ones of those, too.
    pub(super) fn open(&self, range: PageRange, large: usize) {
        self.large.store(large, Relaxed);
        let granules = range.len_bytes() / GRANULE;
        self.start.store(range.start().as_ptr(), Relaxed);
        self.free_count.store(granules, Relaxed);
        self.longest.store(granules, Relaxed);
        for bits in [
            &self.free,
            &self.committed,
            &self.used,
            &self.purged,
            &self.refused,
            &self.aged,
            &self.lost,
        ] {
            bits.clear(0..GRANULES);
        }
        self.free.set(0..granules);
        // Last, for a forked child that goes through all segments.
        self.granules.store(granules, Release);
    }

    /// Gives up the addresses.
    pub(super) fn close(&self) {
        self.granules.store(0, Release);
    }

    /// Takes the addresses of another one, of which only those granules are ever free that are
    /// given back from now on; that one is not used any more, but by a call that a fork
    /// interrupted. Returns the bytes that it had free.
    pub(super) fn take_over(&self, from: &Self) -> usize {
        from.is_left.store(true, Relaxed);
        self.start.store(from.start.load(Relaxed), Relaxed);
        self.large.store(0, Relaxed);
        self.free_count.store(0, Relaxed);
        self.longest.store(0, Relaxed);
        let granules = from.granules();
        self.committed.copy(&from.committed);
        self.lost.copy(&from.lost);
        for bits in [&self.free, &self.purged, &self.refused, &self.aged] {
            bits.clear(0..GRANULES);
        }
        self.used.set(0..granules);
        self.granules.store(granules, Release);
        from.free.count(&(0..granules)) * GRANULE
    }

    /// Makes all granules free that are neither given back nor in use, as a number tells.
    pub(super) fn recount(&self, in_use: impl Fn(usize) -> bool) {
        let (mut free, granules) = (0, self.granules());
        // No less than those that are taken here.
        self.free_count.store(granules, Relaxed);
        for n in 0..granules {
            let part = n..n + 1;
            if in_use(n) {
                self.take(part);
            } else if self.lost.none(part.clone()) {
                self.free.set(part);
                free += 1;
            }
        }
        self.free_count.store(free, Relaxed);
        self.longest.store(free, Relaxed);
    }

    /// Says whether a forked child has another one for these addresses, or there are none.
    pub(super) fn is_left(&self) -> bool {
        self.is_left.load(Relaxed) || self.granules() == 0
    }

    /// Gives up free granules for now, so that a forked child does not take them for free.
    pub(super) fn give_up(&self, part: &Range<usize>) {
        self.lost.set(part.clone());
    }

    /// Takes back what was given up.
    pub(super) fn regain(&self, part: &Range<usize>) {
        self.lost.clear(part.clone());
    }

    /// Returns which granules can be written, to [restore](Segment::restore_access).
    pub(super) fn take_access(&self, part: &Range<usize>) -> Bits {
        let before = Bits::new();
        before.copy(&self.committed);
        self.committed.clear(part.clone());
        before
    }

    pub(super) fn restore_access(&self, before: &Bits) {
        self.committed.copy(before);
    }

    pub(super) fn granules(&self) -> usize {
        self.granules.load(Relaxed)
    }

    /// Says whether memory comes by large pages.
    pub(super) fn has_large_pages(&self) -> bool {
        self.large.load(Relaxed) != 0
    }

    pub(super) fn free_count(&self) -> usize {
        self.free_count.load(Relaxed)
    }

    pub(super) fn addr(&self) -> usize {
        self.start.load(Relaxed).addr()
    }

    pub(super) fn contains(&self, addr: usize) -> bool {
        addr.wrapping_sub(self.addr()) < self.granules() * GRANULE
    }

    /// Returns the number of the granule that starts at `addr`.
    pub(super) fn number(&self, addr: usize) -> usize {
        (addr - self.addr()) / GRANULE
    }

    /// Describes granules.
    pub(super) fn range(&self, part: &Range<usize>, page: PageSize) -> Option<PageRange> {
        let start = self.start.load(Relaxed).wrapping_add(part.start * GRANULE);
        PageRange::new(NonNull::new(start)?, part.len() * GRANULE, page)
    }

    /// Finds the lowest run of `count` free granules.
    pub(super) fn find(&self, count: usize) -> Option<Range<usize>> {
        if self.free_count.load(Relaxed) < count || self.longest.load(Relaxed) < count {
            return None;
        }
        let mut longest = 0;
        let mut from = 0;
        while let Some(run) = self.free.run(from) {
            if run.len() >= count {
                return Some(run.start..run.start + count);
            }
            longest = longest.max(run.len());
            from = run.end;
        }
        self.longest.store(longest, Relaxed);
        None
    }

    /// Says whether granules are free.
    pub(super) fn are_free(&self, part: &Range<usize>) -> bool {
        part.end <= self.granules() && self.free.all(part.clone())
    }

    /// Says whether no granule can be written.
    pub(super) fn are_empty(&self, part: &Range<usize>) -> bool {
        self.committed.none(part.clone())
    }

    /// Returns how many borders there are in and around `part` between granules that can be written
    /// and others.
    pub(super) fn borders(&self, part: &Range<usize>) -> usize {
        let is_writable = |n: usize| n < self.granules() && !self.committed.none(n..n + 1);
        let is_border = |n: usize| is_writable(n) != (n != 0 && is_writable(n - 1));
        (part.start..=part.end).filter(|n| is_border(*n)).count()
    }

    /// Marks free granules as in use that have no memory, and get none.
    pub(super) fn reserve(&self, part: Range<usize>) {
        self.take(part.clone());
        self.used.clear(part);
    }

    /// Returns the first run within `part` that cannot be written.
    pub(super) fn uncommitted(&self, part: &Range<usize>) -> Option<Range<usize>> {
        self.committed.gap(part.clone())
    }

    /// Returns the large pages around `part`, if memory comes by those.
    fn large_around(&self, part: &Range<usize>) -> Option<Range<usize>> {
        let large = self.large.load(Relaxed);
        let first = part.start.checked_div(large)?;
        Some(first * large..part.end.next_multiple_of(large))
    }

    /// Returns the large pages around `hole`, if memory comes by those, and none of it has any yet.
    pub(super) fn whole(&self, hole: &Range<usize>) -> Option<Range<usize>> {
        let whole = self.large_around(hole)?;
        let fresh = self.committed.none(whole.clone()) && self.lost.none(whole.clone());
        fresh.then_some(whole)
    }

    /// Yields the parts of free granules that are worth giving back now that `part` of them is free: where memory came
    /// by large pages, whole ones around it that are free and have memory.
    pub(super) fn worth_around(&self, part: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let (parts, step) = match self.large_around(part) {
            Some(whole) => (whole, self.large.load(Relaxed)),
            None => (part.clone(), part.len().max(1)),
        };
        let parts = parts.step_by(step).map(move |n| n..n + step);
        parts.filter(|part| {
            self.are_free(part) && self.committed.all(part.clone()) && self.with_memory(part) != 0
        })
    }

    /// Returns the part of free granules that is worth giving back by and by: where memory came by large pages,
    /// whole ones.
    pub(super) fn worth(&self, run: &Range<usize>) -> Range<usize> {
        let large = self.large.load(Relaxed);
        if large == 0 {
            return run.clone();
        }
        let start = run.start.next_multiple_of(large).min(run.end);
        start..(run.end / large * large).max(start)
    }

    pub(super) fn commit(&self, part: Range<usize>) {
        self.committed.set(part);
    }

    /// Marks free granules as in use; says whether all of them read zero.
    pub(super) fn take(&self, part: Range<usize>) -> bool {
        for bits in [&self.free, &self.purged, &self.refused, &self.aged] {
            bits.clear(part.clone());
        }
        let free = self.free_count.load(Relaxed) - part.len();
        self.free_count.store(free, Relaxed);
        let zero = self.used.none(part.clone());
        self.used.set(part);
        zero
    }

    /// Marks granules as free.
    pub(super) fn give(&self, part: Range<usize>) {
        let free = self.free_count.load(Relaxed) + part.len();
        self.free_count.store(free, Relaxed);
        self.longest.store(free, Relaxed);
        self.free.set(part);
    }

    /// Returns which free granules have memory that may go back, in a word of the bitmaps.
    fn giveable(&self, word: usize) -> u64 {
        self.free.word(word) & self.committed.word(word) & !self.purged.word(word)
    }

    /// Returns the first run of free granules from granule `from` on that can be written.
    pub(super) fn writable(&self, from: usize) -> Option<Range<usize>> {
        Bits::run_by(from, |word| {
            self.free.word(word) & self.committed.word(word)
        })
    }

    /// Returns the first run of free granules with memory from granule `from` on; if so, of those that
    /// are aged, and that the host did not refuse.
    pub(super) fn returnable(&self, from: usize, only_aged: bool) -> Option<Range<usize>> {
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
    pub(super) fn last_returnable(&self, end: usize) -> Option<Range<usize>> {
        Bits::last_run_by(end, |word| self.giveable(word))
    }

    /// Returns the longest run of free granules that can be written.
    pub(super) fn longest_writable(&self) -> Option<Range<usize>> {
        let first = self.writable(0);
        core::iter::successors(first, |run| self.writable(run.end)).max_by_key(Range::len)
    }

    /// Returns how many runs of granules cannot be written: each costs a mapping or two.
    pub(super) fn gaps(&self) -> usize {
        let next = |from: usize| {
            let rest = from..self.granules();
            self.committed.gap(rest)
        };
        core::iter::successors(next(0), |run| next(run.end)).count()
    }

    /// Returns the last run of free granules, with or without memory, below granule `end`.
    pub(super) fn last_free(&self, end: usize) -> Option<Range<usize>> {
        Bits::last_run_by(end, |word| self.free.word(word))
    }

    /// Returns how many granules within `part` have memory, as far as the heap is concerned.
    pub(super) fn with_memory(&self, part: &Range<usize>) -> usize {
        self.committed.count(part) - self.purged.count(part)
    }

    /// Returns how many granules within `part` gave theirs back.
    pub(super) fn purged_in(&self, part: &Range<usize>) -> usize {
        self.purged.count(part)
    }

    /// Returns how many granules with memory are free; if so, of those that were at the last tick, and ever since.
    pub(super) fn idle_count(&self, only_aged: bool) -> usize {
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
    pub(super) fn use_base_pages(&self) {
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
    pub(super) fn refused_count(&self) -> usize {
        Bits::count_by(|word| self.refused.word(word))
    }

    /// Returns how many granules have memory that was never in use, nor came by a large page with some that was.
    pub(super) fn unused(&self) -> usize {
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

    pub(super) fn decommit(&self, part: &Range<usize>) {
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
    pub(super) fn purge(&self, part: &Range<usize>, shown: Purged) {
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
    pub(super) fn age(&self) {
        self.aged.copy(&self.free);
    }

    /// Marks free granules as somebody else's, or given back.
    pub(super) fn lose(&self, part: &Range<usize>) {
        self.decommit(part);
        self.take(part.clone());
        self.lost.set(part.clone());
    }

    /// Marks any granules as given back, for good.
    pub(super) fn forget(&self, part: Range<usize>) {
        self.lost.set(part);
    }

    /// Returns how many granules were not lost.
    pub(super) fn kept_count(&self) -> usize {
        self.granules() - self.lost.count(&(0..self.granules()))
    }

    pub(super) fn is_empty(&self) -> bool {
        let lost = self.lost.count(&(0..self.granules()));
        self.free_count.load(Relaxed) + lost == self.granules()
    }

    /// Returns the first run of granules from `from` on that are not lost.
    pub(super) fn kept(&self, from: usize) -> Option<Range<usize>> {
        if from >= self.granules() {
            return None;
        }
        self.lost.gap(from..self.granules())
    }
}
