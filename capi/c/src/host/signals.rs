//! Signals that are blocked while a region or a map is locked.

use crate::status::Fault;
use core::{ffi::c_void, mem::MaybeUninit, ptr::null};
use hostmem::{range_map, region};

/// Linux's signals, of which each is a bit of a word.
const ALL: u64 = u64::MAX;
const BYTES: usize = size_of::<u64>();

/// Sets which signals the calling thread blocks; returns which it blocked before.
///
/// The system call itself: the C library's keeps two signals of its own from being blocked, whose
/// handlers run none of a program's code, and takes a set of 128 bytes.
fn set(mask: u64) -> u64 {
    let mut before = MaybeUninit::<u64>::zeroed();
    let (how, new) = (libc::SIG_SETMASK, &raw const mask);
    // SAFETY: both are sets of that many bytes.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            how,
            new,
            before.as_mut_ptr(),
            BYTES,
        )
    };
    // SAFETY: any bits are a value, and there were zeros at first.
    unsafe { before.assume_init() }
}

fn block() -> usize {
    let before = set(ALL);
    // As wide as an address on hosts that this is for.
    usize::try_from(before).unwrap_or(0)
}

fn unblock(before: usize) {
    set(before as u64);
}

unsafe fn enter(_: *const c_void) -> usize {
    block()
}

unsafe fn leave(_: *const c_void, before: usize) {
    unblock(before);
}

/// For regions.
#[expect(
    clippy::unnecessary_wraps,
    reason = "other systems have no signals that could be blocked"
)]
pub(crate) fn for_regions() -> Result<region::SignalHook, Fault> {
    Ok(region::SignalHook {
        enter: block,
        leave: unblock,
    })
}

/// For range maps.
#[expect(
    clippy::unnecessary_wraps,
    reason = "other systems have no signals that could be blocked"
)]
pub(crate) fn for_maps() -> Result<range_map::SignalHook, Fault> {
    // SAFETY: neither uses the context, unwinds, or calls a map.
    Ok(unsafe { range_map::SignalHook::new(null(), enter, leave) })
}
