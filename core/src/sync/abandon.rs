//! Locks that a forked child can leave behind while a frame of its own may hold them.

use super::RawMutex;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// A raw lock that a forked child may open although it does not know who held it: a thread that it
/// does not have, or a call of its own that a signal handler interrupted, and that goes on when the
/// handler returns. The holder's own opening then does nothing.
pub struct Abandonable<R> {
    pub(super) raw: R,
    /// Only the thread that is alone in a forked child sets it.
    is_abandoned: AtomicBool,
    /// A number of the holder, if it has noted one.
    owner: AtomicUsize,
}

impl<R: RawMutex> Abandonable<R> {
    pub(super) fn owner(&self) -> &AtomicUsize {
        &self.owner
    }

    /// Opens the lock if it is held.
    ///
    /// # Safety
    ///
    /// This is the only thread of a forked child, and what the lock guards is used no more but by
    /// the one who holds it now.
    pub(super) unsafe fn abandon(&self) {
        self.is_abandoned.store(true, Relaxed);
        if self.raw.is_locked() {
            // SAFETY: unlock asks that the current context holds the lock: of the process that the
            // holder was in, this thread is all that is left, and what is guarded is out of use.
            unsafe { self.raw.unlock() };
        }
    }
}

// SAFETY: RawMutex asks for mutual exclusion, which the lock inside gives until it is abandoned;
// what it guards is out of use then.
unsafe impl<R: RawMutex> RawMutex for Abandonable<R> {
    const INIT: Self = Self {
        raw: R::INIT,
        is_abandoned: AtomicBool::new(false),
        owner: AtomicUsize::new(0),
    };

    type GuardMarker = R::GuardMarker;

    #[inline]
    fn lock(&self) {
        self.raw.lock();
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.raw.try_lock()
    }

    #[inline]
    unsafe fn unlock(&self) {
        if self.is_abandoned.load(Relaxed) && !self.raw.is_locked() {
            return;
        }
        // SAFETY: the caller holds the lock, and it was not opened for it.
        unsafe { self.raw.unlock() };
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.raw.is_locked()
    }
}
