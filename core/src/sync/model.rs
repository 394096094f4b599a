//! Locks in the models of `ci/loom.sh`: as elsewhere, but loom sees who had them before whom.

use crate::atomic::{AtomicUsize, Ordering};
use core::{
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};
use spin::mutex::{SpinMutex, SpinMutexGuard};
pub use spin::{RelaxStrategy, relax::Spin};

/// A lock. Threads that wait let others run, whatever `R` is.
pub struct Lock<T, R = Spin> {
    mutex: SpinMutex<T>,
    /// How often somebody took it, tried to, or gave it back. Each is a step of its own, and what comes
    /// before the last is seen by who takes it next.
    turns: AtomicUsize,
    relax: PhantomData<fn() -> R>,
}

/// The access of a lock's holder.
pub struct Guard<'a, T, R = Spin> {
    guard: SpinMutexGuard<'a, T>,
    turns: &'a AtomicUsize,
    relax: PhantomData<fn() -> R>,
}

impl<T, R> Lock<T, R> {
    /// Makes an open lock around `value`.
    pub fn new(value: T) -> Self {
        Self {
            mutex: SpinMutex::new(value),
            turns: AtomicUsize::new(0),
            relax: PhantomData,
        }
    }

    /// Reaches the value by exclusive access, without locking.
    pub fn get_mut(&mut self) -> &mut T {
        self.mutex.get_mut()
    }
}

impl<T, R: RelaxStrategy> Lock<T, R> {
    /// Waits for the lock and takes it.
    pub fn lock(&self) -> Guard<'_, T, R> {
        loop {
            match self.try_lock() {
                Some(guard) => return guard,
                None => loom::thread::yield_now(),
            }
        }
    }

    /// Takes the lock if nobody has it.
    pub fn try_lock(&self) -> Option<Guard<'_, T, R>> {
        // Others run before this step, and none between it and the mutex, which loom does not know.
        self.turns.fetch_add(1, Ordering::Acquire);
        Some(Guard {
            guard: self.mutex.try_lock()?,
            turns: &self.turns,
            relax: PhantomData,
        })
    }

    /// Opens a lock whose guard was forgotten: the second half of holding it across a fork.
    ///
    /// # Safety
    ///
    /// This thread, or in a forked child its copy in the parent, took the lock and forgot the
    /// guard; nothing borrowed from that guard is alive.
    pub unsafe fn unlock_forgotten(&self) {
        self.turns.fetch_add(1, Ordering::Release);
        // SAFETY: the caller holds the lock without a guard, as force_unlock asks.
        unsafe { self.mutex.force_unlock() }
    }
}

impl<T, R> Drop for Guard<'_, T, R> {
    fn drop(&mut self) {
        // The mutex opens behind this, before anybody else runs.
        self.turns.fetch_add(1, Ordering::Release);
    }
}

impl<T, R> Deref for Guard<'_, T, R> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T, R> DerefMut for Guard<'_, T, R> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T, R> fmt::Debug for Lock<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock(..)")
    }
}
