//! Guards around large and huge blocks, and blocks whose addresses are kept while they wait.

use super::Space;
use crate::{
    heap::{Heap, class::GRANULE, slab::Handle},
    page::PageRange,
    provider::PageProvider,
    sync::RawMutex,
};
use core::ptr::NonNull;

/// Mappings that a run of granules costs at most that loses its access or gets some.
const SPLIT: usize = 2;

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Says whether the heap may have `count` more granules or blocks that split a mapping.
    pub(super) fn may_split(&self, space: &Space, count: usize) -> bool {
        let most = self
            .hardened
            .as_ref()
            .map_or(0, |hardened| hardened.mappings);
        space.gauges.mappings.saturating_add(SPLIT * count) <= most
    }

    /// Returns the bytes that are to be inaccessible on either side of a large or huge block that
    /// is made now.
    pub(in crate::heap) fn guard_now(&self, space: &Space) -> usize {
        // The two guards, and the block.
        if self.is_full() && self.may_split(space, 3) {
            GRANULE
        } else {
            0
        }
    }

    /// Returns the bytes that are inaccessible on either side of a large or huge block.
    pub(in crate::heap) fn guard_of(&self, slab: Handle) -> usize {
        slab.shard() * GRANULE
    }

    /// Counts a block that was made live or was freed, if it has no guards and is to have some.
    pub(in crate::heap) fn count_guards(&self, space: &mut Space, slab: Handle, is_new: bool) {
        if self.guard_of(slab) != 0 || !self.is_full() {
            return;
        }
        if is_new {
            space.gauges.unguarded += 1;
        } else {
            space.gauges.unguarded = space.gauges.unguarded.saturating_sub(1);
        }
    }

    /// Takes the memory of a large block that is free, and its access if the heap may split
    /// mappings, and keeps its granules; says whether it could.
    pub(in crate::heap) fn hold_granules(&self, space: &mut Space, slab: Handle) -> bool {
        let (addr, len) = (slab.addr(), slab.len_bytes());
        self.give_granules(space, addr, len);
        let Some(segment) = space.find(addr) else {
            return false;
        };
        let first = segment.number(addr);
        let part = first..first + len / GRANULE;
        if !segment.are_free(&part) {
            // They were lost as their memory went.
            return false;
        }
        if segment.are_empty(&part) {
            segment.reserve(part);
        } else {
            // Whether it reads zero is not asked before it is free again.
            space.take(segment, part);
        }
        self.map.set(addr, len, Some(slab));
        true
    }

    /// Describes what was reserved for a huge block.
    pub(in crate::heap) fn whole(&self, slab: Handle) -> Option<PageRange> {
        let guard = self.guard_of(slab);
        let start = NonNull::new(slab.start().as_ptr().wrapping_sub(guard))?;
        PageRange::new(start, slab.len_bytes() + 2 * guard, self.page)
    }
}
