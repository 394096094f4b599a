//! Forks, and code that the program writes by itself.

use super::{Jit, hm_jit, jit};
use crate::{
    object::opened,
    status::{answer, hm_error, hm_status},
};
use core::{ffi::c_void, ptr::NonNull};
use hostmem::fork::ForkHooks;

/// Locks the object for a fork by this thread, and copies its code where a child is to have it.
/// Answered by `hm_jit_fork_parent` in the parent, also where no fork came about, and by
/// `hm_jit_fork_child` in the child. After an error nothing is locked.
///
/// Not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_fork_prepare(jit: *mut hm_jit, error: *mut hm_error) -> hm_status {
    answer!(error, {
        jit!(jit).allocator.fork_prepare()?;
    })
}

/// Unlocks in the parent what this thread's `hm_jit_fork_prepare` locked.
///
/// Not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_fork_parent(jit: *mut hm_jit, error: *mut hm_error) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        // SAFETY: the caller in C promises that it has prepared the fork.
        unsafe { jit.allocator.fork_parent() };
    })
}

/// Makes the code the child's own, on its only thread, and unlocks it. A region that the code lies
/// in is repaired before, by `hm_fork_child_all`.
///
/// Not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_fork_child(jit: *mut hm_jit, error: *mut hm_error) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        // SAFETY: the caller in C promises that this is the only thread of a child of that fork.
        unsafe { jit.allocator.fork_child()? };
    })
}

/// Makes code that was written through the address itself, or another one of the same memory,
/// visible to the calling core's execution. What other cores have fetched before is another matter:
/// `hm_sync_cores`.
///
/// Thread-safe, and safe in signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_flush_icache(code: *const c_void, len: usize) {
    let Some(code) = NonNull::new(code.cast_mut()) else {
        return;
    };
    // SAFETY: the caller in C promises that the bytes are mapped there.
    unsafe { hostmem::arch::publish_code(code.as_ptr().cast(), len) };
}
