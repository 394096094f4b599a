//! How a thread gets a cache at its first call and leaves it at its end, and what a forked child
//! does about the caches of threads that it does not have.

use super::{CacheGuard, GlobalHeap, HeapOf, SlotGuard, StaticHeap, fresh};
use crate::{
    arch::stack_pointer,
    fork::ForkChild,
    heap::{
        ThreadSlot,
        cache::CacheRef,
        slot::{BUSY, DETACHED, NOWHERE, is_cache},
    },
    provider::Error,
};
use core::{mem::ManuallyDrop, sync::atomic::Ordering::Relaxed};

/// Bytes that the kernel puts on the stack for a signal handler at least, which so begins as much
/// deeper than the call that it interrupts: the registers alone take as many.
const SIGNAL_FRAME: usize = 1000;

impl<C: StaticHeap> GlobalHeap<C> {
    /// Gives the calling thread, which has not called before, a cache if that is possible.
    pub(super) fn attach() -> Option<()> {
        C::state().register();
        C::Slot::without_signals(|| {
            let mut guard = SlotGuard::<C>::begin(fresh::<C>());
            // A slot without room for this thread.
            if C::Slot::get() != BUSY {
                return None;
            }
            let heap = C::state().open().ok()?;
            let local = ManuallyDrop::new(heap.local_of_slot().ok()?);
            local.cache().place.store(C::Slot::place(), Relaxed);
            guard.after = local.cache().as_slot();
            Some(())
        })?;
        // From here on the thread may allocate, also in the call below.
        if !C::Slot::without_signals(|| C::Slot::on_exit(Self::exit)) {
            Self::exit();
        }
        Some(())
    }

    /// Leaves the calling thread's cache to the next thread, as the thread's end does.
    pub(super) fn exit() {
        if C::state().is_closed() {
            return;
        }
        let slot = C::Slot::get();
        if is_cache(slot) {
            Self::forget_left(slot);
        }
        let Some(guard) = CacheGuard::<C>::begin(slot) else {
            return;
        };
        C::Slot::without_signals(|| {
            let detaching = SlotGuard::<C>::begin(DETACHED);
            // Another thread may have the cache from then on.
            guard.into_local(&detaching).leave_to_next();
        });
    }

    /// Forgets a call of this thread that a signal handler interrupted and left for good, by
    /// `siglongjmp`: the stack ended where frames of a handler that returns cannot be.
    pub(super) fn forget_left(slot: *mut ()) {
        // SAFETY: slots hold what `attach` put there.
        let cache = unsafe { CacheRef::from_slot(slot) };
        let depth = cache.depth();
        let is_left = depth != 0
            && stack_pointer().saturating_add(SIGNAL_FRAME) > depth
            && !C::Slot::is_on_signal_stack();
        if !is_left {
            return;
        }
        // SAFETY: a thread with a cache has opened the heap.
        let heap = unsafe { C::state().get_unchecked() };
        // SAFETY: the calling thread's cache, as its slot says, and the call never goes on.
        unsafe { heap.leave_locks(cache) };
        cache.forget_call();
    }

    /// Yields the caches that threads have by their slots.
    pub(super) fn with_slot(heap: &HeapOf<C>) -> impl Iterator<Item = CacheRef> {
        let has_slot = |c: &CacheRef| c.in_use.load(Relaxed) && c.by_slot.load(Relaxed);
        heap.all_caches().filter(has_slot)
    }
}

// SAFETY: the heap repairs itself, and the slot says whether a call of the forking thread goes on.
unsafe impl<C: StaticHeap> ForkChild for GlobalHeap<C> {
    /// Also takes what other threads, which the child has not, had cached by their slots. Where a
    /// signal handler forked that had interrupted a call of this heap, the thread gets another
    /// cache, and the call ends in the one that it has.
    unsafe fn fork_child(&self) -> Result<(), Error> {
        let state = C::state();
        if state.is_closed() {
            return Ok(());
        }
        let slot = C::Slot::get();
        // SAFETY: `abandon` asks that no other thread holds the lock or waits for it: a forked
        // child has only this thread, as the caller says. If a call of this thread holds it, it
        // goes on, and nothing else opens the heap before it has: the slot stays as it is.
        unsafe { state.opening.abandon() };
        let Some(heap) = state.get() else {
            return Ok(());
        };
        let repair = |cache| {
            // SAFETY: a forked child with this thread only, as the caller says; the slot says that
            // this thread is in no call.
            unsafe { heap.repair(false)? };
            // SAFETY: the child has but this thread, and slots' caches are used by no other.
            unsafe { heap.adopt_orphans(cache) };
            Ok(())
        };
        match CacheGuard::<C>::begin(slot) {
            Some(guard) => repair(Some(guard.cache)),
            None if slot == BUSY || is_cache(slot) => {
                // SAFETY: a forked child with this thread only, as the caller says; the call that
                // goes on is told of.
                unsafe { heap.repair(true)? };
                let own = C::Slot::place();
                for cache in Self::with_slot(heap).filter(|c| c.place.load(Relaxed) != own) {
                    // Its thread is not in this process, and neither is the slot.
                    cache.place.store(NOWHERE, Relaxed);
                }
                C::Slot::set(fresh::<C>());
                Ok(())
            }
            None => {
                let _guard = SlotGuard::<C>::begin(slot);
                repair(None)
            }
        }
    }
}
