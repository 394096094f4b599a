//! Locks in the models of `ci/loom.sh`: the algorithm of `futex`, on loom's atomics, which cannot
//! be made by constants.

use crate::atomic::AtomicU32;
use core::{
    cell::UnsafeCell,
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut},
    sync::atomic::AtomicUsize,
    time::Duration,
};

mod futex;
pub use futex::Futex;

#[cfg(test)]
mod tests;

/// A kind of lock. All are the same in the models but for how they sleep.
pub trait RawMutex {
    /// How its threads sleep.
    type Futex: Futex;
}

/// A raw lock whose waiting threads let others run.
pub struct Spin;

impl RawMutex for Spin {
    type Futex = Self;
}

// SAFETY: `wait` returns at once, which it may.
unsafe impl Futex for Spin {
    fn wait(_: &AtomicU32, _: u32, _: Duration) {
        loom::thread::yield_now();
    }

    fn wake_one(_: &AtomicU32) {}
}

/// A lock around a value.
pub struct Lock<T, R = Spin> {
    words: futex::Words,
    owner: AtomicUsize,
    value: UnsafeCell<T>,
    raw: PhantomData<fn() -> R>,
}

// SAFETY: only the holder of the lock reaches the value, one thread at a time.
unsafe impl<T: Send, R> Sync for Lock<T, R> {}

/// The access of a lock's holder.
pub struct Guard<'a, T, R: RawMutex>(&'a Lock<T, R>);

impl<T, R: RawMutex> Lock<T, R> {
    /// Makes an open lock around `value`.
    pub fn new(value: T) -> Self {
        Self {
            words: futex::Words::new(),
            owner: AtomicUsize::new(0),
            value: UnsafeCell::new(value),
            raw: PhantomData,
        }
    }

    /// Waits for the lock and takes it.
    pub fn lock(&self) -> Guard<'_, T, R> {
        self.words.acquire::<R::Futex>();
        Guard(self)
    }

    /// Takes the lock if it is open.
    pub fn try_lock(&self) -> Option<Guard<'_, T, R>> {
        self.words.try_acquire().then(|| Guard(self))
    }

    /// Says whether somebody has the lock now.
    pub fn is_locked(&self) -> bool {
        self.words.is_taken()
    }

    /// Reaches the value by exclusive access, without locking.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// Opens a lock whose guard was forgotten: the second half of holding it across a fork.
    ///
    /// # Safety
    ///
    /// This thread, or in a forked child its copy in the parent, took the lock and forgot the
    /// guard; nothing borrowed from that guard is alive.
    pub unsafe fn unlock_forgotten(&self) {
        self.words.release::<R::Futex>();
    }

    /// Makes the guard of a lock anew: see the other `Lock`.
    ///
    /// # Safety
    ///
    /// The promises of [`Lock::unlock_forgotten`], and this is the one call for the forgotten
    /// guard.
    pub(crate) unsafe fn resume_forgotten(&self) -> Guard<'_, T, R> {
        Guard(self)
    }

    /// Returns where the holder may note a number of its own: see the other `Lock`.
    pub(crate) fn owner(&self) -> &AtomicUsize {
        &self.owner
    }

    /// Opens a lock that a call holds which never goes on: see the other `Lock`.
    ///
    /// # Safety
    ///
    /// The calling thread took the lock, in a call that never goes on.
    pub(crate) unsafe fn leave(&self, note: impl FnOnce(&mut T)) {
        // SAFETY: this thread holds the lock in a call that never goes on: this function's `#
        // Safety`.
        note(unsafe { &mut *self.value.get() });
        self.words.release::<R::Futex>();
    }

    /// Leaves a lock behind: see the other `Lock`.
    ///
    /// # Safety
    ///
    /// This is the only thread of a forked child, which has taken the lock out of use.
    pub(crate) unsafe fn abandon(&self) {
        self.words.release::<R::Futex>();
    }
}

impl<T, R: RawMutex> Drop for Guard<'_, T, R> {
    fn drop(&mut self) {
        self.0.words.release::<R::Futex>();
    }
}

impl<T, R: RawMutex> Deref for Guard<'_, T, R> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard's lock is held, so that no other thread reaches the value.
        unsafe { &*self.0.value.get() }
    }
}

impl<T, R: RawMutex> DerefMut for Guard<'_, T, R> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard's lock is held, and the borrow of the guard is exclusive.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T, R> fmt::Debug for Lock<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock(..)")
    }
}
