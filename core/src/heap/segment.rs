//! Segments: addresses reserved at once, whose granules are tracked by bitmaps.
//!
//! ```text
//!   granule      0  1  2  3  4  5  6  7
//!   free         .  .  1  1  .  1  1  1      not in a slab
//!   committed    1  1  1  .  1  1  .  .      can be written
//!   used         1  1  1  .  1  .  .  .      was written since it was fresh: may not read zero
//!   purged       .  .  .  .  .  1  .  .      free, and its memory went back until it is written
//!   refused      .  .  1  .  .  .  .  .      free, and the host would not take its memory back
//!   aged         .  .  1  .  .  .  .  .      was free at the last tick, and ever since
//!   lost         .  .  .  .  .  .  .  .      others have it by now, or it was released
//! ```
//!
//! Free granules keep their access when their memory goes back, so that no mapping is split. At the
//! highest level of hardening they lose both.
//!
//! | room | what it has |
//! |---|---|
//! | `memory` | which granules have memory |
//! | `lost` | which ones are the heap's |

mod lost;
mod memory;

use super::{bits::Bits, class::GRANULE};
use crate::page::{PageRange, PageSize};
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

/// Segments of this many granules, which a heap makes that holds as much already, get their memory
/// by large pages if they have [`LARGE_LEAST`] of them: a program that touches it everywhere misses
/// fewer translations of addresses.
pub(super) const GRANULES_LARGE: usize = 512;

/// Large pages of a segment at least: a single one would bring as much memory at its first touch as
/// all others have.
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
        // SAFETY: initialised and there, as the caller of `new` promised; changed by atomics only.
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

    /// Takes addresses, whole granules of which are all free and none committed; if they are to get
    /// memory by large pages of `large` granules, not zero, whole ones of those, too.
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

    pub(super) fn granules(&self) -> usize {
        self.granules.load(Relaxed)
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

    /// Marks free granules as in use that have no memory, and get none.
    pub(super) fn reserve(&self, part: Range<usize>) {
        self.take(part.clone());
        self.used.clear(part);
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

    /// Returns the last run of free granules, with or without memory, below granule `end`.
    pub(super) fn last_free(&self, end: usize) -> Option<Range<usize>> {
        Bits::last_run_by(end, |word| self.free.word(word))
    }

    pub(super) fn is_empty(&self) -> bool {
        let lost = self.lost.count(&(0..self.granules()));
        self.free_count.load(Relaxed) + lost == self.granules()
    }
}
