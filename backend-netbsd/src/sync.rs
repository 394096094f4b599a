//! Other cores, time, and how a thread waits for a lock.

use crate::{NetBsdProvider, map::sysctl_int};
use core::{
    ffi::c_int,
    ptr::{null, null_mut},
    sync::atomic::{AtomicU8, AtomicU32, Ordering},
};
use hostmem_core::{
    provider::{Clock, CoreSync, Error, ErrorKind},
    sync::{Futex, FutexLock, sleep_while},
};
use rustix::{
    thread::nanosleep,
    time::{ClockId, Timespec, clock_gettime},
};

/// Says whether other cores can be made to see new instructions: there is no call for it.
pub(crate) fn core_sync() -> Result<(), Error> {
    Err(ErrorKind::Unsupported.into())
}

// SAFETY: the call always fails.
unsafe impl CoreSync for NetBsdProvider {
    fn sync_cores(&self) -> Result<(), Error> {
        core_sync()
    }
}

impl Clock for NetBsdProvider {
    fn now_ms(&self) -> Option<u64> {
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).ok()?;
        let milliseconds = u64::try_from(now.tv_nsec / 1_000_000).ok()?;
        seconds.checked_mul(1000)?.checked_add(milliseconds)
    }
}

/// Sleeping by the system's futexes, which NetBSD has since 10.
#[derive(Clone, Copy, Debug)]
pub struct OsFutex;

/// The lock of this system: waiting threads spin shortly, then sleep in the kernel.
pub type OsLock = FutexLock<OsFutex>;

/// `SYS___futex` of `sys/syscall.h`.
const SYS_FUTEX: c_int = 166;
/// `FUTEX_PRIVATE_FLAG` of `sys/futex.h`.
const PRIVATE: c_int = 128;
/// `FUTEX_WAIT`.
const WAIT: c_int = PRIVATE;
/// `FUTEX_WAKE`.
const WAKE: c_int = 1 | PRIVATE;
/// `kern.osrevision` of 10.0, the first release with the call (`sys/param.h`).
const REVISION_10: c_int = 1_000_000_000;

/// Says whether the kernel has the call, asked once. One that does not know a number kills the
/// process by `SIGSYS`.
fn has_futex() -> bool {
    static CACHED: AtomicU8 = AtomicU8::new(0);
    match CACHED.load(Ordering::Relaxed) {
        0 => {
            let revision = sysctl_int(&[libc::CTL_KERN, libc::KERN_OSREV]).unwrap_or(0);
            let has = revision >= REVISION_10;
            CACHED.store(1 + u8::from(has), Ordering::Relaxed);
            has
        }
        known => known == 2,
    }
}

fn futex(word: &AtomicU32, operation: c_int, value: c_int) -> c_int {
    let (word, none) = (word.as_ptr(), null_mut::<c_int>());
    let (no_time, zero): (*const libc::timespec, c_int) = (null(), 0);
    // SAFETY: this system call takes the address of the word, which is borrowed for the call, an
    // operation, a value, and no timeout, second word nor more values. It changes no memory.
    unsafe { libc::syscall(SYS_FUTEX, word, operation, value, no_time, none, zero, zero) }
}

// SAFETY: futex(2): waiting compares the word and begins to sleep in one step, so that a later wake
// finds the thread; waking with 1 wakes one of them. Where there is no call, a waiting thread looks
// at the word again and again. No call unwinds.
unsafe impl Futex for OsFutex {
    fn wait(word: &AtomicU32, expected: u32) {
        if has_futex() {
            // That it failed, or was interrupted, is an early return.
            let _ = futex(word, WAIT, expected.cast_signed());
            return;
        }
        sleep_while(word, expected, |time| {
            let nanoseconds = time.subsec_nanos().cast_signed();
            let time = Timespec {
                tv_sec: 0,
                tv_nsec: nanoseconds.into(),
            };
            // Interrupted, it was shorter; the word is looked at in either case.
            let _ = nanosleep(&time);
        });
    }

    fn wake_one(word: &AtomicU32) {
        if has_futex() {
            let _ = futex(word, WAKE, 1);
        }
    }
}
