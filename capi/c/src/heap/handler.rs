//! Calls for signal handlers, which never wait.

use super::{
    HeapObject,
    alloc::{layout, wanted},
    heap, hm_heap,
};
use crate::{
    abi::place,
    object::opened,
    status::{answer, hm_error, hm_status, invalid},
};
use core::{
    ffi::{c_int, c_void},
    ptr::NonNull,
};

/// Allocates as `hm_heap_alloc` does, without waiting and without asking the host: from what is
/// free and has memory. Returns `HM_BUSY` where nothing is, or where the thread that was
/// interrupted, or another one, has locked what is.
///
/// Thread-safe, and safe in signal handlers, whatever they interrupt.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_try_alloc(
    heap: *mut hm_heap,
    size: usize,
    align: usize,
    zeroed: c_int,
    block: *mut *mut c_void,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, heap, layout) = (place!(block), heap!(heap), wanted(size, align)?);
        let block = match zeroed {
            0 => heap.try_alloc(layout)?,
            _ => heap.try_alloc_zeroed(layout)?,
        };
        to.write(block.as_ptr().cast());
    })
}

/// Makes a block `size` bytes long as `hm_heap_realloc` does, without waiting; stores where it lies
/// then. It was allocated with `old_size` bytes and this alignment (0 for 16), or last resized to
/// `old_size`. Returns the statuses of `hm_heap_try_alloc` and `hm_heap_try_free`; the block stays
/// as it is then.
///
/// Thread-safe, and safe in signal handlers, whatever they interrupt.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_try_realloc(
    heap: *mut hm_heap,
    block: *mut *mut c_void,
    old_size: usize,
    align: usize,
    size: usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (heap, old) = (heap!(heap), layout(old_size, align)?);
        if block.is_null() || !block.is_aligned() {
            return Err(invalid(c"a null or misaligned pointer to a block"));
        }
        // SAFETY: the caller in C promises that a pointer is there; aligned as just checked.
        let from = NonNull::new(unsafe { *block }.cast::<u8>());
        let from = from.ok_or(invalid(c"a null block"))?;
        // SAFETY: the caller in C gives the block up, and says what it asked for; others are
        // noticed.
        let to = unsafe { heap.try_realloc(from, old, size)? };
        // SAFETY: the caller in C promises that a pointer can be stored there.
        unsafe { *block = to.as_ptr().cast() };
    })
}

/// Frees a block as `hm_heap_free` does, without waiting: its memory serves again after the next
/// call that takes a lock.
///
/// Thread-safe, and safe in signal handlers, whatever they interrupt.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_try_free(
    heap: *mut hm_heap,
    block: *mut c_void,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let heap = heap!(heap);
        if let Some(block) = NonNull::new(block.cast::<u8>()) {
            // SAFETY: the caller in C gives the block up; others are noticed.
            unsafe { heap.try_free(block)? };
        }
    })
}
