//! Where a heap in a static lies, and how it is opened and closed.

use super::{CacheGuard, GlobalHeap, HeapOf, SlotGuard, StaticHeap, enter, leave};
use crate::{
    heap::{
        HeapError, ThreadSlot,
        cache::CacheRef,
        parts::Mark,
        slot::{BUSY, DETACHED, NOWHERE, is_cache},
    },
    sync::Lock,
};
use core::{
    cell::UnsafeCell,
    fmt,
    mem::MaybeUninit,
    sync::atomic::{
        AtomicBool,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
        compiler_fence,
    },
};

/// Where a heap in a static lies, once it is open.
pub struct State<C: StaticHeap> {
    heap: UnsafeCell<MaybeUninit<HeapOf<C>>>,
    is_open: AtomicBool,
    /// Whether the heap was closed, and `is_open` stays false.
    is_closed: AtomicBool,
    pub(super) opening: Lock<(), C::Lock>,
    is_registered: AtomicBool,
}

// SAFETY: the heap is written once, under the lock, before `is_open` says so by Release; it is only
// read after that was seen, and it is Sync. Its parts are Send by the bounds of the trait. It is
// dropped once, by a call whose caller promises that no other one is under way, after `is_open`
// says that it is not there.
unsafe impl<C: StaticHeap> Sync for State<C> {}

impl<C: StaticHeap> State<C> {
    /// Makes a place for a heap.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            heap: UnsafeCell::new(MaybeUninit::uninit()),
            is_open: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            opening: Lock::new(()),
            is_registered: AtomicBool::new(false),
        }
    }

    /// Returns the heap.
    ///
    /// # Safety
    ///
    /// It was opened, as [`State::get`] or the cache of a thread tells, and was not closed since:
    /// then no slot has a cache.
    #[inline]
    pub(super) unsafe fn get_unchecked(&'static self) -> &'static HeapOf<C> {
        // SAFETY: the heap was opened and not closed since, as the caller says, and is not changed
        // in between.
        let heap = unsafe { &*self.heap.get() };
        // SAFETY: `open` initialised it before the caller could learn that it is open.
        unsafe { heap.assume_init_ref() }
    }

    pub(in crate::heap) fn get(&'static self) -> Option<&'static HeapOf<C>> {
        self.is_open.load(Acquire).then(|| {
            // SAFETY: `is_open` says so, and it was loaded with Acquire.
            unsafe { self.get_unchecked() }
        })
    }

    /// Registers what is to run in forked children, before the heap's first lock is taken. The
    /// calling thread is in no call.
    pub(super) fn register(&self) {
        if self.is_closed() {
            return;
        }
        if !self.is_registered.load(Relaxed) && !self.is_registered.swap(true, Relaxed) {
            C::Slot::without_signals(C::register);
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Acquire)
    }

    /// Opens the heap if it is not.
    pub(super) fn open(&'static self) -> Result<&'static HeapOf<C>, HeapError> {
        if let Some(heap) = self.get() {
            return Ok(heap);
        }
        let _opening = self.opening.lock();
        if let Some(heap) = self.get() {
            return Ok(heap);
        }
        if self.is_closed() {
            return Err(HeapError::Closed);
        }
        let mut heap = C::open()?;
        heap.mark = Some(Mark {
            enter: enter::<C>,
            leave: leave::<C>,
        });
        // SAFETY: other threads read after `is_open` says so only, and do not write: the lock is
        // held.
        unsafe { self.heap.get().write(MaybeUninit::new(heap)) };
        self.is_open.store(true, Release);
        // SAFETY: the heap was written just now, under the lock, and nothing closes it meanwhile.
        Ok(unsafe { self.get_unchecked() })
    }
}

impl<C: StaticHeap> Default for State<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: StaticHeap> fmt::Debug for State<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("is_open", &self.is_open)
            .field("is_closed", &self.is_closed)
            .finish_non_exhaustive()
    }
}

impl<C: StaticHeap> GlobalHeap<C> {
    #[cold]
    pub(super) fn opened() -> Result<&'static HeapOf<C>, HeapError> {
        let slot = C::Slot::get();
        if slot == BUSY {
            return Err(HeapError::Busy);
        }
        C::state().register();
        C::Slot::without_signals(|| {
            let _guard = SlotGuard::<C>::begin(C::Slot::get());
            C::state().open()
        })
    }

    /// Closes the heap for good: all of its memory goes back, that of blocks, of metadata and of
    /// the page map. Where it was not open, it never will be.
    ///
    /// Later calls find it closed before they look for anything in it, also those of threads that
    /// had cached blocks, and their ends: an allocation fails with [`HeapError::Closed`], or
    /// returns null; [`GlobalAlloc::dealloc`](core::alloc::GlobalAlloc::dealloc) does nothing, and
    /// [`GlobalHeap::free`] returns the error. A later `close` has nothing to do. Forked children
    /// have nothing to repair.
    ///
    /// A library that is to be unloaded closes its heap at last:
    ///
    /// ```
    /// use hostmem_core::heap::{GlobalHeap, HeapError, StaticHeap};
    ///
    /// /// # Safety
    /// ///
    /// /// Those of `close`: nothing that the library allocated is used any more.
    /// unsafe fn unload<C: StaticHeap>(heap: &GlobalHeap<C>) -> Result<(), HeapError> {
    ///     // SAFETY: the caller's promise, which is the same.
    ///     unsafe { heap.close()? };
    ///     assert_eq!(heap.alloc_bytes(1), Err(HeapError::Closed));
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`HeapError::Busy`], and nothing changes, where the calling thread is in a call of this
    /// heap, as a signal handler or [`StaticHeap::open`] may be; and where another thread has
    /// blocks cached, and its slot does not tell its [place](ThreadSlot::place): it must
    /// [detach](GlobalHeap::detach) before.
    ///
    /// # Safety
    ///
    /// - No other thread is in a call of this heap or at its end from the start of this call to its
    ///   return; what they did before happened before this call, and what they do later happens
    ///   after it.
    /// - No block of this heap is used any more, nor is the heap that [`GlobalHeap::heap`]
    ///   returned, by a thread that returns its memory for instance.
    pub unsafe fn close(&self) -> Result<(), HeapError> {
        let state = C::state();
        if state.is_closed() {
            return Ok(());
        }
        let slot = C::Slot::get();
        if CacheGuard::<C>::begin(slot).is_none() && (slot == BUSY || is_cache(slot)) {
            return Err(HeapError::Busy);
        }
        let heap = state.get();
        if let Some(heap) = heap {
            let own = |cache: CacheRef| cache.as_slot() == slot;
            if Self::with_slot(heap).any(|c| !own(c) && c.place.load(Relaxed).is_null()) {
                return Err(HeapError::Busy);
            }
        }
        // A signal handler on this thread sees these stores in order; others see them later, by the
        // caller's promise.
        state.is_closed.store(true, Release);
        state.is_open.store(false, Release);
        C::Slot::set(DETACHED);
        let Some(heap) = heap else {
            return Ok(());
        };
        for cache in Self::with_slot(heap) {
            let place = cache.place.load(Relaxed);
            if !place.is_null() && place != NOWHERE {
                // SAFETY: the slot's of a thread that has neither ended nor detached, or it would
                // not have the cache, so that it may be written; that thread is in no call of this
                // heap and not at its end, as the caller says.
                unsafe { place.write(DETACHED) };
            }
        }
        compiler_fence(SeqCst);
        // SAFETY: there is no other reference into it: calls begin by the state or by a slot, which
        // both say that it is not there, none is under way, and those that `heap` returned are used
        // no more.
        let heap = unsafe { &mut *state.heap.get() };
        // SAFETY: initialised, as it was open, and dropped once, as it never is again.
        unsafe { heap.assume_init_drop() };
        Ok(())
    }
}
