//! The parts of a heap that its locks guard, and how the locks are taken.
//!
//! A forked child that finds one of them held puts others in the place of all of it: see `fork`. So
//! a call that has waited for a lock looks whether it is still in use, and a call that holds one
//! that has been replaced meanwhile, by a handler on its own thread that forked, finishes in what
//! was left behind and begins again.
//!
//! | room | what it has |
//! |---|---|
//! | `held` | a lock that is held |
//! | `leave` | locks of calls that never go on |

mod held;
mod leave;

use held::Marked;
pub(super) use held::{Held, Mark};

use super::{
    Heap,
    bin::Bin,
    class::CLASSES,
    local::Caches,
    maintenance::Sweep,
    space::{IndexRef, Space},
};
use crate::{
    arch::stack_pointer,
    provider::PageProvider,
    sync::{Lock, RawMutex},
};
use core::{
    ptr::NonNull,
    sync::atomic::{Ordering::SeqCst, compiler_fence},
};

/// The parts that locks guard. The locks nest in this order: the one of the sweep or of the caches,
/// a bin's, the one of the granules.
pub(super) struct Parts<R> {
    /// One for each class and shard, in the arena.
    pub(super) bins: NonNull<[Lock<Bin, R>]>,
    pub(super) space: Lock<Space, R>,
    pub(super) caches: Lock<Caches, R>,
    pub(super) sweep: Lock<Sweep, R>,
    /// Where huge blocks lie, which the page map does not tell. The lock of the granules guards
    /// changes.
    pub(super) huge: IndexRef,
    /// How many forks have replaced what the locks guard.
    pub(super) era: u32,
}

// SAFETY: the bins are the heap's own memory, behind locks; everything else is Send by itself.
unsafe impl<R: RawMutex + Send> Send for Parts<R> {}

// SAFETY: the bins are behind locks, which make what they guard Sync; everything else is Sync by
// itself.
unsafe impl<R: RawMutex + Send + Sync> Sync for Parts<R> {}

impl<R: RawMutex> Parts<R> {
    pub(super) fn bins(&self) -> &[Lock<Bin, R>] {
        // SAFETY: initialised in an arena of the heap, which is dropped after this.
        unsafe { self.bins.as_ref() }
    }

    fn bin(&self, shard: usize, class: usize) -> &Lock<Bin, R> {
        &self.bins()[shard * CLASSES + class]
    }
}

/// Kinds of locks, a bit each, by which a thread notes that it may hold one.
const SWEEP: u32 = 1;

const CACHES: u32 = 2;

const BIN: u32 = 4;

const SPACE: u32 = 8;

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    #[inline]
    pub(super) fn parts(&self) -> &Parts<R> {
        self.parts.current()
    }

    /// Takes a lock that is in use.
    fn held<'a, T>(
        &'a self,
        marked: Marked,
        lock: impl Fn(&'a Parts<R>) -> &'a Lock<T, R>,
    ) -> Held<'a, T, R> {
        loop {
            let parts = self.parts();
            let lock = lock(parts);
            let guard = lock.lock();
            // A handler may have forked while this waited.
            if self.parts.is_current(parts) {
                return Held::new(lock, guard, marked, parts);
            }
        }
    }

    // The calls below are part of their callers, in whose frames the stack ends while they hold the
    // lock. So a caller does not return it.

    #[inline(always)]
    pub(super) fn lock_space(&self) -> Held<'_, Space, R> {
        self.space_at(stack_pointer())
    }

    fn space_at(&self, depth: usize) -> Held<'_, Space, R> {
        let marked = Marked::new(self.mark, SPACE, None, depth);
        let mut space = self.held(marked, |parts| &parts.space);
        if space.is_torn {
            self.mend_space(&mut space);
        }
        space
    }

    #[inline(always)]
    pub(super) fn lock_bin(&self, shard: usize, class: usize) -> Held<'_, Bin, R> {
        self.bin_at(stack_pointer(), shard, class)
    }

    fn bin_at(&self, depth: usize, shard: usize, class: usize) -> Held<'_, Bin, R> {
        let number = u32::try_from(shard * CLASSES + class).ok();
        let marked = Marked::new(self.mark, BIN, number, depth);
        let mut bin = self.held(marked, |parts| parts.bin(shard, class));
        if bin.is_torn {
            self.mend_bin(&mut bin, shard, class);
        }
        bin
    }

    #[inline(always)]
    pub(super) fn lock_caches(&self) -> Held<'_, Caches, R> {
        self.caches_at(stack_pointer())
    }

    fn caches_at(&self, depth: usize) -> Held<'_, Caches, R> {
        let marked = Marked::new(self.mark, CACHES, None, depth);
        let mut caches = self.held(marked, |parts| &parts.caches);
        if caches.is_torn {
            *caches = Caches::of(self.all_caches(), true);
        }
        caches
    }

    #[inline(always)]
    pub(super) fn lock_sweep(&self) -> Held<'_, Sweep, R> {
        let marked = Marked::new(self.mark, SWEEP, None, stack_pointer());
        self.held(marked, |parts| &parts.sweep)
    }

    /// Takes a lock if it is open. For signal handlers, whose thread is marked already.
    fn try_held<'a, T>(
        &'a self,
        marked: Marked,
        lock: impl Fn(&'a Parts<R>) -> &'a Lock<T, R>,
    ) -> Option<Held<'a, T, R>> {
        let parts = self.parts();
        let lock = lock(parts);
        let held = Held::new(lock, lock.try_lock()?, marked, parts);
        self.parts.is_current(parts).then_some(held)
    }

    pub(super) fn try_lock_space(&self) -> Option<Held<'_, Space, R>> {
        let space = self.try_held(Marked::NONE, |parts| &parts.space);
        // A call that may wait mends it.
        space.filter(|space| !space.is_torn)
    }

    pub(super) fn try_lock_bin(&self, shard: usize, class: usize) -> Option<Held<'_, Bin, R>> {
        let bin = self.try_held(Marked::NONE, |parts| parts.bin(shard, class));
        bin.filter(|bin| !bin.is_torn)
    }

    #[inline(always)]
    pub(super) fn try_lock_sweep(&self) -> Option<Held<'_, Sweep, R>> {
        let marked = Marked::new(self.mark, SWEEP, None, stack_pointer());
        self.try_held(marked, |parts| &parts.sweep)
    }

    /// Takes the lock of the granules within one of a bin; `None` where a fork has replaced that.
    #[inline(always)]
    pub(super) fn lock_space_within(&self, bin: &Held<'_, Bin, R>) -> Option<Held<'_, Space, R>> {
        let space = self.lock_space();
        (space.era == bin.parts.era).then_some(space)
    }

    /// Says whether a fork has replaced what a call began with: this is a child then, and the call
    /// was interrupted by the handler that forked.
    pub(super) fn is_replaced(&self, era: u32) -> bool {
        // A handler on this thread may have replaced it.
        compiler_fence(SeqCst);
        self.parts().era != era
    }

    /// Does something that takes locks again if a fork has replaced what it began with, and it
    /// failed for want of that.
    pub(super) fn again_if_replaced<T, E>(
        &self,
        mut attempt: impl FnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        loop {
            let era = self.parts().era;
            match attempt() {
                Err(_) if self.is_replaced(era) => {}
                result => return result,
            }
        }
    }
}
