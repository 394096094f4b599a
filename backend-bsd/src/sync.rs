//! Other cores, and how a thread waits for a lock.

use crate::{host, pages::Bsd};
use core::{sync::atomic::AtomicU32, time::Duration};
use hostmem_core::{
    provider::{CoreSync, Error},
    sync::{Futex, FutexLock},
};

// SAFETY: FreeBSD: membarrier(2), PRIVATE_EXPEDITED_SYNC_CORE: every running thread of the process
// executes a core-serializing instruction before the call returns, and every other thread executes
// one before it runs again. Elsewhere the call always fails.
unsafe impl CoreSync for Bsd {
    fn sync_cores(&self) -> Result<(), Error> {
        host::sync_cores()
    }
}

/// Sleeping by the system's own call.
#[derive(Clone, Copy, Debug)]
pub struct OsFutex;

/// The lock of this system: waiting threads spin shortly, then sleep in the kernel.
pub type OsLock = FutexLock<OsFutex>;

// SAFETY: _umtx_op(2), umtx(2) and futex(2): waiting compares the word and begins to sleep in one
// step, so that a later wake finds the thread, and waking with 1 wakes one of them. No call
// unwinds.
unsafe impl Futex for OsFutex {
    fn wait(word: &AtomicU32, expected: u32, at_most: Duration) {
        host::wait(word, expected, at_most);
    }

    fn wake_one(word: &AtomicU32) {
        host::wake_one(word);
    }
}
