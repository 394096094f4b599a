//! The calls that need no layout, of a heap in a static.

use super::{aligned, sized};
use crate::heap::{
    BlockInfo, GlobalHeap, HeapError,
    global::{CacheGuard, StaticHeap},
};
use core::{alloc::Layout, hint::cold_path, ptr::NonNull};

/// The calls that a C library's `malloc` consists of. A thread that is in one of them is marked as
/// it is in those of [`GlobalAlloc`](core::alloc::GlobalAlloc), so they may be made from signal
/// handlers as well. [`StaticHeap::refused`] is not told of errors: they are returned.
///
/// ```
/// use hostmem_core::heap::{GlobalHeap, HeapError, StaticHeap};
///
/// fn example<C: StaticHeap>(heap: &GlobalHeap<C>) -> Result<(), HeapError> {
///     let block = heap.alloc_bytes(100)?;
///     assert!(heap.owns(block.addr().get()));
///     // SAFETY: allocated above; the old address is not used again.
///     let block = unsafe { heap.realloc_bytes(block, 5000)? };
///     // SAFETY: live, and not used again.
///     unsafe { heap.free(block)? };
///     heap.flush();
///     Ok(())
/// }
/// ```
impl<C: StaticHeap> GlobalHeap<C> {
    /// Allocates a block of `size` bytes, aligned to 16; its contents are undefined. A block of
    /// size zero has an address of its own.
    ///
    /// # Errors
    ///
    /// [`HeapError::InvalidSize`] for more bytes than half of the address space;
    /// [`HeapError::Busy`] in a signal handler that interrupted a call of this heap, where only a
    /// lock would help; otherwise those of [`StaticHeap::open`] and
    /// [`LocalHeap::alloc`](crate::heap::LocalHeap::alloc).
    #[inline]
    pub fn alloc_bytes(&self, size: usize) -> Result<NonNull<u8>, HeapError> {
        let layout = sized(size)?;
        if let Some(guard) = CacheGuard::<C>::begin_quick()
            && let Some(block) = guard.alloc(layout)
        {
            return Ok(block);
        }
        cold_path();
        Self::alloc_by(layout)
    }

    /// As [`GlobalHeap::alloc_bytes`], but returns what `failed` makes of an error: a null pointer,
    /// for instance. The quickest of these calls, since its result is but a pointer.
    ///
    /// ```
    /// use core::ptr::null_mut;
    /// use hostmem_core::heap::{GlobalHeap, StaticHeap};
    ///
    /// fn malloc<C: StaticHeap>(heap: &GlobalHeap<C>, size: usize) -> *mut u8 {
    ///     heap.alloc_bytes_or_else(size, |_error| null_mut())
    /// }
    /// ```
    #[inline]
    pub fn alloc_bytes_or_else(
        &self,
        size: usize,
        failed: impl FnOnce(HeapError) -> *mut u8,
    ) -> *mut u8 {
        if let Ok(layout) = sized(size)
            && let Some(guard) = CacheGuard::<C>::begin_quick()
            && let Some(block) = guard.alloc(layout)
        {
            return block.as_ptr();
        }
        cold_path();
        Self::alloc_by_or_else(size, failed)
    }

    #[cold]
    #[inline(never)]
    fn alloc_by_or_else(size: usize, failed: impl FnOnce(HeapError) -> *mut u8) -> *mut u8 {
        let result = sized(size).and_then(Self::alloc_by);
        result.map_or_else(failed, NonNull::as_ptr)
    }

    /// Allocates a block of `size` bytes that read zero, aligned to 16.
    ///
    /// # Errors
    ///
    /// See [`GlobalHeap::alloc_bytes`].
    pub fn alloc_bytes_zeroed(&self, size: usize) -> Result<NonNull<u8>, HeapError> {
        let layout = sized(size)?;
        if let Some(guard) = CacheGuard::<C>::begin_quick()
            && let Some(block) = guard.alloc_zeroed(layout)
        {
            return Ok(block);
        }
        cold_path();
        Self::alloc_zeroed_by(layout)
    }

    /// Allocates a block of `size` bytes at a multiple of `align`, and of 16; its contents are
    /// undefined.
    ///
    /// # Errors
    ///
    /// [`HeapError::InvalidSize`] where `align` is no power of two; otherwise those of
    /// [`GlobalHeap::alloc_bytes`].
    #[inline]
    pub fn alloc_aligned(&self, size: usize, align: usize) -> Result<NonNull<u8>, HeapError> {
        let layout = aligned(size, align)?;
        if let Some(guard) = CacheGuard::<C>::begin_quick()
            && let Some(block) = guard.alloc(layout)
        {
            return Ok(block);
        }
        cold_path();
        Self::alloc_by(layout)
    }

    /// Allocates a block, by the call that the state of the thread permits.
    #[cold]
    #[inline(never)]
    pub(in crate::heap) fn alloc_by(layout: Layout) -> Result<NonNull<u8>, HeapError> {
        Self::call(
            |local| local.alloc_slow(layout),
            |heap| heap.alloc(layout),
            |heap| heap.try_alloc(layout),
        )
    }

    /// Allocates a block that reads zero, by the call that the state of the thread permits.
    #[cold]
    #[inline(never)]
    pub(in crate::heap) fn alloc_zeroed_by(layout: Layout) -> Result<NonNull<u8>, HeapError> {
        Self::call(
            |local| local.alloc_zeroed(layout),
            |heap| heap.alloc_zeroed(layout),
            |heap| heap.try_alloc_zeroed(layout),
        )
    }

    /// Frees a block. It may be from any call that allocates, of any thread.
    ///
    /// # Errors
    ///
    /// [`HeapError::NotOwned`], [`HeapError::NotLive`] or [`HeapError::Interior`] where `block` is
    /// not the start of a live block, and [`HeapError::Overflow`] for one that is corrupt. Where
    /// [`StaticHeap::CHECKED`] is false, a block that is free may not be noticed.
    ///
    /// # Safety
    ///
    /// If it is the start of a live block of this heap, it is not used any more. Where
    /// [`StaticHeap::CHECKED`] is false, it is the start of a live block of this heap.
    #[inline]
    pub unsafe fn free(&self, block: NonNull<u8>) -> Result<(), HeapError> {
        if let Some(guard) = CacheGuard::<C>::begin_quick()
            // SAFETY: the caller gives the block up, if it is one; unless frees are checked, it is
            // live.
            && unsafe { guard.free(block, None) }
        {
            return Ok(());
        }
        cold_path();
        // SAFETY: the caller gives the block up, if it is one; unless frees are checked, it is.
        unsafe { Self::free_other(block, None) }
    }

    /// As [`GlobalHeap::free`], but tells `failed` of an error. The quickest of these calls, since
    /// it has no result.
    ///
    /// ```
    /// use core::ptr::NonNull;
    /// use hostmem_core::heap::{GlobalHeap, StaticHeap};
    ///
    /// /// # Safety
    /// ///
    /// /// The block is of the heap, and is not used any more.
    /// unsafe fn free<C: StaticHeap>(heap: &GlobalHeap<C>, block: NonNull<u8>) {
    ///     // SAFETY: the caller's promise, which is the same.
    ///     unsafe { heap.free_or_else(block, |error| panic!("{error}")) };
    /// }
    /// ```
    ///
    /// # Safety
    ///
    /// Those of [`GlobalHeap::free`].
    #[inline]
    pub unsafe fn free_or_else(&self, block: NonNull<u8>, failed: impl FnOnce(HeapError)) {
        if let Some(guard) = CacheGuard::<C>::begin_quick()
            // SAFETY: the caller gives the block up, if it is one; unless frees are checked, it is
            // live.
            && unsafe { guard.free(block, None) }
        {
            return;
        }
        cold_path();
        // SAFETY: `free_other_or_else` asks what this function does: the caller gives the block up,
        // if it is one.
        unsafe { Self::free_other_or_else(block, failed) };
    }

    /// # Safety
    ///
    /// Those of [`GlobalHeap::free`].
    #[inline(never)]
    unsafe fn free_other_or_else(block: NonNull<u8>, failed: impl FnOnce(HeapError)) {
        // SAFETY: `free_other` asks what this function does: the caller gives the block up, if it
        // is one.
        if let Err(error) = unsafe { Self::free_other(block, None) } {
            failed(error);
        }
    }

    /// Frees a block that a quick call does not. A layout is compared with what was asked for if
    /// the heap is hardened.
    ///
    /// # Safety
    ///
    /// Those of [`GlobalHeap::free`].
    #[inline(never)]
    pub(in crate::heap) unsafe fn free_other(
        block: NonNull<u8>,
        layout: Option<Layout>,
    ) -> Result<(), HeapError> {
        if let Some(guard) = CacheGuard::<C>::begin_quick() {
            let local = guard.local();
            let freed = if C::CHECKED {
                // SAFETY: the caller gives the block up, if it is one.
                unsafe { local.free_cached::<true>(block) }
            } else {
                // SAFETY: the caller gives the block up, and it is live.
                unsafe { local.free_cached::<false>(block) }
            };
            if freed {
                return Ok(());
            }
            // SAFETY: the caller gives the block up, if it is one.
            return unsafe { local.free_slow(block, layout) };
        }
        // SAFETY: the caller gives the block up, if it is one.
        unsafe { Self::free_by(block, layout) }
    }

    /// # Safety
    ///
    /// Those of [`GlobalHeap::free`].
    #[cold]
    #[inline(never)]
    unsafe fn free_by(block: NonNull<u8>, layout: Option<Layout>) -> Result<(), HeapError> {
        Self::call(
            // SAFETY: the caller gives the block up, if it is one.
            |local| unsafe { local.free_as(block, layout) },
            // SAFETY: the caller gives the block up, if it is one.
            |heap| unsafe { heap.free_as(block, layout) },
            // SAFETY: the caller gives the block up, if it is one.
            |heap| unsafe { heap.try_free_as(block, layout) },
        )
    }

    /// Makes a block `new_size` bytes long, where it lies or elsewhere; its contents stay, as far
    /// as they fit. See [`LocalHeap::realloc_bytes`](crate::heap::LocalHeap::realloc_bytes).
    ///
    /// # Errors
    ///
    /// Those of [`GlobalHeap::alloc_bytes`] and [`GlobalHeap::free`]; the block stays as it is
    /// then.
    ///
    /// # Safety
    ///
    /// If `block` is the start of a live block of this heap, it is not used during the call, nor
    /// afterwards where another one is returned.
    pub unsafe fn realloc_bytes(
        &self,
        block: NonNull<u8>,
        new_size: usize,
    ) -> Result<NonNull<u8>, HeapError> {
        if let Some(guard) = CacheGuard::<C>::begin_quick() {
            // SAFETY: the caller gives the block up, if it is one.
            return unsafe { guard.local().realloc_bytes(block, new_size) };
        }
        cold_path();
        Self::call(
            // SAFETY: the caller gives the block up, if it is one.
            |local| unsafe { local.realloc_bytes(block, new_size) },
            // SAFETY: the caller gives the block up, if it is one.
            |heap| unsafe { heap.realloc_bytes(block, new_size) },
            |heap| {
                let layout = heap.usable_layout(block)?;
                // SAFETY: the caller gives the block up; all bytes of the layout are its own.
                unsafe { heap.try_realloc(block, layout, new_size) }
            },
        )
    }

    /// Returns how many bytes of the live block that starts at `block` may be used; `None` where
    /// none does. Takes no lock, and does not open the heap.
    #[inline]
    #[must_use]
    pub fn usable_size(&self, block: NonNull<u8>) -> Option<usize> {
        C::state().get()?.usable_size(block)
    }

    /// Says whether `addr`, any address at all, lies in the heap's memory. See
    /// [`Heap::owns`](crate::heap::Heap::owns). Takes no lock, and does not open the heap.
    #[inline]
    #[must_use]
    pub fn owns(&self, addr: usize) -> bool {
        C::state().get().is_some_and(|heap| heap.owns(addr))
    }

    /// Finds the live block around `addr`, any address at all. See
    /// [`Heap::block_of`](crate::heap::Heap::block_of). Takes no lock, and does not open the heap.
    #[inline]
    #[must_use]
    pub fn block_of(&self, addr: usize) -> Option<BlockInfo> {
        C::state().get()?.block_of(addr)
    }

    /// Gives the free blocks that the calling thread has cached back to the heap, for other threads
    /// to use or for the host. See [`LocalHeap::flush`](crate::heap::LocalHeap::flush). Does
    /// nothing in a signal handler that interrupted a call of this heap.
    pub fn flush(&self) {
        if let Some(guard) = CacheGuard::<C>::begin_quick() {
            guard.local().flush();
        }
    }
}
