//! A thread's calls of a hardened heap.

use super::LocalHeap;
use crate::{
    heap::{
        class::CLASSES,
        error::HeapError,
        hardened::{self, Hardened},
        large::Big,
    },
    provider::PageProvider,
    sync::RawMutex,
};
use core::{alloc::Layout, ptr::NonNull};

impl<'heap, P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> LocalHeap<'heap, P, M, R> {
    /// Allocates a block of a hardened heap, if one is cached.
    #[inline]
    pub(in crate::heap) fn alloc_sealed(
        &self,
        layout: Layout,
    ) -> Option<Result<NonNull<u8>, HeapError>> {
        let hardened = self.heap.hardened.as_ref()?;
        if hardened.is_full()
            && let Some(block) = self.alloc_full(hardened, layout)
        {
            return Some(block);
        }
        let class = hardened::class_for(layout)?;
        let entry = hardened.pop(&self.cache, class)?;
        self.count(layout.size());
        let slab = self.slab_around(entry.block.addr().get());
        let told = self.heap.hand_out(slab, entry, class, layout);
        Some(told.map(|(block, _)| block))
    }

    /// Frees a block if the heap is hardened, or says why it cannot be.
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::free_sized`].
    #[inline]
    pub(in crate::heap) unsafe fn free_sealed(
        &self,
        block: NonNull<u8>,
        layout: Layout,
    ) -> Option<Result<(), HeapError>> {
        let hardened = self.heap.hardened.as_ref()?;
        // SAFETY: `free_full` asks what this function does: the caller gives the block up, if it is
        // live.
        if hardened.is_full() && !self.cache.is_due() && unsafe { self.free_full(block, layout) } {
            return Some(Ok(()));
        }
        // SAFETY: `free_hardened` asks that the caller gives the block up, if it is live; it was
        // left as it is.
        Some(unsafe { self.free_hardened(block, Some(layout)) })
    }

    /// Allocates a block of a hardened heap, and says whether it reads zero.
    pub(super) fn alloc_hardened(
        &self,
        hardened: &Hardened,
        layout: Layout,
    ) -> Result<Big, HeapError> {
        let Some(class) = hardened::class_for(layout) else {
            self.count_big(layout.size());
            return self.heap.alloc_big_sealed(layout);
        };
        self.count(layout.size());
        let entry = match hardened.pop(&self.cache, class) {
            Some(entry) => entry,
            None => self.refill(class)?,
        };
        self.heap.hand_out(None, entry, class, layout)
    }

    /// Frees a block of a hardened heap, or says why not.
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::free`].
    pub(super) unsafe fn free_hardened(
        &self,
        block: NonNull<u8>,
        layout: Option<Layout>,
    ) -> Result<(), HeapError> {
        if self.cache.is_due() {
            self.maintain();
        }
        let find = |addr| self.slab_around(addr);
        if find(block.addr().get()).is_none_or(|slab| slab.class() >= CLASSES) {
            self.count_big(0);
        }
        let keep = |class, entry| self.keep(class, entry);
        // SAFETY: `free_hardened` asks what this function does: the caller gives the block up, if
        // it is live.
        unsafe { self.heap.free_hardened(block, find, layout, keep) }
    }
}
