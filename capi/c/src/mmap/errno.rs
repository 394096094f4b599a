//! Why a call fails, in `errno`.

use crate::status::Fault;
use core::ffi::{c_int, c_void};
use hostmem::{page::PageRange, provider::Error};

/// Why a call fails: a number, which `errno` is set to.
pub(super) struct Errno(pub(super) c_int);

impl From<Error> for Errno {
    fn from(error: Error) -> Self {
        // Its own number is the one that its own call would have given.
        Self(error.errno().unwrap_or_else(|| error.errno_like()))
    }
}

impl From<Fault> for Errno {
    fn from(fault: Fault) -> Self {
        Self(fault.guest_error())
    }
}

pub(super) const INVALID: Errno = Errno(libc::EINVAL);

/// Sets `errno`.
pub(super) fn set_errno(errno: c_int) {
    // SAFETY: the C library's own place for the number, which each thread has.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: the place is the calling thread's alone, aligned, and stays as long as the thread.
    unsafe { place.write(errno) };
}

/// Returns what the last call of the kernel said.
pub(super) fn last_errno() -> c_int {
    // SAFETY: the C library's own place for the number, which each thread has.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: the place is the calling thread's alone, aligned, and always has a number.
    unsafe { place.read() }
}

/// Returns 0, or sets `errno` and returns -1.
pub(super) fn answered(result: Result<(), Errno>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(Errno(errno)) => {
            set_errno(errno);
            -1
        }
    }
}

/// Returns an address, or sets `errno` and returns `MAP_FAILED`.
pub(super) fn mapped(result: Result<PageRange, Errno>) -> *mut c_void {
    match result {
        Ok(range) => range.start().as_ptr().cast(),
        Err(Errno(errno)) => {
            set_errno(errno);
            libc::MAP_FAILED
        }
    }
}
