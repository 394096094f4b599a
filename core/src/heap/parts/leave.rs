//! How locks are opened that a thread holds by a call that never goes on.

use super::{BIN, CACHES, SPACE, SWEEP};
use crate::{
    arena::Arena,
    heap::{Heap, cache::CacheRef, maintenance::Sweep},
    provider::PageProvider,
    sync::{Lock, RawMutex},
};
use core::sync::atomic::Ordering::Relaxed;

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
    // No other thread has it: between its two steps that call took it, or was about to give it
    // back.
    true
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Opens the locks that a thread holds by a call that never goes on; what they guard is mended
    /// by the next one who takes them.
    ///
    /// # Safety
    ///
    /// The cache is the calling thread's, whose last call of the heap never goes on.
    pub(in crate::heap) unsafe fn leave_locks(&self, cache: CacheRef) {
        if cache.takes_locks() {
            return;
        }
        let parts = self.parts();
        let bin = parts.bins().get(cache.bin.load(Relaxed) as usize);
        if cache.awaits(SPACE) && holds(&parts.space, cache) {
            // SAFETY: `leave` asks that a call holds the lock that never goes on: the caller says
            // so of this thread's, and `holds` has seen that it holds this one.
            unsafe { parts.space.leave(|space| space.is_torn = true) };
        }
        if let Some(bin) = bin
            && cache.awaits(BIN)
            && holds(bin, cache)
        {
            // SAFETY: the lock is held by the call that never goes on, as `holds` has seen.
            unsafe { bin.leave(|bin| bin.is_torn = true) };
        }
        if cache.awaits(CACHES) && holds(&parts.caches, cache) {
            // SAFETY: the lock is held by the call that never goes on, as `holds` has seen.
            unsafe { parts.caches.leave(|caches| caches.is_torn = true) };
        }
        if cache.awaits(SWEEP) && holds(&parts.sweep, cache) {
            // SAFETY: the lock is held by the call that never goes on, as `holds` has seen.
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
            // SAFETY: it was taken out of use just now; a call that holds it nonetheless ends in
            // it.
            unsafe { arena.abandon() };
        }
    }
}
