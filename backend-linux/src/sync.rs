//! Other cores, time, and how a thread waits for a lock.

use crate::{LinuxProvider, errno::error};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use hostmem_core::{
    provider::{Clock, CoreSync, Error},
    sync::{Futex, FutexLock, sleep_while},
};
use rustix::{
    io::Errno,
    thread::{MembarrierCommand, futex, membarrier, nanosleep},
    time::{ClockId, Timespec, clock_gettime},
};

/// Whether this process has registered for the barrier. A fork keeps the registration; should a
/// kernel not, the barrier says so and is registered again.
static REGISTERED: AtomicBool = AtomicBool::new(false);

// SAFETY: membarrier(2): PRIVATE_EXPEDITED_SYNC_CORE makes every running thread of the process
// execute a core-serializing instruction before the call returns, and every other thread executes
// one on its way back from the kernel.
unsafe impl CoreSync for LinuxProvider {
    fn sync_cores(&self) -> Result<(), Error> {
        if REGISTERED.load(Ordering::Relaxed) {
            match membarrier(MembarrierCommand::PrivateExpeditedSyncCore) {
                Err(Errno::PERM) => {}
                result => return result.map_err(error),
            }
        }
        membarrier(MembarrierCommand::RegisterPrivateExpeditedSyncCore).map_err(error)?;
        REGISTERED.store(true, Ordering::Relaxed);
        membarrier(MembarrierCommand::PrivateExpeditedSyncCore).map_err(error)
    }
}

impl Clock for LinuxProvider {
    fn now_ms(&self) -> Option<u64> {
        // Exact to a tick of the kernel, 10 ms at most, and cheaper to read.
        let now = clock_gettime(ClockId::MonotonicCoarse);
        let seconds = u64::try_from(now.tv_sec).ok()?;
        let milliseconds = u64::try_from(now.tv_nsec / 1_000_000).ok()?;
        seconds.checked_mul(1000)?.checked_add(milliseconds)
    }
}

/// Sleeping by `futex(2)`.
#[derive(Clone, Copy, Debug)]
pub struct OsFutex;

/// The lock of this system: waiting threads spin shortly, then sleep in the kernel.
pub type OsLock = FutexLock<OsFutex>;

// SAFETY: futex(2): FUTEX_WAIT compares the word and begins to sleep in one step, so that a later
// FUTEX_WAKE finds the thread; FUTEX_WAKE with 1 wakes one of them. Where a filter refuses the
// call, the thread looks at the word again and again instead. No call unwinds.
unsafe impl Futex for OsFutex {
    fn wait(word: &AtomicU32, expected: u32) {
        match futex::wait(word, futex::Flags::PRIVATE, expected, None) {
            // Woken, changed before it slept, or interrupted: the caller looks again.
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => sleep_while(word, expected, |time| {
                let nanoseconds = i64::from(time.subsec_nanos());
                let time = Timespec {
                    tv_sec: 0,
                    tv_nsec: nanoseconds,
                };
                // Interrupted or refused, it was shorter; the word is looked at in either case.
                let _ = nanosleep(&time);
            }),
        }
    }

    fn wake_one(word: &AtomicU32) {
        // It fails only where waiting fails, too.
        let _ = futex::wake(word, futex::Flags::PRIVATE, 1);
    }
}
