//! The reentrancy guards: a thread that is in a call of a heap in a static says so, in its cache or
//! in its slot, so that a signal handler that interrupts the call sees it.

use super::{LocalOf, StaticHeap};
use crate::{
    arch::store_stack_pointer,
    atomic::own_usize,
    heap::{
        LocalHeap, ThreadSlot,
        cache::CacheRef,
        shared::cleared,
        slot::{BUSY, FRESH, is_cache},
    },
};
use core::{
    alloc::Layout,
    marker::PhantomData,
    mem::{self, ManuallyDrop},
    ptr::{NonNull, null_mut},
    sync::atomic::{
        AtomicUsize,
        Ordering::{Relaxed, SeqCst},
        compiler_fence,
    },
};

/// A call of a thread that has a cache, which says so while this lives.
pub(in crate::heap) struct CacheGuard<C: StaticHeap> {
    pub(super) cache: CacheRef,
    _config: PhantomData<C>,
}

impl<C: StaticHeap> CacheGuard<C> {
    /// Begins a call of a thread whose slot has this value, if that is a cache that is in no call.
    #[inline]
    pub(in crate::heap) fn begin(slot: *mut ()) -> Option<Self> {
        Self::begin_by(slot, store_stack_pointer)
    }

    /// As [`CacheGuard::begin`], by a function that stores where the stack ends at most in the
    /// call.
    #[inline(always)]
    fn begin_by(slot: *mut (), store: impl FnOnce(&AtomicUsize)) -> Option<Self> {
        if !C::Slot::IS_NEVER_NULL && slot.is_null() {
            return None;
        }
        // SAFETY: slots hold what `attach` put there, or where a mark lies that is no cache's.
        let mark = unsafe { CacheRef::mark(slot) };
        // SAFETY: only the thread that has the cache changes it, which this is, and nothing changes
        // those that are no cache's.
        if unsafe { own_usize(mark) } != 0 {
            return None;
        }
        store(mark);
        // SAFETY: what `attach` put there: the marks that are no cache's are not zero.
        let cache = unsafe { CacheRef::from_slot(slot) };
        // A handler on this thread sees the mark before what follows; no other thread looks.
        compiler_fence(SeqCst);
        Some(Self::of(cache))
    }

    /// Returns the call that a thread is in which has this cache, and is marked.
    #[inline]
    const fn of(cache: CacheRef) -> Self {
        Self {
            cache,
            _config: PhantomData,
        }
    }

    /// Begins a call of the calling thread.
    #[inline]
    pub(in crate::heap) fn begin_quick() -> Option<Self> {
        Self::begin(C::Slot::get())
    }

    /// Allocates a cached block.
    #[inline]
    pub(in crate::heap) fn alloc(&self, layout: Layout) -> Option<NonNull<u8>> {
        let block = self.cache.alloc_quick(layout)?;
        self.count(layout.size());
        Some(block)
    }

    /// Allocates a cached block that reads zero.
    #[inline]
    pub(in crate::heap) fn alloc_zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
        let told = self.cache.alloc_quick_told(layout)?;
        self.count(layout.size());
        Some(cleared(told, layout))
    }

    /// Counts what was asked for, of a cache that had a block, and so is a thread's.
    #[inline]
    pub(super) fn count(&self, bytes: usize) {
        if !self.cache.count(bytes) {
            self.local().look();
        }
    }

    /// Frees a block if it can be cached by a quick call; says whether it did.
    ///
    /// # Safety
    ///
    /// Those of [`GlobalHeap::free`](crate::heap::GlobalHeap::free). If there is a layout, it is
    /// the block's.
    #[inline]
    pub(in crate::heap) unsafe fn free(&self, block: NonNull<u8>, layout: Option<Layout>) -> bool {
        // In all cases the caller gives the block up, if it is one, as it is unless frees are
        // checked. The heap is there if the cache is a thread's, and others have no window to look
        // at.
        match layout {
            // SAFETY: the caller gives the block up, if it is one; the layout is its own.
            Some(layout) if C::CHECKED => unsafe {
                self.cache.free_quick_sized::<true>(block, layout)
            },
            // SAFETY: frees are not checked, so that the block is live; the caller gives it up, and
            // the layout is its own.
            Some(layout) => unsafe { self.cache.free_quick_sized::<false>(block, layout) },
            // SAFETY: the caller gives the block up, if it is one.
            None if C::CHECKED => unsafe { self.cache.free_quick::<true>(block) },
            // SAFETY: frees are not checked, so that the block is live; the caller gives it up.
            None => unsafe { self.cache.free_quick::<false>(block) },
        }
    }

    /// Returns the thread's handle.
    #[inline]
    pub(in crate::heap) fn local(&self) -> ManuallyDrop<LocalOf<C>> {
        // SAFETY: a thread with a cache has opened the heap.
        let heap = unsafe { C::state().get_unchecked() };
        // SAFETY: the cache is this thread's, as no other slot has it, and it says that it is
        // busy, so that a handler makes no other handle of it.
        ManuallyDrop::new(unsafe { LocalHeap::from_cache(heap, self.cache) })
    }

    /// Ends this call within one of a thread that loses its cache, and returns the handle.
    pub(super) fn into_local(self, _guard: &SlotGuard<C>) -> LocalOf<C> {
        let local = self.local();
        self.cache.mark.store(0, Relaxed);
        mem::forget(self);
        ManuallyDrop::into_inner(local)
    }
}

impl<C: StaticHeap> Drop for CacheGuard<C> {
    #[inline]
    fn drop(&mut self) {
        compiler_fence(SeqCst);
        self.cache.mark.store(0, Relaxed);
    }
}

/// A call of a thread without a cache, or that gets or loses one; while this lives, its slot says
/// so.
pub(super) struct SlotGuard<C: StaticHeap> {
    /// The value of the slot afterwards.
    pub(super) after: *mut (),
    _config: PhantomData<C>,
}

impl<C: StaticHeap> SlotGuard<C> {
    /// Begins a call of a thread whose slot is not [`BUSY`], and is to say `after` when it has
    /// ended.
    pub(super) fn begin(after: *mut ()) -> Self {
        C::Slot::set(BUSY);
        compiler_fence(SeqCst);
        Self::ending(after)
    }

    /// Returns the call that a marked thread without a cache is in.
    const fn ending(after: *mut ()) -> Self {
        Self {
            after,
            _config: PhantomData,
        }
    }
}

impl<C: StaticHeap> Drop for SlotGuard<C> {
    fn drop(&mut self) {
        compiler_fence(SeqCst);
        C::Slot::set(self.after);
    }
}

/// Returns what the slot of a thread says that has not called yet.
pub(super) const fn fresh<C: StaticHeap>() -> *mut () {
    if C::Slot::IS_NEVER_NULL {
        FRESH
    } else {
        null_mut()
    }
}

/// Marks the calling thread as one that is in a call, whose stack ends at `depth` or deeper until
/// it leaves; returns its cache, and what its slot said before, or [`BUSY`] if it was marked.
pub(super) fn enter<C: StaticHeap>(depth: usize) -> (Option<CacheRef>, *mut ()) {
    let slot = C::Slot::get();
    // SAFETY: slots hold what `attach` put there.
    let cache = is_cache(slot).then(|| unsafe { CacheRef::from_slot(slot) });
    // Not where the stack ends here: the call returns from here, and goes on.
    match CacheGuard::<C>::begin_by(slot, |mark| mark.store(depth, Relaxed)) {
        // `leave` takes the mark away.
        Some(guard) => mem::forget(guard),
        None if slot == BUSY || is_cache(slot) => return (cache, BUSY),
        None => mem::forget(SlotGuard::<C>::begin(slot)),
    }
    (cache, slot)
}

/// Takes away the mark that [`enter`] made, if it did.
pub(super) fn leave<C: StaticHeap>(before: *mut ()) {
    if before == BUSY {
        return;
    }
    if is_cache(before) {
        // SAFETY: slots hold what `attach` put there.
        let cache = unsafe { CacheRef::from_slot(before) };
        drop(CacheGuard::<C>::of(cache));
    } else {
        drop(SlotGuard::<C>::ending(before));
    }
}
