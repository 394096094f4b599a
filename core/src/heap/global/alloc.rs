//! The calls of [`GlobalAlloc`].

use super::{CacheGuard, GlobalHeap, StaticHeap};
use crate::heap::HeapError;
use core::{
    alloc::{GlobalAlloc, Layout},
    hint::cold_path,
    ptr::{NonNull, null_mut, without_provenance_mut},
};

// SAFETY: blocks are of the asked for size and alignment, their users' alone until they are freed,
// and stay where they are; what is refused leaves all as it was. Nothing unwinds: `refused` must
// not, and nothing else panics. Nothing here allocates from a global allocator.
unsafe impl<C: StaticHeap> GlobalAlloc for GlobalHeap<C> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if C::HARDENED {
            if let Some(guard) = CacheGuard::<C>::begin_quick()
                && let Some(block) = guard.cache.alloc_sealed(layout)
            {
                guard.count(layout.size());
                return block.as_ptr();
            }
            cold_path();
            return Self::alloc_hardened(layout);
        }
        if let Some(guard) = CacheGuard::<C>::begin_quick()
            && let Some(block) = guard.alloc(layout)
        {
            return block.as_ptr();
        }
        cold_path();
        Self::alloc_slow(layout)
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: by the contract a block of this heap's, so not null.
        let block = unsafe { NonNull::new_unchecked(block) };
        if C::HARDENED {
            if let Some(guard) = CacheGuard::<C>::begin_quick()
                // SAFETY: by the contract the block is live, and its user gives it up.
                && unsafe { guard.cache.free_sealed(block, layout) }
            {
                return;
            }
            cold_path();
            // SAFETY: by the contract the block has this layout and its user gives it up; it was
            // left as it is.
            unsafe { self.dealloc_hardened(block, layout) };
            return;
        }
        if let Some(guard) = CacheGuard::<C>::begin_quick()
            // SAFETY: by the contract the block is live, and its user gives it up.
            && unsafe { guard.free(block, Some(layout)) }
        {
            return;
        }
        cold_path();
        // SAFETY: by the contract the block's user gives it up.
        unsafe { self.dealloc_other(block, layout) };
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if let Some(guard) = CacheGuard::<C>::begin_quick()
            && let Some(block) = guard.alloc_zeroed(layout)
        {
            return block.as_ptr();
        }
        cold_path();
        Self::alloc_zeroed_slow(layout)
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: by the contract a block of this heap's, so not null.
        let at = unsafe { NonNull::new_unchecked(block) };
        let moved = if let Some(guard) = CacheGuard::<C>::begin_quick() {
            let local = guard.local();
            let moved = if C::CHECKED {
                // SAFETY: by the contract the block has this layout, and its user gives it up.
                unsafe { local.realloc_quick::<true>(at, layout, new_size) }
            } else {
                // SAFETY: by the contract the block is live and has this layout, and its user gives
                // it up.
                unsafe { local.realloc_quick::<false>(at, layout, new_size) }
            };
            if let Some(block) = moved {
                return block.as_ptr();
            }
            // SAFETY: by the contract the block has this layout, and its user gives it up; it was
            // left as it is.
            unsafe { local.realloc_slow(at, layout, new_size) }
        } else {
            Self::call(
                // SAFETY: by the contract the block has this layout, and its user gives it up.
                |local| unsafe { local.realloc(at, layout, new_size) },
                // SAFETY: by the contract the block has this layout, and its user gives it up.
                |heap| unsafe { heap.realloc(at, layout, new_size) },
                // SAFETY: by the contract the block has this layout, and its user gives it up.
                |heap| unsafe { heap.try_realloc(at, layout, new_size) },
            )
        };
        if let Err(error) = moved
            && error.is_invalid_free()
        {
            C::refused(block, error);
        }
        Self::or_null(moved)
    }
}

impl<C: StaticHeap> GlobalHeap<C> {
    /// Allocates a block of a heap that is thought to be hardened, if a quick call does not.
    #[inline(never)]
    fn alloc_hardened(layout: Layout) -> *mut u8 {
        if let Some(guard) = CacheGuard::<C>::begin_quick() {
            if let Some(block) = guard.local().alloc_sealed(layout) {
                drop(guard);
                return Self::or_null(block);
            }
            if let Some(block) = guard.alloc(layout) {
                return block.as_ptr();
            }
        }
        Self::alloc_slow(layout)
    }

    /// Frees a block of a heap that is thought to be hardened, if a quick call does not.
    ///
    /// # Safety
    ///
    /// Those of [`GlobalAlloc::dealloc`].
    #[inline(never)]
    unsafe fn dealloc_hardened(&self, block: NonNull<u8>, layout: Layout) {
        let freed = CacheGuard::<C>::begin_quick().and_then(|guard| {
            // SAFETY: `free_sealed` asks for a block of this layout whose user gives it up, which
            // the contract of `dealloc` says.
            unsafe { guard.local().free_sealed(block, layout) }
        });
        match freed {
            Some(Ok(())) => {}
            Some(Err(error)) => C::refused(block.as_ptr(), error),
            // SAFETY: by the contract of `dealloc` the block's user gives it up; it was left as it
            // is.
            None => unsafe { self.dealloc_other(block, layout) },
        }
    }

    #[cold]
    #[inline(never)]
    fn alloc_slow(layout: Layout) -> *mut u8 {
        Self::or_null(Self::alloc_by(layout))
    }

    #[cold]
    #[inline(never)]
    fn alloc_zeroed_slow(layout: Layout) -> *mut u8 {
        Self::or_null(Self::alloc_zeroed_by(layout))
    }

    /// Frees a block that a quick call does not.
    ///
    /// # Safety
    ///
    /// Those of [`GlobalAlloc::dealloc`].
    #[inline(never)]
    unsafe fn dealloc_other(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: by the contract a live block of this heap, whose user gives it up, and its
        // layout.
        match unsafe { Self::free_other(block, Some(layout)) } {
            // It went with the heap.
            Ok(()) | Err(HeapError::Closed) => {}
            Err(error) => C::refused(block.as_ptr(), error),
        }
    }

    fn or_null(result: Result<NonNull<u8>, HeapError>) -> *mut u8 {
        if let Err(error @ (HeapError::WriteAfterFree(at) | HeapError::Overflow(at))) = result {
            C::refused(without_provenance_mut(at.addr()), error);
        }
        result.map_or(null_mut(), NonNull::as_ptr)
    }
}
