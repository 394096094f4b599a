//! What the locks of a heap guard, and how they are taken.
//!
//! A forked child that finds one of them held puts others in the place of all of it: see `fork`. So
//! whoever has waited for a lock looks whether it is still in use, and whoever holds one that has
//! been replaced meanwhile, by a handler on its own thread that forked, finishes in what was left
//! behind and begins again.

use super::{
    Heap,
    bin::Bin,
    class::CLASSES,
    local::Caches,
    space::{IndexRef, Space},
    upkeep::Sweep,
};
use crate::{
    provider::PageProvider,
    sync::{Guard, Lock, RawMutex},
};
use core::{
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::atomic::{Ordering::SeqCst, compiler_fence},
};

/// What the locks guard. They nest in this order: the one of the sweep or of the caches, a bin's,
/// the one of the granules.
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
// SAFETY: as for Send, and Sync by itself.
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

/// How the calling thread is marked as one that is in a call: of a heap in a static, whose signal
/// handlers look for the mark.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    /// Marks the thread, and returns what [`Mark::leave`] is to restore.
    pub(super) enter: fn() -> *mut (),
    pub(super) leave: fn(*mut ()),
}

/// A mark that is taken away when this is dropped.
struct Marked(Option<(Mark, *mut ())>);

impl Marked {
    fn new(mark: Option<Mark>) -> Self {
        Self(mark.map(|mark| (mark, (mark.enter)())))
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        if let Some((mark, before)) = self.0 {
            (mark.leave)(before);
        }
    }
}

/// A lock that is held, by a thread that is marked.
pub(super) struct Held<'a, T, R: RawMutex> {
    // In this order: the lock is given back first.
    guard: Guard<'a, T, R>,
    _marked: Marked,
    /// What the lock is one of.
    pub(super) parts: &'a Parts<R>,
}

impl<T, R: RawMutex> Deref for Held<'_, T, R> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T, R: RawMutex> DerefMut for Held<'_, T, R> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    #[inline]
    pub(super) fn parts(&self) -> &Parts<R> {
        self.parts.current()
    }

    /// Takes a lock that is in use.
    fn held<'a, T>(&'a self, lock: impl Fn(&'a Parts<R>) -> &'a Lock<T, R>) -> Held<'a, T, R> {
        let marked = Marked::new(self.mark);
        loop {
            let parts = self.parts();
            let guard = lock(parts).lock();
            // A handler may have forked while this waited.
            if self.parts.is_current(parts) {
                return Held {
                    guard,
                    _marked: marked,
                    parts,
                };
            }
        }
    }

    pub(super) fn lock_space(&self) -> Held<'_, Space, R> {
        self.held(|parts| &parts.space)
    }

    pub(super) fn lock_bin(&self, shard: usize, class: usize) -> Held<'_, Bin, R> {
        self.held(|parts| parts.bin(shard, class))
    }

    pub(super) fn lock_caches(&self) -> Held<'_, Caches, R> {
        self.held(|parts| &parts.caches)
    }

    pub(super) fn lock_sweep(&self) -> Held<'_, Sweep, R> {
        self.held(|parts| &parts.sweep)
    }

    /// Takes a lock if it is open. For signal handlers, whose thread is marked already.
    fn try_held<'a, T>(
        &'a self,
        marked: Marked,
        lock: impl Fn(&'a Parts<R>) -> &'a Lock<T, R>,
    ) -> Option<Held<'a, T, R>> {
        let parts = self.parts();
        let guard = lock(parts).try_lock()?;
        self.parts.is_current(parts).then_some(Held {
            guard,
            _marked: marked,
            parts,
        })
    }

    pub(super) fn try_lock_space(&self) -> Option<Held<'_, Space, R>> {
        self.try_held(Marked(None), |parts| &parts.space)
    }

    pub(super) fn try_lock_bin(&self, shard: usize, class: usize) -> Option<Held<'_, Bin, R>> {
        self.try_held(Marked(None), |parts| parts.bin(shard, class))
    }

    pub(super) fn try_lock_sweep(&self) -> Option<Held<'_, Sweep, R>> {
        self.try_held(Marked::new(self.mark), |parts| &parts.sweep)
    }

    /// Takes the lock of the granules within one of a bin; `None` where a fork has replaced that.
    pub(super) fn lock_space_within(&self, bin: &Held<'_, Bin, R>) -> Option<Held<'_, Space, R>> {
        let space = self.lock_space();
        (space.era == bin.parts.era).then_some(space)
    }

    /// Says whether a fork has replaced what a call began with: this is a child then, and the call
    /// was interrupted by the handler that forked.
    pub(super) fn is_replaced(&self, era: u32) -> bool {
        // What replaces it runs on this thread, in a handler.
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
