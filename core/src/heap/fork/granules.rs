//! How a forked child makes the granules anew, with large and huge blocks.

use crate::{
    heap::{
        Heap,
        bits::Bits,
        class::{CLASSES, GRANULE, LARGE},
        parts::{Held, Parts},
        segment::{Segment, SegmentRef},
        slab::{FREED, Handle, ZERO},
        space::{IndexRef, Space},
    },
    intervals::{Intervals, Spares},
    page::AddressRange,
    provider::{Error, ErrorKind, PageProvider},
    sync::RawMutex,
};
use core::sync::atomic::Ordering::Relaxed;

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Makes the granules anew, whose lock is held.
    pub(super) fn new_space(
        &self,
        old: &Parts<R>,
        era: u32,
        resumes: bool,
    ) -> Result<Space, Error> {
        let huge = if resumes {
            let copy = Intervals::new();
            let mut spares = Spares::new();
            for range in old.huge.all().filter(|range| range.len != 0) {
                spares.make_room(&copy, self.arena())?;
                copy.insert(&mut spares, range);
            }
            IndexRef::new(self.arena(), copy)?
        } else {
            old.huge
        };
        let mut space = Space::new(self.config.segment_granules(), huge, era);
        let mut next = self.first_segment.get();
        while let Some(segment) = next {
            next = segment.made_before.get();
            if segment.is_left() {
                continue;
            }
            space.segments.make_room(self.arena()).map_err(metadata)?;
            let in_use = self.owned(&mut space, segment, resumes);
            let segment = if resumes {
                let new = self.arena().alloc_value(Segment::new())?;
                // SAFETY: initialised just now, and never freed before the arena, which is the
                // heap's.
                let new = unsafe { SegmentRef::new(new) };
                self.note_abandoned(new.take_over(&segment));
                self.note_segment(new);
                new
            } else {
                segment.recount(|n| in_use.word(n / 64) >> (n % 64) & 1 == 1);
                self.forget_entries(segment, &in_use);
                segment
            };
            let all = 0..segment.granules();
            space.gauges.reserved += segment.kept_count() * GRANULE;
            space.gauges.committed += segment.with_memory(&all) * GRANULE;
            space.gauges.mappings += segment.borders(&all);
            space.insert(segment);
        }
        self.find_huge(&mut space, resumes)?;
        let blocks = space.segments.all().iter();
        let blocks = blocks.filter_map(|(addr, segment)| {
            AddressRange::from_len(*addr, segment.granules() * GRANULE)
        });
        space.leaves = self
            .map
            .find_leaves(self.page, self.arena(), blocks)
            .map_err(metadata)?;
        Ok(space)
    }

    /// Makes granules anew that a call never goes on with.
    pub(in crate::heap) fn mend_space(&self, space: &mut Held<'_, Space, R>) {
        let (parts, huge, era) = (space.parts, space.huge, space.era);
        let new = self.new_space(parts, era, false);
        // Without metadata for that, what was free is lost.
        **space = new.unwrap_or_else(|_| Space::new(self.config.segment_granules(), huge, era));
    }

    /// Returns which granules of a segment are in use, as the page map and states tell, and counts
    /// large blocks.
    fn owned(&self, space: &mut Space, segment: SegmentRef, resumes: bool) -> Bits {
        let in_use = Bits::new();
        for (first, slab) in self.slabs_of(segment) {
            let count = slab.len_bytes() / GRANULE;
            let mut guards = 0;
            if slab.is(LARGE) {
                guards = self.guard_of(slab) / GRANULE;
                if matches!(slab.only().state().load(Relaxed), FREED | ZERO) {
                    // It was being given back, or waited in quarantine.
                    let bytes = (count + 2 * guards) * GRANULE;
                    self.note_abandoned(if resumes { bytes } else { 0 });
                    continue;
                }
                space.gauges.large += slab.len_bytes();
                space.gauges.large_blocks += 1;
                self.count_guards(space, slab, true);
            }
            let end = (first + count + guards).min(segment.granules());
            in_use.set(first.saturating_sub(guards)..end);
            // Of all of its granules, if a call had begun with that.
            self.map.set(slab.addr(), slab.len_bytes(), Some(slab));
        }
        in_use
    }

    /// Enters granules that are not in use as ones of no slab, as far as they are the heap's.
    fn forget_entries(&self, segment: SegmentRef, in_use: &Bits) {
        let mut from = 0;
        while let Some(part) = segment.kept(from) {
            from = part.end;
            let mut at = part.start;
            while at < part.end
                && let Some(free) = in_use.gap(at..part.end)
            {
                let addr = segment.addr() + free.start * GRANULE;
                self.map.set(addr, free.len() * GRANULE, Some(self.nothing));
                at = free.end;
            }
        }
    }

    /// Yields the slabs that begin in a segment, as the page map tells, and the number of the
    /// granule where each does.
    pub(super) fn slabs_of(&self, segment: SegmentRef) -> impl Iterator<Item = (usize, Handle)> {
        (0..segment.granules()).filter_map(move |n| {
            let addr = segment.addr() + n * GRANULE;
            let slab = self.map.slab(addr)?;
            let is_slab = slab.class() < CLASSES || slab.is(LARGE);
            (is_slab && slab.addr() == addr).then_some((n, slab))
        })
    }

    /// Counts huge blocks, and has those released that are free.
    fn find_huge(&self, space: &mut Space, resumes: bool) -> Result<(), Error> {
        space.spares.make_room(&space.huge, self.arena())?;
        let mut bytes = 0;
        let index = space.huge;
        for range in index.all() {
            let Some(slab) = self.huge_of(range).filter(|_| range.len != 0) else {
                // It was being released.
                if !resumes {
                    index.remove(&mut space.spares, range.start);
                    space.spares.make_room(&index, self.arena())?;
                }
                continue;
            };
            let is_free = matches!(slab.only().state().load(Relaxed), FREED | ZERO);
            if !is_free {
                bytes += self.counted(slab);
                self.count_guards(space, slab, true);
            } else if resumes {
                self.note_abandoned(range.len);
            } else {
                // Its memory may have gone, as that of a block that was moved.
                self.set_huge(space, slab, 0, slab.len_bytes(), 0);
                space.kept.push_unreleased(slab);
            }
            space.count_huge(range.len, Some(slab));
        }
        self.huge_bytes.store(bytes, Relaxed);
        Ok(())
    }
}

/// Returns the error of metadata.
pub(super) fn metadata(error: crate::heap::HeapError) -> Error {
    match error {
        crate::heap::HeapError::Memory(error) | crate::heap::HeapError::Metadata(error) => error,
        _ => ErrorKind::Exhausted.into(),
    }
}
