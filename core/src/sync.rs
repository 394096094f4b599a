//! Locks, and the hooks that keep them usable across `fork`.

use crate::provider::Error;
use core::fmt;
use spin::mutex::{SpinMutex, SpinMutexGuard};
pub use spin::{RelaxStrategy, relax::Spin};

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
}

impl<T, R: RelaxStrategy> Lock<T, R> {
    /// Waits for the lock and takes it.
    pub fn lock(&self) -> SpinMutexGuard<'_, T, R> {
        self.0.lock()
    }

    /// Takes the lock if nobody has it.
    pub fn try_lock(&self) -> Option<SpinMutexGuard<'_, T, R>> {
        self.0.try_lock()
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
        // SAFETY: the caller holds the lock without a guard, as force_unlock asks.
        unsafe { self.0.force_unlock() }
    }
}

impl<T, R> fmt::Debug for Lock<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock(..)")
    }
}

/// The fork hooks of a type that holds locks or shared pages.
///
/// Raw `clone` runs no atfork handlers, so these are explicit. A type hooks only itself, never its
/// provider, which others may share.
///
/// # Safety
///
/// Between a successful `fork_prepare` and the call after the fork, no other thread of the process
/// can change the object.
pub unsafe trait ForkHooks {
    /// Locks the object and gets it ready to be copied.
    ///
    /// # Errors
    ///
    /// What the preparation needed and did not get. The object is unlocked and as before; the
    /// caller should not fork, or fork a child that never uses the object.
    fn fork_prepare(&self) -> Result<(), Error>;

    /// Unlocks the object in the parent, also where no fork came about.
    ///
    /// # Safety
    ///
    /// This thread called `fork_prepare`, which returned `Ok`, and has not yet called this.
    unsafe fn fork_parent(&self);

    /// Makes the child's copy its own and unlocks it.
    ///
    /// # Errors
    ///
    /// What the child could not get. The object is unlocked and usable; its documentation says
    /// what of it was lost.
    ///
    /// # Safety
    ///
    /// The caller is the only thread of a process forked after this thread's `fork_prepare`
    /// returned `Ok`, and has not yet called this.
    unsafe fn fork_child(&self) -> Result<(), Error>;
}

/// Forks with the hooks of `objects` around it, listed outermost first: the order in which calls
/// lock them. Returns what `fork` returned: whether this is the child.
///
/// # Errors
///
/// The first error of a hook. If a `fork_prepare` failed there was no fork; if a `fork_child`
/// failed this is the child, all hooks ran, and the second value says so.
///
/// # Safety
///
/// `fork` clones the process at most once and returns `true` exactly in the child, whose only
/// thread is the caller's copy.
pub unsafe fn around_fork(
    objects: &[&dyn ForkHooks],
    fork: impl FnOnce() -> bool,
) -> Result<bool, ForkError> {
    for (n, object) in objects.iter().enumerate() {
        if let Err(error) = object.fork_prepare() {
            for prepared in objects.iter().take(n).rev() {
                // SAFETY: its fork_prepare returned Ok above, on this thread, and this is the
                // only call that answers it.
                unsafe { prepared.fork_parent() };
            }
            return Err(ForkError {
                error,
                in_child: false,
            });
        }
    }
    let in_child = fork();
    let mut first = None;
    for object in objects.iter().rev() {
        if in_child {
            // SAFETY: the caller's promise makes this the child's only thread; prepared above.
            let result = unsafe { object.fork_child() };
            first = first.or(result.err());
        } else {
            // SAFETY: prepared above on this thread; answered once, here.
            unsafe { object.fork_parent() };
        }
    }
    match first {
        Some(error) => Err(ForkError { error, in_child }),
        None => Ok(in_child),
    }
}

/// Why [`around_fork`] failed, and in which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForkError {
    /// The first hook's error.
    pub error: Error,
    /// Whether this is the child.
    pub in_child: bool,
}

impl fmt::Display for ForkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.in_child {
            "fork_child failed"
        } else {
            "not forked"
        };
        write!(f, "{what}: {}", self.error)
    }
}

impl core::error::Error for ForkError {}
