//! Which addresses a heap holds.

use super::{
    Heap,
    class::GRANULE,
    segment::SegmentRef,
    slab::{FREED, ZERO},
    space::Space,
};
use crate::{
    page::{AddressRange, PageRange},
    provider::PageProvider,
    sync::RawMutex,
};
use core::sync::atomic::Ordering::Relaxed;

/// Addresses that a heap holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapRange {
    /// The addresses: all of a reservation, with or without memory.
    pub addresses: AddressRange,
    /// The kind of memory there.
    pub kind: RangeKind,
}

/// The kind of memory in addresses that a heap holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RangeKind {
    /// Blocks up to 1 MiB, live and free ones, or room for them.
    Segment,
    /// One larger block, and what its reservation is longer by.
    Huge,
    /// One larger block that was freed, and is kept for the next, or until it can be released.
    Kept,
    /// Metadata: descriptors, bitmaps and magazines.
    Arena,
    /// Metadata: a part of the page map.
    PageMap,
}

impl HeapRange {
    fn new(start: usize, end: usize, kind: RangeKind) -> Option<Self> {
        let addresses = AddressRange::new(start, end.checked_sub(1)?)?;
        Some(Self { addresses, kind })
    }

    fn of(range: PageRange, kind: RangeKind) -> Self {
        let addresses = range.addresses();
        Self { addresses, kind }
    }

    /// Leaves out what lies below `from`.
    fn from(self, from: usize) -> Option<Self> {
        let rest = AddressRange::new(from, usize::MAX)?;
        let addresses = self.addresses.intersect(rest)?;
        Some(Self { addresses, ..self })
    }
}

/// Returns the part of a segment from `from` on that is the heap's.
fn part_of(segment: SegmentRef, from: usize) -> Option<HeapRange> {
    let first = from.saturating_sub(segment.addr()) / GRANULE;
    let part = segment.kept(first)?;
    let at = |granule: usize| segment.addr() + granule * GRANULE;
    HeapRange::new(at(part.start), at(part.end), RangeKind::Segment)?.from(from)
}

impl Space {
    /// Returns the first part of a segment that ends at `from` or above, without what lies below.
    fn next_segment(&self, from: usize) -> Option<HeapRange> {
        let segments = &self.segments.all()[self.segments.around(from)..];
        segments
            .iter()
            .find_map(|(_, segment)| part_of(*segment, from))
    }
}

fn lower(one: Option<HeapRange>, other: Option<HeapRange>) -> Option<HeapRange> {
    let start = |range: &HeapRange| range.addresses.start();
    [one, other].into_iter().flatten().min_by_key(start)
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Yields the ranges of addresses that the heap holds for blocks, by address; no two share one.
    /// Neighbours may lie side by side. Those of metadata are in [`Heap::metadata_ranges`].
    ///
    /// Each step takes a lock, allocates nothing, and holds nothing between two steps, so that the
    /// heap can be used meanwhile, by the caller too. What the heap holds from the first step to
    /// the last is yielded, as one range or as several; what it gets or gives back meanwhile may be
    /// or not.
    pub fn ranges(&self) -> impl Iterator<Item = HeapRange> {
        steps(|from| self.next_range(&self.lock_space(), from))
    }

    /// Yields the ranges of addresses that the heap holds for metadata, as [`Heap::ranges`] does.
    /// They are where its second provider put them.
    pub fn metadata_ranges(&self) -> impl Iterator<Item = HeapRange> {
        steps(|from| self.next_metadata(&self.lock_space(), from))
    }

    /// Says whether the heap holds any of these addresses, for blocks or for metadata: what is
    /// mapped there would be mapped over memory of the heap. Takes a lock.
    pub fn overlaps(&self, addresses: AddressRange) -> bool {
        let space = self.lock_space();
        let blocks = self.next_range(&space, addresses.start());
        let first = lower(blocks, self.next_metadata(&space, addresses.start()));
        first.is_some_and(|first| first.addresses.start() <= addresses.last())
    }

    /// Returns the first range for blocks that ends at `from` or above, without what lies below.
    fn next_range(&self, space: &Space, from: usize) -> Option<HeapRange> {
        let huge = self.next_huge(from).and_then(|(range, slab)| {
            let kind = match slab.only().state().load(Relaxed) {
                FREED | ZERO => RangeKind::Kept,
                _ => RangeKind::Huge,
            };
            HeapRange::new(range.start, range.start + range.len, kind)?.from(from)
        });
        lower(space.next_segment(from), huge)
    }

    fn next_metadata(&self, space: &Space, from: usize) -> Option<HeapRange> {
        let map = |range| HeapRange::of(range, RangeKind::PageMap).from(from);
        let leaves = space.leaves.own();
        let leaves = &leaves.all()[leaves.around(from)..];
        let leaf = leaves.iter().find_map(|(_, leaf)| map(*leaf));
        // Those too that a fork has left behind.
        let pieces = self.arena.all().filter_map(|arena| arena.next_range(from));
        let pages = self.parts.pages().chain(self.arena.pages());
        let all = pieces.chain(pages.filter(|pages| pages.end() > from));
        let piece = all.min_by_key(|piece| piece.addr());
        let arena = piece.and_then(|piece| HeapRange::of(piece, RangeKind::Arena).from(from));
        lower(lower(leaf, self.map.range().and_then(map)), arena)
    }
}

/// Yields what `next` finds from an address on, and then behind that.
fn steps(next: impl Fn(usize) -> Option<HeapRange>) -> impl Iterator<Item = HeapRange> {
    let mut from = Some(0);
    core::iter::from_fn(move || {
        let found = next(from?)?;
        from = found.addresses.last().checked_add(1);
        Some(found)
    })
}
