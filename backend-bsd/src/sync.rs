//! Other cores, time, and how a thread waits for a lock.

#[cfg(target_os = "dragonfly")]
mod dragonfly;
#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "openbsd")]
mod openbsd;

#[cfg(target_os = "dragonfly")]
use dragonfly as host;
#[cfg(target_os = "freebsd")]
use freebsd as host;
#[cfg(target_os = "openbsd")]
use openbsd as host;

pub(crate) use host::core_sync;

use crate::BsdProvider;
use core::sync::atomic::AtomicU32;
use hostmem_core::{
    provider::{Clock, CoreSync, Error},
    sync::{Futex, FutexLock},
};
use rustix::time::{ClockId, clock_gettime};

// SAFETY: FreeBSD: membarrier(2), PRIVATE_EXPEDITED_SYNC_CORE: every running thread of the process
// executes a core-serializing instruction before the call returns, and every other thread executes
// one before it runs again. Elsewhere the call always fails.
unsafe impl CoreSync for BsdProvider {
    fn sync_cores(&self) -> Result<(), Error> {
        host::sync_cores()
    }
}

impl Clock for BsdProvider {
    fn now_ms(&self) -> Option<u64> {
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).ok()?;
        let milliseconds = u64::try_from(now.tv_nsec / 1_000_000).ok()?;
        seconds.checked_mul(1000)?.checked_add(milliseconds)
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
    fn wait(word: &AtomicU32, expected: u32) {
        host::wait(word, expected);
    }

    fn wake_one(word: &AtomicU32) {
        host::wake_one(word);
    }
}
