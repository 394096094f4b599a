//! How segments are made, of addresses that the page map covers.

use super::Space;
use crate::{
    heap::{
        Heap, NAME,
        class::GRANULE,
        error::HeapError,
        segment::{GRANULES, GRANULES_LARGE, LARGE_LEAST, Segment, SegmentRef},
    },
    page::PageRange,
    provider::{ErrorKind, PageProvider, Request, reserve_ahead},
    sync::RawMutex,
};

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Reserves addresses for a new segment of `least` granules or more.
    pub(super) fn new_segment(
        &self,
        space: &mut Space,
        least: usize,
    ) -> Result<SegmentRef, HeapError> {
        debug_assert!(least <= GRANULES, "larger blocks come from the provider");
        let segment = match space.spare.get() {
            Some(segment) => segment,
            None => {
                let made = self.arena().alloc_value(Segment::new());
                let made = made.map_err(HeapError::Metadata)?;
                // SAFETY: initialised just now, and never freed before the arena, which is the
                // heap's.
                let segment = unsafe { SegmentRef::new(made) };
                self.note_segment(segment);
                space.spare.set(Some(segment));
                segment
            }
        };
        space.segments.make_room(self.arena())?;
        let wanted = space.step.max(least);
        let ahead = reserve_ahead(&self.provider, least * GRANULE, wanted * GRANULE) / GRANULE;
        // Where addresses are short, no rest is left that has no room for such a block.
        let whole = |count: usize| count - count % least;
        let mut count = if ahead < wanted { whole(ahead) } else { wanted };
        let (range, large) = loop {
            let large = self.large_granules(count);
            let align = large.max(1);
            count = count.next_multiple_of(align);
            match self.reserve(space, count * GRANULE, align * GRANULE) {
                Err(HeapError::Memory(e)) if e.kind() == ErrorKind::Exhausted && count > least => {
                    count = whole(count / 2).max(least);
                }
                result => break (result?, large),
            }
        };
        // Addresses that are short now will be short again: the next one is twice as long at most.
        space.step = (count * 2).min(GRANULES);
        space.spare.set(segment.next.get());
        segment.open(range, large);
        space.insert(segment);
        space.gauges.reserved += range.len_bytes();
        self.map
            .set(range.addr(), range.len_bytes(), Some(self.nothing));
        Ok(segment)
    }

    /// Adds a segment to all that were ever made. The lock of the granules is held, or this is a
    /// forked child.
    pub(in crate::heap) fn note_segment(&self, segment: SegmentRef) {
        segment.made_before.set(self.first_segment.get());
        self.first_segment.set(Some(segment));
    }

    /// Returns how many granules the large pages have that a segment of `count` granules is to get
    /// its memory by; zero where it is to get others.
    fn large_granules(&self, count: usize) -> usize {
        if !self.config.has_large_pages() || count < GRANULES_LARGE {
            return 0;
        }
        // Asked for now only, as it costs some system calls.
        let large = self.provider.large_page().bytes() / GRANULE;
        if large * LARGE_LEAST <= count {
            large
        } else {
            0
        }
    }

    /// Reserves addresses that the page map covers.
    fn reserve(&self, space: &mut Space, len: usize, align: usize) -> Result<PageRange, HeapError> {
        let request = Request::bytes(len).align(align).name(NAME);
        let mut range = self.reserve_pages(&request).map_err(HeapError::Memory)?;
        if !self.map.addresses().contains_range(range.addresses()) {
            // An error wastes addresses and no more.
            let _ = self.release_range(range);
            let request = request.within(self.map.addresses());
            range = self.reserve_pages(&request).map_err(HeapError::Memory)?;
        }
        let (start, len) = (range.addr(), range.len_bytes());
        let (leaves, arena) = (&mut space.leaves, self.arena());
        if let Err(error) = self.map.cover(&self.metadata, leaves, arena, start, len) {
            // As above.
            let _ = self.release_range(range);
            return Err(error);
        }
        Ok(range)
    }
}
