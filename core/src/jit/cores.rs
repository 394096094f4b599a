//! When other cores are made to see what was published.
//!
//! Barriers have numbers. A write that needs one needs any that begins when the bytes are there:
//! the one after the last that has begun. So threads that wait for the lock find that another
//! one's barrier served them too, and however many they are, two barriers one behind the other do.
//!
//! A write that leaves its barrier to another thread notes that one is owed. What is owed is taken
//! by the next barrier that begins, whoever asked for it.

use super::{CodeProvider, JitAllocator, JitError};
use crate::{
    atomic::{AtomicBool, AtomicU64, Ordering, fence},
    provider::PageProvider,
    sync::{Guard, Lock, RawMutex},
};

/// What a call does so that other cores run the code that it replaced.
///
/// A core may have fetched an instruction before it was replaced, and run it afterwards: until it
/// goes through an event that discards what it fetched. A barrier makes all cores go through one;
/// on Linux it is a system call. Until then another core runs either the old instructions or the
/// new ones, and no mix inside of what [`JitAllocator::patch_u32`] and its like store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Barrier {
    /// None: old instructions do no harm, or the caller synchronizes the cores that run them.
    Never,
    /// The next one: that of [`JitAllocator::publish`], of the end of a
    /// [batch](JitAllocator::batch), or of any other call that has one.
    Deferred,
    /// One before the call returns.
    Now,
}

/// Barriers that began and that are over, and whether one is owed.
pub(super) struct Cores<R> {
    begun: AtomicU64,
    done: AtomicU64,
    /// Whether code was replaced without a barrier since the last one began.
    owed: AtomicBool,
    /// Held by the thread whose barrier is under way.
    pub(super) lock: Lock<(), R>,
}

impl<R: RawMutex> Cores<R> {
    pub(super) fn new() -> Self {
        Self {
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
            owed: AtomicBool::new(false),
            lock: Lock::new(()),
        }
    }

    /// Notes that a barrier is owed for what was just written.
    #[inline]
    fn owe(&self) {
        // Unconditionally: a note that is there already may belong to a barrier that begins before
        // the bytes are there. Release: whoever takes the note sees them.
        self.owed.store(true, Ordering::Release);
    }

    /// Returns the number of a barrier that begins after everything this thread did.
    #[inline]
    fn next(&self) -> u64 {
        // Either this sees that a barrier began, or the barrier begins after the stores before.
        fence(Ordering::SeqCst);
        self.begun.load(Ordering::Relaxed) + 1
    }

    /// Returns the number of a barrier that pays what is owed.
    fn next_owed(&self) -> u64 {
        if self.owed.load(Ordering::Acquire) {
            return self.next();
        }
        // The one that took the last note, as may be under way.
        self.begun.load(Ordering::Relaxed)
    }

    /// Waits until a barrier of this number or a later one is over; `barrier` is one.
    fn wait_for<E>(&self, wanted: u64, barrier: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        if self.done.load(Ordering::Acquire) >= wanted {
            return Ok(());
        }
        let locked = self.lock.lock();
        if self.done.load(Ordering::Acquire) >= wanted {
            return Ok(());
        }
        self.begin(&locked, barrier)
    }

    /// Has a barrier for everything this thread did; `barrier` is one.
    #[inline]
    fn now<E>(&self, barrier: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        match self.lock.try_lock() {
            // None is under way that could serve this thread too.
            Some(locked) => self.begin(&locked, barrier),
            None => self.wait_for(self.next(), barrier),
        }
    }

    /// Begins the next barrier, and waits until it is over.
    #[inline]
    fn begin<E>(
        &self,
        _locked: &Guard<'_, (), R>,
        barrier: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        // Only the holder of the lock changes this. SeqCst: `next` tells why.
        let number = self.begun.load(Ordering::Relaxed) + 1;
        self.begun.swap(number, Ordering::SeqCst);
        // A note that comes too late for this look stays for the next barrier. Whoever sees that it
        // is gone sees which barrier took it.
        let owed = self.owed.load(Ordering::Relaxed) && self.owed.swap(false, Ordering::AcqRel);
        let result = barrier();
        match result {
            Ok(()) => self.done.store(number, Ordering::Release),
            Err(_) if owed => self.owe(),
            Err(_) => {}
        }
        result
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
    /// Makes other cores see all code that was written before and whose barrier was deferred, by
    /// any thread: by [`JitAllocator::write_deferred`], by a patch with [`Barrier::Deferred`], or
    /// under [`SyncCores::Deferred`](super::SyncCores::Deferred). Costs nothing where no barrier is
    /// owed, and threads that call it at the same time share one.
    ///
    /// # Errors
    ///
    /// [`JitError::SyncCores`]: other cores may still run what they had fetched; the barrier is
    /// owed still.
    pub fn publish(&self) -> Result<(), JitError> {
        let wanted = self.cores.next_owed();
        self.sync_until(wanted)
    }

    /// Makes other cores see what was published, where that is needed.
    #[inline]
    pub(super) fn sync_if(&self, reused: bool) -> Result<(), JitError> {
        if reused && self.syncs_cores() {
            let synced = self.cores.now(|| self.provider.sync_cores());
            return synced.map_err(JitError::SyncCores);
        }
        Ok(())
    }

    /// Makes other cores see what was published where code was before, now or later.
    #[inline]
    pub(super) fn sync_by(&self, barrier: Barrier, reused: bool) -> Result<(), JitError> {
        match barrier {
            Barrier::Now => self.sync_if(reused),
            Barrier::Deferred if reused && self.syncs_cores() => {
                self.cores.owe();
                Ok(())
            }
            Barrier::Deferred | Barrier::Never => Ok(()),
        }
    }

    fn sync_until(&self, wanted: u64) -> Result<(), JitError> {
        let barrier = || self.provider.sync_cores();
        let synced = self.cores.wait_for(wanted, barrier);
        synced.map_err(JitError::SyncCores)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;
    use super::*;
    use core::cell::Cell;
    use std::thread;

    /// Threads that ask while a barrier is under way share the next one.
    #[test]
    fn threads_share_a_barrier() {
        const THREADS: u64 = 8;
        let cores = Cores::<crate::sync::Spin>::new();
        let (made, asked) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            let first = cores.wait_for(cores.next(), || {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        let wanted = cores.next();
                        asked.fetch_add(1, Ordering::Relaxed);
                        let barrier = || {
                            made.fetch_add(1, Ordering::Relaxed);
                            Ok::<(), ()>(())
                        };
                        assert_eq!(cores.wait_for(wanted, barrier), Ok(()));
                        assert!(
                            made.load(Ordering::Relaxed) >= 1,
                            "the first one began before"
                        );
                    });
                }
                while asked.load(Ordering::Relaxed) < THREADS {
                    thread::yield_now();
                }
                Ok::<(), ()>(())
            });
            assert_eq!(first, Ok(()));
        });
        assert_eq!(made.into_inner(), 1, "one for all of them");
    }

    #[test]
    fn a_barrier_serves_what_was_written_before_it_began() {
        let cores = Cores::<crate::sync::Spin>::new();
        let count = Cell::new(0);
        let barrier = || {
            count.set(count.get() + 1);
            Ok::<(), ()>(())
        };
        assert_eq!(cores.wait_for(cores.next_owed(), barrier), Ok(()));
        assert_eq!(count.get(), 0, "nothing is owed");
        let (first, second) = (cores.next(), cores.next());
        assert_eq!(cores.wait_for(first, barrier), Ok(()));
        assert_eq!(cores.wait_for(second, barrier), Ok(()));
        assert_eq!(count.get(), 1, "one serves both");
        cores.owe();
        cores.owe();
        assert_eq!(cores.wait_for(cores.next_owed(), barrier), Ok(()));
        assert_eq!(cores.wait_for(cores.next_owed(), barrier), Ok(()));
        assert_eq!(count.get(), 2, "what is owed is paid once");
        cores.owe();
        assert_eq!(cores.wait_for(cores.next(), barrier), Ok(()));
        assert_eq!(cores.wait_for(cores.next_owed(), barrier), Ok(()));
        assert_eq!(count.get(), 3, "and by any barrier");
        cores.owe();
        assert_eq!(cores.wait_for(cores.next_owed(), || Err(5)), Err(5));
        assert_eq!(cores.wait_for(cores.next_owed(), barrier), Ok(()));
        assert_eq!(count.get(), 4, "one that failed pays nothing");
        cores.owe();
        assert_eq!(cores.now(|| Err(6)), Err(6));
        assert_eq!(cores.now(barrier), Ok(()));
        assert_eq!(cores.wait_for(cores.next_owed(), barrier), Ok(()));
        assert_eq!(count.get(), 5, "one at once pays as well");
        assert_eq!(cores.now(barrier), Ok(()));
        assert_eq!(count.get(), 6, "and is made, owed or not");
    }
}
