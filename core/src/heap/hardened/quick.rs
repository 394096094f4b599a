//! The quick calls of the highest level of hardening: of blocks whose class a table tells. They
//! change nothing where something is not as it should be, and leave it to the calls of
//! [`hardened`].

use crate::heap::{
    Heap, LocalHeap,
    class::{self, STEP},
    error::HeapError,
    hardened::{self, CANARY_LEAST, Hardened, PATTERN, Tail},
    map,
    slab::{CLAIMED, Entry, FREED, Handle, LIVE},
};
use crate::{provider::PageProvider, sync::RawMutex};
use core::{
    alloc::Layout,
    hint::cold_path,
    ptr::NonNull,
    sync::atomic::Ordering::{Relaxed, Release},
};

/// Where blocks for a layout lie, and how much of them is not asked for.
#[derive(Clone, Copy)]
struct Fit {
    place: usize,
    size: usize,
    /// Beside a canary's least length.
    slack: usize,
}

impl Fit {
    #[inline]
    fn of(layout: Layout) -> Option<Self> {
        if layout.align() > STEP {
            return None;
        }
        let len = layout.size() + CANARY_LEAST;
        let place = class::quick_place_of(len)?;
        let size = class::quick_size_of(len);
        Some(Self {
            place,
            size,
            slack: size - len,
        })
    }

    /// Says how far behind a block's state the slack is noted, and whether by two bytes.
    #[inline]
    const fn notes(&self, reciprocal: u64) -> (usize, bool) {
        if self.size <= class::BYTE_MAX {
            (class::slack_after_quick(reciprocal), false)
        } else {
            (class::FEW_BLOCKS, true)
        }
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> LocalHeap<'_, P, M, R> {
    /// Allocates a block at the highest level, if one is cached. The heap is of that level.
    #[inline]
    pub(in crate::heap) fn alloc_full(
        &self,
        hardened: &Hardened,
        layout: Layout,
    ) -> Option<Result<NonNull<u8>, HeapError>> {
        let fit = Fit::of(layout)?;
        let cache = self.cache();
        // SAFETY: `quick_place_of` returns what `class::place` does for sizes that are not zero;
        // the cache is of a hardened heap.
        let magazine = unsafe { cache.stack_at(fit.place) };
        let class = fit.place / class::MAGAZINE - class::FIRST_KIND;
        let entry = hardened.pop_any(&cache, class, magazine)?;
        self.count(layout.size());
        // SAFETY: free, and this thread's; filled when it was freed, unless it was never used;
        // blocks are whole steps long.
        let is_filled = unsafe { hardened::is_all(entry.block, fit.size, PATTERN) };
        let value = self.value(entry.block.addr().get());
        // SAFETY: a value of the heap's map, and the heap is borrowed.
        let slab = unsafe { map::slab(value) };
        let (true, Some(slab)) = (is_filled, slab) else {
            cold_path();
            let told = self.heap().hand_out(slab, entry, class, layout);
            return Some(told.map(|(block, _)| block));
        };
        let (after, is_wide) = fit.notes(magazine.reciprocal);
        // SAFETY: slabs of hardened heaps keep what was asked for; the class is of this size.
        unsafe { entry.set_slack(after, fit.slack, is_wide) };
        // SAFETY: a block of the slab around it; the heap is of the highest level.
        let canary = unsafe { slab.canary_of(entry) };
        // SAFETY: the block is as long, and more than what is asked for.
        let tail = unsafe { Tail::full(entry.block, fit.size, layout.size(), canary) };
        // SAFETY: the block was taken out of its magazine, so that this call has it alone.
        unsafe { tail.write() };
        entry.state().store(LIVE, Release);
        Some(Ok(entry.block))
    }

    /// Frees a block at the highest level, if all is as it should be; says whether it did. The heap
    /// is of that level.
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::free_sized`].
    #[inline]
    pub(in crate::heap) unsafe fn free_full(&self, block: NonNull<u8>, layout: Layout) -> bool {
        let Some(fit) = Fit::of(layout) else {
            return false;
        };
        let addr = block.addr().get();
        let value = self.value(addr);
        if !map::has_place(value, fit.place) {
            return false;
        }
        // SAFETY: a value of the heap's map, and the heap is borrowed.
        let Some(slab) = (unsafe { map::slab(value) }) else {
            return false;
        };
        let cache = self.cache();
        // SAFETY: `quick_place_of` returns what `class::place` does for sizes that are not zero;
        // the cache is of a hardened heap.
        let magazine = unsafe { cache.stack_at(fit.place) };
        // SAFETY: a value of the heap's map with this place, and the class's own reciprocal.
        let state = unsafe { map::live_quick::<true>(value, addr, magazine.reciprocal) };
        let Some(state) = state else {
            return false;
        };
        let entry = Entry { block, state };
        // One of two that free it at the same moment.
        if entry.take_live(CLAIMED).is_err() {
            return false;
        }
        let (after, is_wide) = fit.notes(magazine.reciprocal);
        // The slab may be that of other blocks since the value was read.
        let is_right = self.value(addr) == value
            // SAFETY: slabs of hardened heaps keep what was asked for; the class is of this size,
            // as the place of the value says.
            && unsafe { entry.slack(after, is_wide) } == fit.slack
            && {
                // SAFETY: a block of the slab around it, which has a class; the heap is of the
                // highest level.
                let canary = unsafe { slab.canary_of(entry) };
                // SAFETY: the block is as long as its class, and that is more than what the layout
                // asks for.
                let tail = unsafe { Tail::full(block, fit.size, layout.size(), canary) };
                // SAFETY: it was written when the block was made live.
                unsafe { tail.is_intact() }
            };
        if !is_right {
            cold_path();
            entry.state().store(LIVE, Release);
            return false;
        }
        entry.state().store(FREED, Relaxed);
        self.release_full(slab, entry, fit.size);
        true
    }

    /// Fills a block that was freed, and has it wait.
    #[inline]
    fn release_full(&self, slab: Handle, entry: Entry, size: usize) {
        // SAFETY: free, and this call's until it waits; as long.
        unsafe { hardened::fill(entry.block, size) };
        let find = |addr| {
            // SAFETY: a value of the heap's map, and the heap is borrowed.
            unsafe { map::slab(self.value(addr)) }
        };
        let heap: &Heap<P, M, R> = self.heap();
        heap.wait(slab, entry, find, |class, entry| self.keep(class, entry));
    }
}
