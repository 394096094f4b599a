//! Which stack the calling code runs on.

use core::{
    ffi::{c_int, c_void},
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

unsafe extern "C" {
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
