//! The calls that the quick ones leave over: of blocks without a class, and of magazines that are
//! empty or full.

use super::LocalHeap;
use crate::{
    heap::{
        class,
        error::HeapError,
        large::Big,
        shared::cleared,
        slab::{Entry, FREED, LIVE, ZERO},
    },
    provider::PageProvider,
    sync::RawMutex,
};
use core::{
    alloc::Layout,
    ptr::NonNull,
    sync::atomic::Ordering::{Relaxed, Release},
};

impl<'heap, P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> LocalHeap<'heap, P, M, R> {
    #[cold]
    #[inline(never)]
    pub(in crate::heap) fn alloc_slow(&self, layout: Layout) -> Result<NonNull<u8>, HeapError> {
        self.alloc_told(layout).map(|(block, _)| block)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn alloc_zeroed_slow(&self, layout: Layout) -> Result<NonNull<u8>, HeapError> {
        let told = self.alloc_told(layout)?;
        Ok(cleared(told, layout))
    }

    /// Allocates a block, and says whether it reads zero.
    fn alloc_told(&self, layout: Layout) -> Result<Big, HeapError> {
        if let Some(hardened) = &self.heap.hardened {
            return self.alloc_hardened(hardened, layout);
        }
        let Some(class) = class::of(layout) else {
            self.count_big(layout.size());
            return self.heap.alloc_big_or_reclaim(layout);
        };
        self.cache.count(layout.size());
        let entry = match self.magazine(class).pop() {
            Some(entry) => entry,
            None => self.refill(class)?,
        };
        let zero = entry.state().load(Relaxed) == ZERO;
        entry.state().store(LIVE, Release);
        Ok((entry.block, zero))
    }

    /// Frees a block that [`CacheRef::free_quick`](crate::heap::cache::CacheRef::free_quick) does
    /// not.
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::free_cached`].
    #[inline(never)]
    pub(super) unsafe fn free_other<const CHECKED: bool>(
        &self,
        block: NonNull<u8>,
    ) -> Result<(), HeapError> {
        // SAFETY: `free_cached` asks what this function does: the caller gives the block up, which
        // is live unless `CHECKED`.
        if unsafe { self.free_cached::<CHECKED>(block) } {
            return Ok(());
        }
        // SAFETY: `free_slow` asks that the caller gives the block up, if it is live; it was left
        // as it is.
        unsafe { self.free_slow(block, None) }
    }

    /// Frees a block for which there is no room in the cache, or that has no class, or says why
    /// there is none. A layout is compared with what was asked for if the heap is hardened.
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::free`].
    #[cold]
    #[inline(never)]
    pub(in crate::heap) unsafe fn free_slow(
        &self,
        block: NonNull<u8>,
        layout: Option<Layout>,
    ) -> Result<(), HeapError> {
        if self.heap.is_hardened() {
            // SAFETY: `free_hardened` asks what this function does: the caller gives the block up,
            // if it is live.
            return unsafe { self.free_hardened(block, layout) };
        }
        let addr = block.addr().get();
        let Some((class, state)) = self.live::<true>(addr) else {
            self.count_big(0);
            if let Some(slab) = self.live_big(addr) {
                return self.heap.free_big(slab, addr);
            }
            // SAFETY: `free_big_or_refuse` asks what this function does: the caller gives the block
            // up, if it is live.
            return unsafe { self.heap.free_big_or_refuse(addr) };
        };
        self.maintain();
        let entry = Entry { block, state };
        entry.take_live(FREED)?;
        self.keep(class, entry);
        Ok(())
    }

    /// Counts a call for a block without a class, and looks at the clock if it is time to.
    pub(super) fn count_big(&self, bytes: usize) {
        if self.cache.count_big(bytes) {
            self.heap.take_deferred();
        } else {
            self.maintain();
        }
    }
}
