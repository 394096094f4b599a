//! Other cores, time, and how a thread waits for a lock.

use crate::{errno::error, pages::Linux, raw};
use core::{
    sync::atomic::{AtomicBool, AtomicU32},
    time::Duration,
};
use hostmem_core::{
    arch::runs_under_valgrind,
    provider::{
        Clock, CoreSync, Error,
        backend::{milliseconds, register_and_sync},
    },
    sync::{Futex, FutexLock, sleep_while},
};
use rustix::{
    io::Errno,
    thread::{MembarrierCommand, futex, membarrier, nanosleep},
    time::{ClockId, Timespec, clock_gettime},
};

// SAFETY: membarrier(2): PRIVATE_EXPEDITED_SYNC_CORE makes every running thread of the process
// execute a core-serializing instruction before the call returns, and every other thread executes
// one on its way back from the kernel.
unsafe impl CoreSync for Linux {
    fn sync_cores(&self) -> Result<(), Error> {
        static REGISTERED: AtomicBool = AtomicBool::new(false);
        let ask = |command| membarrier(command).map_err(error);
        let register = || ask(MembarrierCommand::RegisterPrivateExpeditedSyncCore);
        register_and_sync(&REGISTERED, register, || {
            ask(MembarrierCommand::PrivateExpeditedSyncCore)
        })
    }
}

impl Clock for Linux {
    fn now_ms(&self) -> Option<u64> {
        // Exact to a tick of the kernel, 10 ms at most, and cheaper to read.
        let clock = ClockId::MonotonicCoarse;
        let now = if runs_under_valgrind() {
            raw::clock(clock).ok()?
        } else {
            clock_gettime(clock)
        };
        milliseconds(now.tv_sec, now.tv_nsec)
    }
}

/// Sleeping by `futex(2)`.
#[derive(Clone, Copy, Debug)]
pub struct OsFutex;

/// The lock of this system: waiting threads spin shortly, then sleep in the kernel.
pub type OsLock = FutexLock<OsFutex>;

/// Returns a length of time as system calls take it; zero if it is longer than they can be told.
fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: time.as_secs().try_into().unwrap_or(0),
        tv_nsec: time.subsec_nanos().into(),
    }
}

// SAFETY: futex(2): FUTEX_WAIT compares the word and begins to sleep in one step, so that a later
// FUTEX_WAKE finds the thread; FUTEX_WAKE with 1 wakes one of them. Where a filter refuses the
// call, the thread looks at the word again and again instead. No call unwinds.
unsafe impl Futex for OsFutex {
    fn wait(word: &AtomicU32, expected: u32, at_most: Duration) {
        let timeout = timespec(at_most);
        match futex::wait(word, futex::Flags::PRIVATE, expected, Some(&timeout)) {
            // Woken, changed before it slept, interrupted, or late: the caller looks again.
            Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => {}
            Err(_) => sleep_while(word, expected, at_most, |time| {
                // Interrupted or refused, it was shorter; the word is looked at in either case.
                let _ = nanosleep(&timespec(time));
            }),
        }
    }

    fn wake_one(word: &AtomicU32) {
        // It fails only where waiting fails, too.
        let _ = futex::wake(word, futex::Flags::PRIVATE, 1);
    }
}
