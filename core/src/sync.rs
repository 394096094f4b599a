//! Locks.

use core::fmt;
use spin::mutex::SpinMutex;
pub use spin::{RelaxStrategy, mutex::SpinMutexGuard as Guard, relax::Spin};

/// A spin lock, generic over what a waiting thread does: spin where there is no scheduler, yield to
/// the operating system where there is one (the backends supply that strategy).
///
/// `spin::mutex::SpinMutex` by that name, because `spin::Mutex` changes its meaning with a feature
/// that any other dependant may switch on.
pub struct Lock<T, R = Spin>(SpinMutex<T, R>);

impl<T, R> Lock<T, R> {
    /// Makes an open lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(SpinMutex::new(value))
    }

    /// Reaches the value by exclusive access, without locking.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }
}

impl<T, R: RelaxStrategy> Lock<T, R> {
    /// Waits for the lock and takes it.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T, R> {
        self.0.lock()
    }

    /// Takes the lock if nobody has it.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T, R>> {
        self.0.try_lock()
    }

    /// Opens a lock whose guard was forgotten: the second half of holding it across a fork.
    ///
    /// # Safety
    ///
    /// This thread, or in a forked child its copy in the parent, took the lock and forgot the
    /// guard; nothing borrowed from that guard is alive.
    pub unsafe fn unlock_forgotten(&self) {
        // SAFETY: the caller holds the lock without a guard, as force_unlock asks.
        unsafe { self.0.force_unlock() }
    }
}

impl<T, R> fmt::Debug for Lock<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock(..)")
    }
}
