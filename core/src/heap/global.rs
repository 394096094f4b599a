//! A heap in a static, for `#[global_allocator]`: it opens itself, and finds the cache of the
//! calling thread by a slot.
//!
//! While a thread is in a call its cache says so, or its slot if it has none. A signal handler that
//! interrupts the call sees it, and goes another way.
//!
//! | room | what it has |
//! |---|---|
//! | `alloc` | the calls of [`GlobalAlloc`](core::alloc::GlobalAlloc) |
//! | `reentrancy` | the guards of calls |
//! | `threads` | how a thread gets its cache and leaves it |
//! | `state` | how the heap is opened and closed |

mod alloc;
mod reentrancy;
mod state;
mod threads;

#[cfg(all(test, not(loom), target_pointer_width = "64"))]
mod tests;

pub(super) use reentrancy::CacheGuard;
use reentrancy::{SlotGuard, enter, fresh, leave};
pub use state::State;

use super::{
    Heap, HeapError, Level, LocalHeap,
    cache::CacheRef,
    error::end,
    slot::{BUSY, DETACHED, ThreadSlot, is_cache, is_fresh},
};
use crate::{provider::PageProvider, sync::RawMutex};
use core::{fmt, marker::PhantomData};

/// Describes a heap in a static; see `hostmem::SystemHeap` for one.
///
/// # Safety
///
/// `state` returns the same state each time, and no other `StaticHeap` returns that; nor does
/// another one have the same `Slot`. `open` does not allocate from this heap.
pub unsafe trait StaticHeap: Sized + 'static {
    /// The provider of memory for blocks.
    type Pages: PageProvider + Copy + Send + Sync;
    /// The provider of memory for metadata.
    type Metadata: PageProvider + Copy + Send + Sync;
    /// How a thread waits for a contended lock.
    type Lock: RawMutex + Send + Sync;
    /// Where a thread keeps its cache.
    type Slot: ThreadSlot;

    /// Whether [`GlobalAlloc::dealloc`](core::alloc::GlobalAlloc::dealloc) checks what it is given:
    /// hardening level 1. Without, it is what [`LocalHeap::free_unchecked`] is.
    const CHECKED: bool = true;

    /// Whether [`GlobalAlloc`](core::alloc::GlobalAlloc)'s calls expect a heap that is opened at a
    /// level above [`Hardening::Checked`](super::Hardening::Checked), whose calls are quicker then.
    /// It may be opened at any level.
    const HARDENED: bool = false;

    /// Makes the heap, at the first call. An error fails that call, and the next one tries again.
    ///
    /// # Errors
    ///
    /// The errors of [`Heap::on`].
    fn open() -> Result<HeapOf<Self>, HeapError>;

    /// Returns where the heap lies.
    fn state() -> &'static State<Self>;

    /// Is called once, before the heap is opened: the place to register
    /// [`GlobalHeap::fork_child`](crate::fork::ForkChild::fork_child) with what runs in forked
    /// children, as `hostmem::register_fork_child` does. It may allocate from this heap, which is
    /// then opened meanwhile.
    fn register() {}

    /// Is told of a block that [`GlobalAlloc`](core::alloc::GlobalAlloc) was to free or to resize,
    /// and that is no live block of the heap's; and of corrupt ones above
    /// [`Hardening::Checked`](super::Hardening::Checked), those too that were to be handed out. It
    /// must not unwind.
    ///
    /// By itself, it ends the program: one that frees what is not allocated cannot be trusted
    /// further.
    fn refused(block: *mut u8, error: HeapError) {
        end(block, &error);
    }
}

/// The heap of a [`StaticHeap`].
pub type HeapOf<C> =
    Heap<<C as StaticHeap>::Pages, <C as StaticHeap>::Metadata, <C as StaticHeap>::Lock>;

pub(super) type LocalOf<C> = LocalHeap<
    'static,
    <C as StaticHeap>::Pages,
    <C as StaticHeap>::Metadata,
    <C as StaticHeap>::Lock,
>;

/// A heap that lies in a static and opens itself: `#[global_allocator]`. It has no size; all values
/// of one type are the same heap.
///
/// Every call may be made from a signal handler, if the [slot](StaticHeap::Slot) can: one that
/// interrupted a call of the same heap which holds a lock waits for none, and fails where only a
/// lock would help ([`Heap::try_alloc`]). Blocks that it frees then are deferred to the next call
/// that takes a lock. A handler may leave the call that it interrupted by `siglongjmp`, and it may
/// fork.
pub struct GlobalHeap<C>(PhantomData<fn() -> C>);

impl<C: StaticHeap> GlobalHeap<C> {
    /// Names the heap.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }

    /// Returns the heap, which is opened if it was not: for statistics, queries, ticks and trims.
    /// Those of its calls that take locks must not be made from signal handlers.
    ///
    /// # Errors
    ///
    /// Those of [`StaticHeap::open`].
    pub fn heap(&self) -> Result<&'static HeapOf<C>, HeapError> {
        match C::state().get() {
            Some(heap) => Ok(heap),
            None => Self::opened(),
        }
    }

    /// Ends the calling thread's use of what it has cached, as its end does: the next thread that
    /// begins finds it, or the next tick brings it back. Then the thread's calls take a lock each.
    /// For threads whose slot does not see their end.
    pub fn detach(&self) {
        Self::exit();
    }

    /// Does `with_handle` or `without` in a call, or in a handler that interrupted one which holds
    /// no lock; else `interrupted`.
    // Where its caller's stack ends is looked at, too.
    #[inline(always)]
    pub(super) fn call<T>(
        with_handle: impl FnOnce(&LocalOf<C>) -> Result<T, HeapError>,
        without: impl FnOnce(&'static HeapOf<C>) -> Result<T, HeapError>,
        interrupted: impl FnOnce(&'static HeapOf<C>) -> Result<T, HeapError>,
    ) -> Result<T, HeapError> {
        if C::state().is_closed() {
            return Err(HeapError::Closed);
        }
        let mut slot = C::Slot::get();
        if is_fresh(slot) {
            // Without, the shared calls serve.
            let _ = Self::attach();
            slot = C::Slot::get();
        } else if slot == DETACHED {
            C::state().register();
        }
        if is_cache(slot) {
            Self::forget_left(slot);
        }
        if let Some(guard) = CacheGuard::<C>::begin(slot) {
            return with_handle(&guard.local());
        }
        if slot == BUSY || is_cache(slot) {
            let heap = C::state().get().ok_or(HeapError::Busy)?;
            // SAFETY: slots hold what `attach` put there.
            if slot != BUSY && unsafe { CacheRef::from_slot(slot) }.takes_locks() {
                return without(heap);
            }
            return interrupted(heap);
        }
        C::Slot::without_signals(|| {
            let _guard = SlotGuard::<C>::begin(slot);
            without(C::state().open()?)
        })
    }

    /// Gives back all memory that is free now, what the calling thread has cached included; see
    /// [`Heap::collect`].
    ///
    /// # Errors
    ///
    /// Those of [`StaticHeap::open`]; [`HeapError::Busy`] in a signal handler that interrupted a
    /// call of the heap.
    pub fn collect(&self, level: Level) -> Result<(), HeapError> {
        Self::call(
            |local| {
                local.collect(level);
                Ok(())
            },
            |heap| {
                heap.collect(level);
                Ok(())
            },
            |_| Err(HeapError::Busy),
        )
    }
}

impl<C> Clone for GlobalHeap<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for GlobalHeap<C> {}

impl<C: StaticHeap> Default for GlobalHeap<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> fmt::Debug for GlobalHeap<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GlobalHeap")
    }
}
