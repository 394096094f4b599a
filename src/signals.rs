//! Signals of the calling thread, and the stack that it runs on.
//!
//! This needs the C library and nothing else, so that the malloc override, which has no standard
//! library, compiles this file too (`capi/malloc/src/lib.rs`).

use core::{
    ffi::{c_int, c_void},
    mem::MaybeUninit,
    ptr::{null, null_mut},
};

/// POSIX: `stack_t`.
#[cfg(target_os = "linux")]
#[repr(C)]
struct Stack {
    pointer: *mut c_void,
    flags: c_int,
    size: usize,
}

/// POSIX: `stack_t`, as the systems of BSD's kin order it.
#[cfg(not(target_os = "linux"))]
#[repr(C)]
struct Stack {
    pointer: *mut c_void,
    size: usize,
    flags: c_int,
}

/// POSIX: the alternate stack is in use.
const SS_ONSTACK: c_int = 1;

/// POSIX: `sigset_t`, which has no more bytes on any system here.
type SignalSet = MaybeUninit<[u64; 16]>;

/// POSIX: the set replaces the one before.
const SIG_SETMASK: c_int = if cfg!(target_os = "linux") { 2 } else { 3 };

/// SIGILL, SIGTRAP, SIGFPE, SIGSEGV, SIGBUS and SIGSYS, which instructions cause: where they are
/// blocked, the system ends the program. Debuggers and sandboxes handle them.
const OF_INSTRUCTIONS: [c_int; 6] = if cfg!(target_os = "linux") {
    [4, 5, 8, 11, 7, 31]
} else {
    [4, 5, 8, 11, 10, 12]
};

unsafe extern "C" {
    /// POSIX: fills a set with all signals.
    #[cfg_attr(target_os = "netbsd", link_name = "__sigfillset14")]
    fn sigfillset(set: *mut SignalSet) -> c_int;

    /// POSIX: takes a signal out of a set.
    #[cfg_attr(target_os = "netbsd", link_name = "__sigdelset14")]
    fn sigdelset(set: *mut SignalSet, signal: c_int) -> c_int;

    /// POSIX: sets which signals are blocked, and gets which were.
    fn pthread_sigmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int;

    /// POSIX: sets and gets the alternate signal stack of the calling thread.
    #[cfg_attr(target_os = "netbsd", link_name = "__sigaltstack14")]
    fn sigaltstack(new: *const Stack, old: *mut Stack) -> c_int;
}

/// Says whether the calling code runs on the thread's alternate signal stack: what a
/// [`ThreadSlot`](crate::heap::ThreadSlot) of a program with the C library answers.
#[must_use]
pub fn is_on_signal_stack() -> bool {
    let mut now = Stack {
        pointer: null_mut(),
        size: 0,
        flags: 0,
    };
    // SAFETY: nothing is set, and there is room for what is.
    let got = unsafe { sigaltstack(null(), &raw mut now) };
    got != 0 || now.flags & SS_ONSTACK != 0
}

/// Runs `f`, and meanwhile no signal handler on the calling thread but of signals that an
/// instruction causes: what a [`ThreadSlot`](crate::heap::ThreadSlot) of a program with the C
/// library answers.
pub fn without_signals<T>(f: impl FnOnce() -> T) -> T {
    let mut all = SignalSet::uninit();
    // SAFETY: there is room for a set.
    unsafe { sigfillset(&raw mut all) };
    for signal in OF_INSTRUCTIONS {
        // SAFETY: a set that was filled above.
        unsafe { sigdelset(&raw mut all, signal) };
    }
    let mut before = SignalSet::uninit();
    // SAFETY: a set that was filled above, and room for another one.
    let blocked = unsafe { pthread_sigmask(SIG_SETMASK, &raw const all, &raw mut before) };
    let result = f();
    if blocked == 0 {
        // SAFETY: a set that the call above filled.
        unsafe { pthread_sigmask(SIG_SETMASK, &raw const before, null_mut()) };
    }
    result
}
