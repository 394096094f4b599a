//! What the locks of a heap guard, and how they are taken.
//!
//! A forked child that finds one of them held puts others in the place of all of it: see `fork`. So
//! whoever has waited for a lock looks whether it is still in use, and whoever holds one that has
//! been replaced meanwhile, by a handler on its own thread that forked, finishes in what was left
//! behind and begins again.

use super::{
    Heap,
    bin::Bin,
    cache::CacheRef,
    class::CLASSES,
    local::Caches,
    maintenance::Sweep,
    space::{IndexRef, Space},
};
use crate::{
    arch::stack_pointer,
    arena::Arena,
    provider::PageProvider,
    sync::{Guard, Lock, RawMutex},
};
use core::{
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::atomic::{
        Ordering::{Relaxed, SeqCst},
        compiler_fence,
    },
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
    /// Marks the thread, whose stack ends at an address or deeper until it leaves, and returns its
    /// cache, if it has one, and what [`Mark::leave`] is to restore.
    pub(super) enter: fn(usize) -> (Option<CacheRef>, *mut ()),
    pub(super) leave: fn(*mut ()),
}

/// A mark that is taken away when this is dropped.
struct Marked {
    mark: Option<(Mark, *mut ())>,
    awaits: Option<Awaits>,
}

/// A cache that knows that its thread may hold a lock.
struct Awaits {
    cache: CacheRef,
    lock: u32,
    /// What it is to know afterwards.
    before: usize,
}

impl Marked {
    const NONE: Self = Self {
        mark: None,
        awaits: None,
    };

    /// Marks the thread, if it is to be, before it goes for a lock of a kind, and a bin's if so,
    /// for a frame in which the stack ends at `depth`.
    fn new(mark: Option<Mark>, lock: u32, bin: Option<u32>, depth: usize) -> Self {
        let Some(mark) = mark else {
            return Self::NONE;
        };
        let (cache, before) = (mark.enter)(depth);
        let awaits = cache.map(|cache| {
            // Before it is looked for.
            if let Some(bin) = bin {
                cache.bin.store(bin, Relaxed);
            }
            let before = cache.await_lock(lock, depth);
            Awaits {
                cache,
                lock,
                before,
            }
        });
        Self {
            mark: Some((mark, before)),
            awaits,
        }
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        if let Some(Awaits {
            cache,
            lock,
            before,
        }) = self.awaits
        {
            cache.forget_lock(lock, before);
        }
        if let Some((mark, before)) = self.mark {
            (mark.leave)(before);
        }
    }
}

/// Kinds of locks, a bit each, by which a thread notes that it may hold one.
const SWEEP: u32 = 1;
const CACHES: u32 = 2;
const BIN: u32 = 4;
const SPACE: u32 = 8;

/// A lock that is held, by a thread that is marked.
pub(super) struct Held<'a, T, R: RawMutex> {
    // In this order: the lock is given back first.
    guard: Guard<'a, T, R>,
    marked: Marked,
    lock: &'a Lock<T, R>,
    /// What the lock is one of.
    pub(super) parts: &'a Parts<R>,
}

impl<T, R: RawMutex> Drop for Held<'_, T, R> {
    fn drop(&mut self) {
        if self.marked.awaits.is_some() {
            self.lock.owner().store(0, Relaxed);
            compiler_fence(SeqCst);
        }
    }
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

impl<'a, T, R: RawMutex> Held<'a, T, R> {
    fn new(
        lock: &'a Lock<T, R>,
        guard: Guard<'a, T, R>,
        marked: Marked,
        parts: &'a Parts<R>,
    ) -> Self {
        if let Some(awaits) = &marked.awaits {
            lock.owner().store(awaits.cache.as_ptr().addr(), Relaxed);
            compiler_fence(SeqCst);
        }
        Self {
            guard,
            marked,
            lock,
            parts,
        }
    }
}

/// How often one looks whether the arena's lock is open, at least for some milliseconds.
const LOOKS: u32 = 1 << 20;

/// How often one looks whose a lock is whose holder has not noted that, or not any more: as long as
/// another thread may be kept from running between two instructions.
const LONG_LOOKS: u32 = 1 << 24;

/// Says whether the thread of a cache holds a lock that it may hold, in a call that never goes on.
fn holds<T, R: RawMutex>(lock: &Lock<T, R>, cache: CacheRef) -> bool {
    for _ in 0..LONG_LOOKS {
        if !lock.is_locked() {
            return false;
        }
        match lock.owner().load(Relaxed) {
            0 => core::hint::spin_loop(),
            owner => return owner == cache.as_ptr().addr(),
        }
    }
    // Nobody else has it: between its two steps that call took it, or was about to give it back.
    true
}

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
        // Whoever may wait mends it.
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

    /// Opens the locks that a thread holds by a call that never goes on; what they guard is mended
    /// by the next one who takes them.
    ///
    /// # Safety
    ///
    /// The cache is the calling thread's, whose last call of the heap never goes on.
    pub(super) unsafe fn leave_locks(&self, cache: CacheRef) {
        if cache.takes_locks() {
            return;
        }
        let parts = self.parts();
        let bin = parts.bins().get(cache.bin.load(Relaxed) as usize);
        if cache.awaits(SPACE) && holds(&parts.space, cache) {
            // SAFETY: the caller's promise: held by that call, as was just seen.
            unsafe { parts.space.leave(|space| space.is_torn = true) };
        }
        if let Some(bin) = bin
            && cache.awaits(BIN)
            && holds(bin, cache)
        {
            // SAFETY: as above.
            unsafe { bin.leave(|bin| bin.is_torn = true) };
        }
        if cache.awaits(CACHES) && holds(&parts.caches, cache) {
            // SAFETY: as above.
            unsafe { parts.caches.leave(|caches| caches.is_torn = true) };
        }
        if cache.awaits(SWEEP) && holds(&parts.sweep, cache) {
            // SAFETY: as above.
            unsafe { parts.sweep.leave(|sweep| *sweep = Sweep::new()) };
        }
        self.leave_arena();
        cache.forget_locks();
    }

    /// Puts another arena in the place of one whose lock stays held, as by a call that never goes
    /// on: others hold it for microseconds.
    fn leave_arena(&self) {
        let arena = self.arena();
        for _ in 0..LOOKS {
            if !arena.is_locked() {
                return;
            }
            core::hint::spin_loop();
        }
        let Ok(new) = Arena::new(self.metadata, self.config.metadata_bytes()) else {
            return;
        };
        // SAFETY: this waited for all others that might do the same: they hold one of the locks
        // that the caller has just opened. Drop disposes with the same provider.
        if unsafe { self.arena.renew(&self.metadata, || new) }.is_ok() {
            // SAFETY: it was taken out of use just now; whoever holds it nonetheless ends in it.
            unsafe { arena.abandon() };
        }
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
