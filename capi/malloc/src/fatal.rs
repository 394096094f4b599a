//! The end of a program that frees what is not allocated, without a call of the heap on the way.

use crate::{line::say, settings};
use hostmem::heap::HeapError;

/// Says whether an error means that the program is corrupt.
pub(crate) const fn is_corrupt(error: &HeapError) -> bool {
    matches!(
        error,
        HeapError::NotOwned
            | HeapError::NotLive
            | HeapError::Interior
            | HeapError::WrongLayout(_)
            | HeapError::Overflow(_)
            | HeapError::WriteAfterFree(_)
    )
}

/// Says whether a block that cannot be freed is left alone: at level 0 of hardening.
pub(crate) fn is_tolerated(error: &HeapError) -> bool {
    match error {
        HeapError::NotOwned | HeapError::NotLive | HeapError::Interior => {
            settings::get().hardening() == 0
        }
        _ => false,
    }
}

/// Says on standard error why, and aborts.
#[cold]
pub(crate) fn end(call: &str, block: *mut u8, error: &HeapError) -> ! {
    say!("{call}({block:p}): {error}");
    // SAFETY: it ends the program.
    unsafe { libc::abort() }
}
