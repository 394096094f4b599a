//! DragonFly: no call synchronizes the instruction streams of other cores; waiting by `umtx(2)`.

use core::{ffi::c_int, sync::atomic::AtomicU32};
use hostmem_core::provider::{Error, ErrorKind};

/// Says that this host cannot.
pub(crate) fn core_sync() -> Result<(), Error> {
    Err(ErrorKind::Unsupported.into())
}

pub(super) fn sync_cores() -> Result<(), Error> {
    core_sync()
}

/// Microseconds after which a sleeping thread looks at the word by itself: the kernel finds
/// sleepers by the memory of the word, which is another one after a fork if the page was written
/// meanwhile.
const LOOK_AGAIN: c_int = 100_000;

/// Sleeps while the word is `expected`, until it is woken; may return early.
pub(super) fn wait(word: &AtomicU32, expected: u32) {
    let word: *const c_int = word.as_ptr().cast();
    // SAFETY: umtx_sleep(2) reads the word, which is borrowed for the call, and changes no memory.
    // That it failed, was interrupted or took too long, is an early return.
    unsafe { libc::umtx_sleep(word, expected.cast_signed(), LOOK_AGAIN) };
}

/// Wakes one of those that sleep on the word.
pub(super) fn wake_one(word: &AtomicU32) {
    let word: *const c_int = word.as_ptr().cast();
    // SAFETY: umtx_wakeup(2) takes the address and changes no memory.
    unsafe { libc::umtx_wakeup(word, 1) };
}
