//! Granules: how addresses come from the provider, and memory into them.
//!
//! | room | what it has |
//! |---|---|
//! | `take` | how granules are taken |
//! | `segments` | how segments are made |
//! | `guards` | granules without memory |
//! | `give` | how granules and their memory go back |
//! | `release` | how addresses go back |

mod give;
mod guards;
mod release;
mod segments;
mod take;

use super::{
    class::GRANULE,
    hardened::quarantine::Waiting,
    huge::{ahead, backed, guards_of, is_hole},
    index::Index,
    kept::Kept,
    map::Leaves,
    segment::{SegmentLink, SegmentRef},
    slab::{FREED, Handle, ZERO},
};
use crate::{
    arena::Arena,
    intervals::{Intervals, Spares},
    provider::{Error, PageProvider},
    sync::RawMutex,
};
use core::{
    ops::{Deref, Range},
    ptr::NonNull,
    sync::atomic::Ordering::Relaxed,
};

/// The part that the lock of the granules guards, beside the page map and the bitmaps.
pub(super) struct Space {
    pub(super) segments: Index<SegmentRef>,
    spare: SegmentLink,
    /// No segment below this address has free granules.
    room_from: usize,
    /// Granules that the next segment is to have.
    step: usize,
    /// Descriptors of large and of huge blocks that are not in use.
    pub(super) spare_large: Option<Handle>,
    pub(super) spare_huge: Option<Handle>,
    /// Where huge blocks lie, live or kept, and what changes of that need.
    pub(super) huge: IndexRef,
    pub(super) spares: Spares,
    /// That of the [parts](super::parts::Parts) that this is one of.
    pub(super) era: u32,
    /// Whether a call that never goes on may have left all this half changed.
    pub(super) is_torn: bool,
    pub(super) leaves: Leaves,
    /// Huge blocks that were freed.
    pub(super) kept: Kept,
    /// Large and huge blocks that were freed, and wait.
    pub(super) waiting: Waiting,
    pub(super) gauges: Gauges,
}

/// The place of an index of huge blocks in an arena, where it stays as long as the heap.
#[derive(Clone, Copy)]
pub(super) struct IndexRef(NonNull<Intervals>);

// SAFETY: a shared reference to an index, which is Sync.
unsafe impl Send for IndexRef {}

// SAFETY: a shared reference to an index that is Sync.
unsafe impl Sync for IndexRef {}

impl IndexRef {
    /// Puts an index into an arena of the heap that is to have it.
    ///
    /// # Errors
    ///
    /// Where there is no metadata.
    pub(super) fn new<M: PageProvider + Copy, R: RawMutex>(
        arena: &Arena<M, R>,
        index: Intervals,
    ) -> Result<Self, Error> {
        arena.alloc_value(index).map(Self)
    }
}

impl Deref for IndexRef {
    type Target = Intervals;

    #[inline]
    fn deref(&self) -> &Intervals {
        // SAFETY: initialised in `new`, and never freed before the arena, which is the heap's.
        unsafe { self.0.as_ref() }
    }
}

/// Bytes, and blocks that are live.
#[derive(Clone, Copy, Default)]
pub(super) struct Gauges {
    pub(super) reserved: usize,
    pub(super) committed: usize,
    /// Of what is committed: behind huge blocks that are live, for them to grow into.
    pub(super) ahead: usize,
    pub(super) large: usize,
    pub(super) large_blocks: usize,
    pub(super) huge_blocks: usize,
    /// Mappings that guards and granules without access cost, about.
    pub(super) mappings: usize,
    /// Live blocks without guards that were to have some.
    pub(super) unguarded: usize,
}

impl Space {
    pub(super) const fn new(step: usize, huge: IndexRef, era: u32) -> Self {
        Self {
            segments: Index::new(),
            spare: SegmentLink::none(),
            room_from: 0,
            step,
            spare_large: None,
            spare_huge: None,
            huge,
            spares: Spares::new(),
            era,
            is_torn: false,
            leaves: Leaves::new(),
            kept: Kept::new(),
            waiting: Waiting::new(),
            gauges: Gauges {
                reserved: 0,
                committed: 0,
                ahead: 0,
                large: 0,
                large_blocks: 0,
                huge_blocks: 0,
                mappings: 0,
                unguarded: 0,
            },
        }
    }

    /// Counts a huge block and the addresses that were reserved for it.
    pub(super) fn count_huge(&mut self, reserved: usize, slab: Option<Handle>) {
        self.gauges.reserved += reserved;
        if let Some(slab) = slab {
            self.gauges.mappings += guards_of(slab);
            if !is_hole(slab) {
                self.gauges.committed += backed(slab);
                self.gauges.ahead += ahead(slab);
            }
            if !matches!(slab.only().state().load(Relaxed), FREED | ZERO) {
                self.gauges.huge_blocks += 1;
            }
        }
    }

    pub(super) fn insert(&mut self, segment: SegmentRef) {
        self.segments.insert(segment.addr(), segment);
        self.room_from = self.room_from.min(segment.addr());
    }

    /// Finds the lowest run of `count` granules that are free and can be written.
    pub(super) fn writable_run(&self, count: usize) -> Option<(SegmentRef, Range<usize>)> {
        self.segments.all().iter().find_map(|&(_, segment)| {
            let next = |from| segment.writable(from);
            let mut runs = core::iter::successors(next(0), |run| next(run.end));
            let run = runs.find(|run| run.len() >= count)?;
            Some((segment, run.start..run.start + count))
        })
    }

    /// Takes free granules of a segment, which can be written; says whether they read zero.
    pub(super) fn take(&mut self, segment: SegmentRef, part: Range<usize>) -> bool {
        self.gauges.committed += segment.purged_in(&part) * GRANULE;
        segment.take(part)
    }

    /// Counts mappings, where the [borders](super::segment::Segment::borders) in and around some
    /// granules have changed.
    fn note_borders(&mut self, before: usize, now: usize) {
        self.gauges.mappings = (self.gauges.mappings + now).saturating_sub(before);
    }

    /// Forgets free granules of a segment.
    fn lose(&mut self, segment: SegmentRef, part: &Range<usize>) {
        self.gauges.committed -= segment.with_memory(part) * GRANULE;
        self.gauges.reserved -= part.len() * GRANULE;
        let borders = segment.borders(part);
        segment.lose(part);
        self.note_borders(borders, segment.borders(part));
    }

    fn remove(&mut self, segment: SegmentRef) {
        self.segments.remove(segment.addr());
        segment.close();
        segment.next.set(self.spare.get());
        self.spare.set(Some(segment));
    }

    /// Returns the segment around an address; `None` where a call got it that had begun before a
    /// fork, and has ended in the child.
    fn find(&self, addr: usize) -> Option<SegmentRef> {
        let found = self.segments.nth(self.segments.around(addr));
        found.filter(|segment| segment.contains(addr))
    }

    /// Returns the place of the first segment that may have free granules.
    fn first_with_room(&mut self) -> usize {
        let mut place = self.segments.below(self.room_from);
        self.room_from = loop {
            match self.segments.nth(place) {
                Some(segment) if segment.free_count() == 0 => place += 1,
                found => break found.map_or(usize::MAX, |segment| segment.addr()),
            }
        };
        place
    }
}
