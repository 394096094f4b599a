//! Allocating and freeing blocks.

use super::{HeapObject, Inner, found_or, hm_heap};
use crate::{
    abi::place,
    object::{self, opened},
    status::{Fault, answer, hm_error, hm_status, invalid},
};
use core::{
    alloc::Layout,
    ffi::{c_int, c_void},
    ptr::{NonNull, null_mut},
};
use hostmem::heap::HeapError;

#[inline]
pub(super) fn or_null(block: Result<NonNull<u8>, HeapError>) -> *mut c_void {
    block.map_or(null_mut(), |block| block.as_ptr().cast())
}

/// Returns the layout of a block that was asked for by size and alignment.
#[inline]
pub(super) fn layout(size: usize, align: usize) -> Result<Layout, Fault> {
    let layout = Layout::from_size_align(size, align.max(16));
    layout.map_err(|_| invalid(c"no such size or alignment"))
}

/// Returns the layout of a block that is asked for, of which some are too large.
pub(super) fn wanted(size: usize, align: usize) -> Result<Layout, Fault> {
    if align != 0 && !align.is_power_of_two() {
        return Err(invalid(c"an alignment that is no power of two"));
    }
    let layout = Layout::from_size_align(size, align.max(16));
    layout.map_err(|_| HeapError::InvalidSize.into())
}

/// Allocates `size` bytes at a multiple of `align`, a power of two, or 0 for 16. They read zero if
/// `zeroed` is not zero. As `hm_heap_malloc`, and says why there is no block.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_alloc(
    heap: *mut hm_heap,
    size: usize,
    align: usize,
    zeroed: c_int,
    block: *mut *mut c_void,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, found) = (place!(block), opened!(HeapObject, heap).1);
        let layout = wanted(size, align)?;
        let block = if zeroed == 0 {
            found.by_turns(layout, |by, layout| by.alloc(layout), Inner::alloc)?
        } else {
            found.by_turns(
                layout,
                |by, layout| by.alloc_zeroed(layout),
                Inner::alloc_zeroed,
            )?
        };
        to.write(block.as_ptr().cast());
    })
}

/// Allocates `size` bytes at a multiple of 16; a block of size zero has an address of its own.
/// Returns null without memory, and for a null or closed heap. A lock is seldom waited for; see
/// `no_thread_caches`. `hm_local_malloc` is quicker still.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_malloc(heap: *mut hm_heap, size: usize) -> *mut c_void {
    let found = found_or!(heap, null_mut());
    or_null(found.by_turns(size, |by, size| by.alloc_bytes(size), Inner::alloc_bytes))
}

/// Allocates `count` times `size` bytes that read zero. Returns null as `hm_heap_malloc` does, and
/// where the product overflows.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_calloc(
    heap: *mut hm_heap,
    count: usize,
    size: usize,
) -> *mut c_void {
    let found = found_or!(heap, null_mut());
    let Some(bytes) = count.checked_mul(size) else {
        return null_mut();
    };
    or_null(found.by_turns(
        bytes,
        |by, bytes| by.alloc_bytes_zeroed(bytes),
        Inner::alloc_bytes_zeroed,
    ))
}

/// Allocates `size` bytes at a multiple of `align`, a power of two. Returns null as
/// `hm_heap_malloc` does, and for another alignment.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_aligned_alloc(
    heap: *mut hm_heap,
    align: usize,
    size: usize,
) -> *mut c_void {
    let found = found_or!(heap, null_mut());
    or_null(found.by_turns(
        (size, align),
        |by, (size, align)| by.alloc_aligned(size, align),
        |by, (size, align)| by.alloc_aligned(size, align),
    ))
}

/// Makes a block `size` bytes long, where it lies or elsewhere; its contents stay, as far as they
/// fit. A null block is allocated anew; a size of zero leaves a block of size zero. Returns null
/// without memory, and where no live block of the heap starts at `block`: it stays as it is then.
/// A block that moves is aligned to 16.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_realloc(
    heap: *mut hm_heap,
    block: *mut c_void,
    size: usize,
) -> *mut c_void {
    let found = found_or!(heap, null_mut());
    let Some(block) = NonNull::new(block.cast::<u8>()) else {
        return or_null(found.by_turns(size, |by, size| by.alloc_bytes(size), Inner::alloc_bytes));
    };
    or_null(found.by_turns(
        (block, size),
        // SAFETY: the caller in C gives the block up; others are noticed.
        |by, (block, size)| unsafe { by.realloc_bytes(block, size) },
        // SAFETY: the caller in C gives the block up; others are noticed.
        |by, (block, size)| unsafe { by.realloc_bytes(block, size) },
    ))
}

/// Frees a block of the heap, allocated by any call; null is passed by. Returns
/// `HM_UNKNOWN_POINTER`, and changes nothing, where no live block of the heap starts there.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_free(heap: *mut hm_heap, block: *mut c_void) -> hm_status {
    answer!(null_mut(), {
        let found = opened!(HeapObject, heap).1;
        if let Some(block) = NonNull::new(block.cast::<u8>()) {
            found.by_turns(
                block,
                // SAFETY: the caller in C gives the block up; others are noticed.
                |by, block| unsafe { by.free(block) },
                // SAFETY: the caller in C gives the block up; others are noticed.
                |by, block| unsafe { by.free(block) },
            )?;
        }
    })
}

/// Frees as `hm_heap_free` does a block that was allocated with this size and alignment (0 for 16),
/// or last resized to this size, for which the alignment is 0; a hardened heap compares them.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_free_sized(
    heap: *mut hm_heap,
    block: *mut c_void,
    size: usize,
    align: usize,
) -> hm_status {
    answer!(null_mut(), {
        let (found, layout) = (opened!(HeapObject, heap).1, layout(size, align)?);
        if let Some(block) = NonNull::new(block.cast::<u8>()) {
            found.by_turns(
                (block, layout),
                // SAFETY: the caller in C gives the block up, and says what it asked for.
                |by, (block, layout)| unsafe { by.free_sized(block, layout) },
                // SAFETY: the caller in C gives the block up, and says what it asked for.
                |by, (block, layout)| unsafe { by.free_sized(block, layout) },
            )?;
        }
    })
}
