//! A walk over all live blocks.

use super::{BlockInfo, Heap, class::GRANULE, slab::Handle};
use crate::{provider::PageProvider, sync::RelaxStrategy};
use core::ops::ControlFlow;

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RelaxStrategy> Heap<P, M, R> {
    /// Calls `visit` with every live block, by address, until it breaks. Blocks that threads keep at hand are
    /// free.
    ///
    /// No lock is held during a call of `visit`, which may use the heap. The walk is exact while nobody
    /// allocates or frees. Otherwise a block that lives from the beginning of the walk to its end is visited
    /// once; one that is allocated, freed or resized meanwhile may be, or not, and need not be live any more
    /// when `visit` is told.
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
            let (mut addr, last) = (range.addresses.start(), range.addresses.last());
            // A range of blocks is whole granules, so that the first address of another lies behind all.
            while addr < last {
                let len = match self.map.slab(addr) {
                    Some(slab) if slab.addr() == addr => {
                        // As it is now: it may have become another one's when its blocks were visited.
                        let len = slab.len_bytes();
                        self.walk_slab(slab, addr, &mut visit)?;
                        len
                    }
                    _ => 0,
                };
                match addr.checked_add(len.max(GRANULE)) {
                    Some(next) => addr = next,
                    None => break,
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Visits the live blocks of the slab that starts at `start`, as long as it does.
    fn walk_slab<B>(
        &self,
        slab: Handle,
        start: usize,
        visit: &mut impl FnMut(BlockInfo) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let mut index = 0;
        while let Some((found, addr, len)) = slab.live_from(index)
            && slab.addr() == start
            && self.map.slab(start) == Some(slab)
        {
            visit(BlockInfo { addr, len })?;
            index = found + 1;
        }
        ControlFlow::Continue(())
    }
}
