//! Which block, and which heap, an address belongs to.

use super::{HeapObject, found_or, hm_heap};
use crate::{
    object::{self, Kind},
    types::pointer,
};
use core::{
    ffi::{c_int, c_void},
    ptr::{NonNull, null_mut},
};

/// Returns how many bytes of the live block that starts at `block` may be used; 0 where none does.
///
/// Thread-safe, and safe in signal handlers: it takes no lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_usable_size(heap: *mut hm_heap, block: *const c_void) -> usize {
    let heap = &found_or!(heap, 0).heap;
    let block = NonNull::new(block.cast_mut().cast::<u8>());
    block.and_then(|block| heap.usable_size(block)).unwrap_or(0)
}

/// Says whether an address, any address at all, lies in the heap's memory, freed blocks included: 1
/// or 0. Touches nothing there.
///
/// Thread-safe, and safe in signal handlers: it takes no lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_owns(heap: *mut hm_heap, address: *const c_void) -> c_int {
    found_or!(heap, 0).heap.owns(address.addr()).into()
}

/// Returns the start of the live block around an address, any address at all, and stores through
/// `size`, unless that is null, how many bytes of it may be used. Returns null where there is none.
/// Exact for a block that is not being freed at that moment.
///
/// Thread-safe, and safe in signal handlers: it takes no lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_block_of(
    heap: *mut hm_heap,
    address: *const c_void,
    size: *mut usize,
) -> *mut c_void {
    let Some(found) = found_or!(heap, null_mut()).heap.block_of(address.addr()) else {
        return null_mut();
    };
    if !size.is_null() {
        // SAFETY: the caller in C promises that a number may be stored there.
        unsafe { size.write(found.len) };
    }
    pointer(found.addr)
}

/// Returns the open heap that an address, any address at all, lies in the memory of, or null: to
/// free a block of one of several heaps. No heap is closed meanwhile.
///
/// Thread-safe, and safe in signal handlers: it takes no lock.
#[unsafe(no_mangle)]
pub extern "C" fn hm_heap_of(address: *const c_void) -> *mut hm_heap {
    let found = HeapObject::list().find(|object, found| {
        let owns = found.heap.owns(address.addr());
        owns.then_some(object)
    });
    found.map_or(null_mut(), |object| {
        core::ptr::from_ref(object).cast_mut().cast()
    })
}
