//! Other cores, and how a thread waits for a lock.

use crate::{pages::NetBsd, probe::is_revision};
use core::{
    ffi::c_int,
    ptr::{self, null, null_mut},
    sync::atomic::AtomicU32,
    time::Duration,
};
use hostmem_bsd::shared::time::timespec;
use hostmem_core::{
    provider::{CoreSync, Error, ErrorKind, backend::Answer},
    sync::{Futex, FutexLock, sleep_while},
};
use rustix::{thread::nanosleep, time::Timespec};

// SAFETY: the call always fails, since the system has none for it.
unsafe impl CoreSync for NetBsd {
    fn sync_cores(&self) -> Result<(), Error> {
        Err(ErrorKind::Unsupported.into())
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
    static KNOWN: Answer = Answer::new();
    KNOWN.or_ask(|| is_revision(REVISION_10))
}

fn futex(
    word: &AtomicU32,
    operation: c_int,
    value: c_int,
    at_most: Option<&libc::timespec>,
) -> c_int {
    let (word, none, zero) = (word.as_ptr(), null_mut::<c_int>(), 0 as c_int);
    let time = at_most.map_or(null(), ptr::from_ref);
    // SAFETY: this system call takes the address of the word, which is borrowed for the call, an
    // operation, a value, a time that is borrowed as well or none, and no second word nor more
    // values. It changes no memory.
    unsafe { libc::syscall(SYS_FUTEX, word, operation, value, time, none, zero, zero) }
}

// SAFETY: futex(2): waiting compares the word and begins to sleep in one step, so that a later wake
// finds the thread; waking with 1 wakes one of them. Where there is no call, a waiting thread looks
// at the word again and again. No call unwinds.
unsafe impl Futex for OsFutex {
    fn wait(word: &AtomicU32, expected: u32, at_most: Duration) {
        if has_futex() {
            // That it failed, was interrupted or took too long, is an early return.
            let _ = futex(word, WAIT, expected.cast_signed(), Some(&timespec(at_most)));
            return;
        }
        sleep_while(word, expected, at_most, |time| {
            let libc::timespec { tv_sec, tv_nsec } = timespec(time);
            // Interrupted, it was shorter; the word is looked at in either case.
            let _ = nanosleep(&Timespec { tv_sec, tv_nsec });
        });
    }

    fn wake_one(word: &AtomicU32) {
        if has_futex() {
            let _ = futex(word, WAKE, 1, None);
        }
    }
}
