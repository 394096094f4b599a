//! A walk over all live blocks.

use super::{BlockInfo, Heap, RangeKind, class::GRANULE, slab::Handle};
use crate::{provider::PageProvider, sync::RawMutex};
use core::ops::ControlFlow;

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Calls `visit` with every live block, by address, until it breaks. Blocks that threads keep
    /// cached are free.
    ///
    /// No lock is held during a call of `visit`, which may use the heap. The walk is exact while
    /// no call allocates or frees. Otherwise a block that lives from the beginning of the walk to
    /// its end is visited once; one that is allocated, freed or resized meanwhile may be, or not,
    /// and need not be live any more when `visit` is told.
    ///
    /// ```
    /// # use hostmem_core::{heap::Heap, provider::PageProvider};
    /// # use core::ops::ControlFlow;
    /// # fn example<P: PageProvider + Copy>(heap: &Heap<P>) {
    /// let mut bytes = 0;
    /// let _ = heap.walk(|block| {
    ///     bytes += block.len;
    ///     ControlFlow::<()>::Continue(())
    /// });
    /// # }
    /// ```
    pub fn walk<B>(&self, mut visit: impl FnMut(BlockInfo) -> ControlFlow<B>) -> ControlFlow<B> {
        for range in self.ranges() {
            let (start, last) = (range.addresses.start(), range.addresses.last());
            let step = match range.kind {
                RangeKind::Segment => GRANULE,
                // One block.
                _ => usize::MAX,
            };
            // How long a slab is says nothing of what lies behind it, once it may be another one's.
            let first = match range.kind {
                RangeKind::Huge => {
                    start + self.huge_at(start).map_or(0, |slab| self.guard_of(slab))
                }
                _ => start,
            };
            for addr in (first..last).step_by(step) {
                if let Some(slab) = self.slab_at(addr) {
                    self.walk_slab(slab, addr, &mut visit)?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Visits the live blocks of a slab, as long as it starts at `start`.
    fn walk_slab<B>(
        &self,
        slab: Handle,
        start: usize,
        visit: &mut impl FnMut(BlockInfo) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let mut index = 0;
        while let Some(found) = slab.live_from(index)
            && slab.addr() == start
            && self.slab_at(start) == Some(slab)
        {
            let size = slab.block_bytes();
            let addr = start.wrapping_add(found.wrapping_mul(size));
            let len = slab.usable_by(found, size);
            // The slab may have been used for other granules since it was looked at.
            if slab.around(addr) == Some((addr, size)) {
                visit(BlockInfo { addr, len })?;
            }
            index = found + 1;
        }
        ControlFlow::Continue(())
    }
}
