//! Hooks that keep locks and shared pages usable across a fork.

use crate::provider::Error;
use core::fmt;

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
