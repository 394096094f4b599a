//! How a thread resizes a block: where it lies, or by a cached block and a short copy.

use super::LocalHeap;
use crate::{
    heap::{
        class::{self, STEP},
        error::HeapError,
        slab::{Entry, LIVE},
    },
    provider::PageProvider,
    sync::RawMutex,
};
use core::{alloc::Layout, mem::MaybeUninit, ptr::NonNull, sync::atomic::Ordering::Release};

/// Bytes that are copied step by step at most; a call that knows better ways does more.
const COPIED: usize = 512;

impl<'heap, P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> LocalHeap<'heap, P, M, R> {
    /// Makes a block `new_size` bytes long, where it lies or elsewhere; its contents stay, as far
    /// as they fit.
    ///
    /// # Errors
    ///
    /// Those of [`LocalHeap::alloc`] and [`LocalHeap::free`]; the block stays as it is then.
    ///
    /// # Safety
    ///
    /// If `block` is the start of a live block of this heap, that was allocated or last resized
    /// with `layout`, and it is not used during the call, nor afterwards where another one is
    /// returned.
    pub unsafe fn realloc(
        &self,
        block: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Result<NonNull<u8>, HeapError> {
        // SAFETY: `realloc_quick` asks what this function does: if the block is live, it has this
        // layout and is not used during the call.
        if let Some(block) = unsafe { self.realloc_quick::<true>(block, layout, new_size) } {
            return Ok(block);
        }
        // SAFETY: `realloc_slow` asks what this function does; the block was left as it is.
        unsafe { self.realloc_slow(block, layout, new_size) }
    }

    /// Resizes a block where it lies, or by one that is cached and small, if that is all that it
    /// takes.
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::realloc`]; the block is live unless `CHECKED`.
    #[inline]
    pub(in crate::heap) unsafe fn realloc_quick<const CHECKED: bool>(
        &self,
        block: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Option<NonNull<u8>> {
        if self.heap.is_hardened() {
            return None;
        }
        let (class, state) = self.live::<CHECKED>(block.addr().get())?;
        // SAFETY: it is live, with this class and state; the caller gives it up, and it is as long
        // as its layout says.
        unsafe { self.resize_live(Entry { block, state }, class, layout, new_size) }
    }

    /// As [`LocalHeap::realloc_quick`], of a block whose layout is all that may be used of it.
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::realloc_bytes`].
    #[inline]
    pub(in crate::heap) unsafe fn realloc_bytes_quick(
        &self,
        block: NonNull<u8>,
        new_size: usize,
    ) -> Option<NonNull<u8>> {
        if self.heap.is_hardened() {
            return None;
        }
        let (class, state) = self.live::<true>(block.addr().get())?;
        let layout = Layout::from_size_align(class::size(class), STEP).ok()?;
        // SAFETY: it is live, with this class and state; the caller gives it up, and all of it may
        // be used.
        unsafe { self.resize_live(Entry { block, state }, class, layout, new_size) }
    }

    /// Does that, of a block that is known to be live.
    ///
    /// # Safety
    ///
    /// The block is live, of this class, as long as its layout says, and not used during the call,
    /// nor afterwards where another one is returned. The heap is not hardened.
    #[inline]
    unsafe fn resize_live(
        &self,
        old: Entry,
        class: usize,
        layout: Layout,
        new_size: usize,
    ) -> Option<NonNull<u8>> {
        let Entry { block, state } = old;
        let new = Layout::from_size_align(new_size, layout.align()).ok()?;
        let size = class::size(class);
        if class::stays(size, new_size) {
            return Some(block);
        }
        let new_class = class::quick(class::with_slack(size, new))?;
        if new_class == class {
            return Some(block);
        }
        let len = layout.size().min(new_size);
        if len > COPIED {
            return None;
        }
        let target = self.magazine(new_class).pop()?;
        target.state().store(LIVE, Release);
        let (from, to) = (block.cast::<[MaybeUninit<u8>; STEP]>(), target.block.cast());
        for n in 0..len.div_ceil(STEP) {
            // SAFETY: blocks are whole steps long, and both hold len bytes.
            let from = unsafe { from.add(n) };
            // SAFETY: blocks are whole steps long, and both hold len bytes.
            let to = unsafe { to.add(n) };
            // SAFETY: inside two blocks that are live and aligned to a step, and share no byte.
            // Bytes behind what the user has may be uninitialised, as the type says.
            unsafe { to.copy_from_nonoverlapping(from, 1) };
        }
        if !self.magazine(class).push_live(Entry { block, state }) {
            // SAFETY: the caller gives the block up, which is live: its state has not changed since
            // it was looked at.
            let freed = unsafe { self.free_slow(block, None) };
            debug_assert!(freed.is_ok(), "it was live: {freed:?}");
        }
        self.count(new_size);
        Some(target.block)
    }

    /// Does what [`LocalHeap::realloc_quick`] does not.
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::realloc`].
    #[inline(never)]
    pub(in crate::heap) unsafe fn realloc_slow(
        &self,
        block: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Result<NonNull<u8>, HeapError> {
        if self.stays_big(block, new_size) {
            return Ok(block);
        }
        let alloc = |new| self.alloc(new);
        // SAFETY: the caller gives the block up.
        let free = || unsafe { self.free(block) };
        // SAFETY: `realloc_by` asks what this function does: if the block is live, it has this
        // layout and is not used during the call; `alloc` returns a block that only this call
        // knows.
        unsafe { self.heap.realloc_by(block, layout, new_size, alloc, free) }
    }

    /// Does what [`LocalHeap::realloc_bytes_quick`] does not.
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::realloc_bytes`].
    #[inline(never)]
    pub(in crate::heap) unsafe fn realloc_bytes_slow(
        &self,
        block: NonNull<u8>,
        new_size: usize,
    ) -> Result<NonNull<u8>, HeapError> {
        if self.stays_big(block, new_size) {
            return Ok(block);
        }
        let layout = self.heap.usable_layout(block)?;
        // SAFETY: the caller gives the block up; all bytes of the layout are its own.
        unsafe { self.realloc_slow(block, layout, new_size) }
    }

    /// Says whether a block without a class is live and long enough, and not much too long.
    #[inline]
    fn stays_big(&self, block: NonNull<u8>, new_size: usize) -> bool {
        !self.heap.is_hardened()
            && self
                .live_big(block.addr().get())
                .is_some_and(|slab| self.heap.stays_big(slab, new_size))
    }
}
