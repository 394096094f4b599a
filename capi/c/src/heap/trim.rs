//! Giving free memory back.

use super::{HeapObject, heap, hm_heap, types::*};
use crate::{
    abi::place,
    object::opened,
    status::{Fault, answer, hm_error, hm_status, invalid},
};
use hostmem::heap::Level;

/// Gives free memory back to the host. What other threads' handles have goes back at their next
/// calls.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_trim(
    heap: *mut hm_heap,
    how: hm_trim,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (found, level) = (opened!(HeapObject, heap).1, level(how)?);
        found.caches.flush();
        found.heap.collect(level);
    })
}

fn level(how: hm_trim) -> Result<Level, Fault> {
    Ok(match how {
        HM_TRIM_FREE => Level::Free,
        HM_TRIM_DEEP => Level::Deep,
        _ => return Err(invalid(c"no such level of trimming")),
    })
}

/// Gives memory back until no more than `bytes` of it are resident, or no more is free; stores
/// through `resident`, unless that is null, how many are then.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_trim_to(
    heap: *mut hm_heap,
    bytes: usize,
    resident: *mut usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let found = opened!(HeapObject, heap).1;
        found.caches.flush();
        let left = found.heap.trim_to(bytes);
        if !resident.is_null() {
            place!(resident).write(left);
        }
    })
}

/// Gives back what was free for long enough, by a clock of the program that only goes forwards, in
/// milliseconds: for heaps with `no_clock`.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_tick(
    heap: *mut hm_heap,
    now_ms: u64,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        heap!(heap).tick(now_ms);
    })
}
