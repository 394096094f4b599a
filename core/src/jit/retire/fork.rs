//! What happens to executors around a fork.

use super::{Executor, Releases, RetireQueue};
use crate::{
    fork::ForkHooks,
    provider::{Error, PageProvider},
    sync::{RawMutex, Spin},
};
use core::{fmt, mem};

/// The fork hooks of a [`RetireQueue`], made by [`RetireQueue::forking`].
#[must_use = "hooks are run around a fork"]
pub struct Forking<'a, A: Releases, M: PageProvider + Copy, R: RawMutex = Spin> {
    queue: &'a RetireQueue<A, M, R>,
    own: &'a [&'a Executor<'a>],
}

impl<A: Releases, M: PageProvider + Copy, R: RawMutex> RetireQueue<A, M, R> {
    /// Returns the hooks for a fork by this thread, which owns the executors `own`.
    ///
    /// A child has one thread. All other executors are gone there: nothing waits for them any more,
    /// and their slots are free. For `own` everything goes on as in the parent: whether the fork is
    /// a quiescent point is the thread's affair, which may have been called by generated code.
    ///
    /// The queue is outside its allocator: `around_fork(&[&queue.forking(&[&me]), &jit], &[], ..)`.
    ///
    /// # Panics
    ///
    /// If one of `own` is an executor of another queue.
    pub fn forking<'a>(&'a self, own: &'a [&'a Executor<'a>]) -> Forking<'a, A, M, R> {
        assert!(
            own.iter().all(|executor| executor.is_of(&self.executors)),
            "an executor of another queue"
        );
        Forking { queue: self, own }
    }
}

// SAFETY: what waits is changed under the lock only, which fork_prepare holds until the answering
// call. What other threads change meanwhile without it are executors of their own, each of which is
// whole at any moment, and none of which a child keeps.
unsafe impl<A: Releases, M: PageProvider + Copy, R: RawMutex> ForkHooks for Forking<'_, A, M, R> {
    /// Takes the queue's lock.
    fn fork_prepare(&self) -> Result<(), Error> {
        mem::forget(self.queue.waiting.lock());
        Ok(())
    }

    unsafe fn fork_parent(&self) {
        // SAFETY: fork_prepare locked the queue and forgot the guard on this thread, which
        // fork_parent's contract says came before.
        unsafe { self.queue.waiting.unlock_forgotten() };
    }

    /// Unregisters the executors that did not come along. Loses nothing, and never fails.
    unsafe fn fork_child(&self) -> Result<(), Error> {
        self.queue.executors.keep_only(self.own);
        // SAFETY: fork_prepare forgot the guard on this thread's copy in the parent.
        unsafe { self.queue.waiting.unlock_forgotten() };
        Ok(())
    }
}

impl<A: Releases, M: PageProvider + Copy, R: RawMutex> fmt::Debug for Forking<'_, A, M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forking")
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}
