//! OpenBSD: no call synchronizes the instruction streams of other cores; waiting by `futex(2)`.

use core::{
    ffi::c_int,
    ptr::{null, null_mut},
    sync::atomic::AtomicU32,
};
use hostmem_core::provider::{Error, ErrorKind};

/// Says that this host cannot.
pub(crate) fn core_sync() -> Result<(), Error> {
    Err(ErrorKind::Unsupported.into())
}

pub(super) fn sync_cores() -> Result<(), Error> {
    core_sync()
}

/// `FUTEX_PRIVATE_FLAG` of `sys/futex.h`.
const PRIVATE: c_int = 128;
/// `FUTEX_WAIT`.
const WAIT: c_int = 1 | PRIVATE;
/// `FUTEX_WAKE`.
const WAKE: c_int = 2 | PRIVATE;

/// Sleeps while the word is `expected`, until it is woken; may return early.
pub(super) fn wait(word: &AtomicU32, expected: u32) {
    let (word, expected) = (word.as_ptr(), expected.cast_signed());
    // SAFETY: futex(2) reads the word, which is borrowed for the call, and changes no memory. No
    // timeout and no second word. That it failed, or was interrupted, is an early return.
    unsafe { libc::futex(word, WAIT, expected, null(), null_mut()) };
}

/// Wakes one of those that sleep on the word.
pub(super) fn wake_one(word: &AtomicU32) {
    // SAFETY: futex(2) takes the address and changes no memory.
    unsafe { libc::futex(word.as_ptr(), WAKE, 1, null(), null_mut()) };
}
