//! Locks.
//!
//! [`Lock`] is a mutex over any [`RawMutex`], the trait of the `lock_api` crate, so that a
//! program's own lock fits as well as these:
//!
//! | raw lock | how a thread waits |
//! |---|---|
//! | [`Spin`] | it spins: for machines without an operating system |
//! | [`FutexLock`] | it spins shortly, then sleeps in the kernel, by two calls of the backends |

mod abandon;
mod futex;
mod once;

pub use abandon::Abandonable;
pub use futex::{Futex, FutexLock, sleep_while};
pub use lock_api::RawMutex;
pub use once::Once;

use core::{fmt, sync::atomic::AtomicUsize};
use lock_api::{GuardSend, Mutex, MutexGuard};
use spin::mutex::SpinMutex;

/// The access of a lock's holder.
pub type Guard<'a, T, R> = MutexGuard<'a, Abandonable<R>, T>;

/// A lock around a value. `R` is how a thread waits for it.
pub struct Lock<T, R = Spin>(Mutex<Abandonable<R>, T>);

impl<T, R: RawMutex> Lock<T, R> {
    /// Makes an open lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Waits for the lock and takes it.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T, R> {
        self.0.lock()
    }

    /// Takes the lock if it is open.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T, R>> {
        self.0.try_lock()
    }

    /// Says whether the lock is held.
    pub fn is_locked(&self) -> bool {
        self.0.is_locked()
    }

    /// Reaches the value by exclusive access, without locking.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }

    /// Opens a lock whose guard was forgotten: the second half of holding it across a fork.
    ///
    /// # Safety
    ///
    /// This thread, or in a forked child its copy in the parent, took the lock and forgot the
    /// guard; nothing borrowed from that guard is alive.
    pub unsafe fn unlock_forgotten(&self) {
        // SAFETY: force_unlock asks that the current context holds the lock without a guard. This
        // thread took it and forgot the guard, by this function's `# Safety`.
        unsafe { self.0.force_unlock() }
    }

    /// Makes the guard anew of a lock whose guard was forgotten.
    ///
    /// # Safety
    ///
    /// The promises of [`Lock::unlock_forgotten`], and this is the one call for the forgotten
    /// guard.
    pub(crate) unsafe fn resume_forgotten(&self) -> Guard<'_, T, R> {
        // SAFETY: make_guard_unchecked asks that this thread holds the lock and has no guard: it
        // took the lock and forgot the guard, and makes it once, by this function's `# Safety`.
        unsafe { self.0.make_guard_unchecked() }
    }

    /// Returns where the holder may note a number of its own; it is zero again when the lock is
    /// released. For one that asks itself later whether it has the lock.
    pub(crate) fn owner(&self) -> &AtomicUsize {
        // SAFETY: `raw` is used to look at the note, and not at the lock.
        unsafe { self.0.raw() }.owner()
    }

    /// Opens a lock that a call holds which never goes on, after `note` has noted in what it guards
    /// that it may be half changed.
    ///
    /// # Safety
    ///
    /// The calling thread took the lock, in a call that never goes on.
    pub(crate) unsafe fn leave(&self, note: impl FnOnce(&mut T)) {
        // SAFETY: this thread holds the lock in a call that never goes on, by `# Safety`: nothing
        // uses what that call borrowed.
        note(unsafe { &mut *self.0.data_ptr() });
        // SAFETY: this thread holds the lock, by this function's `# Safety`, and its guard is never
        // dropped.
        unsafe { self.0.force_unlock() };
    }

    /// Leaves a lock behind that a forked child found held, and has put another one in the place
    /// of: opens it, so that an interrupted call which waits for it goes on, and sees that. One
    /// that holds it opens it no second time.
    ///
    /// # Safety
    ///
    /// This is the only thread of a forked child, which has taken the lock out of use: whoever
    /// takes it from now on gives it back and uses nothing that it guards.
    pub(crate) unsafe fn abandon(&self) {
        // SAFETY: `raw` is used to open the lock only, which `# Safety` of this function allows.
        let raw = unsafe { self.0.raw() };
        // SAFETY: the only thread of a forked child, and what the lock guards is out of use: this
        // function's `# Safety`.
        unsafe { raw.abandon() };
    }
}

impl<T, R> fmt::Debug for Lock<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock(..)")
    }
}

/// A raw lock whose waiting threads spin, for machines without a scheduler. On a system with
/// threads of different priorities it can wait endlessly: use the backend's lock there.
// `spin::mutex::SpinMutex` by that name, because `spin::Mutex` changes its meaning with a feature
// that any other dependant may switch on.
pub struct Spin(SpinMutex<()>);

// SAFETY: RawMutex asks for mutual exclusion, which the mutex inside gives: its guard is forgotten
// by `lock` and `try_lock`, and `unlock` opens it.
unsafe impl RawMutex for Spin {
    const INIT: Self = Self(SpinMutex::new(()));

    type GuardMarker = GuardSend;

    #[inline]
    fn lock(&self) {
        core::mem::forget(self.0.lock());
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.0.try_lock().map(core::mem::forget).is_some()
    }

    #[inline]
    unsafe fn unlock(&self) {
        // SAFETY: force_unlock asks that the lock is held without a guard. The caller holds it, as
        // RawMutex asks, and `lock` and `try_lock` forgot the guard.
        unsafe { self.0.force_unlock() }
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.0.is_locked()
    }
}

impl fmt::Debug for Spin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spin(..)")
    }
}
