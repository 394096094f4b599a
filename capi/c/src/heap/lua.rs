//! Lua's allocator.

use super::{HeapObject, alloc::or_null, found_or, hm_heap};
use crate::object;
use core::{
    ffi::c_void,
    ptr::{NonNull, null_mut},
};

/// What a `lua_Alloc` does, by the calls of a heap, or of a handle of one.
macro_rules! lua_alloc {
    ($heap:expr, $block:expr, $old_size:expr, $new_size:expr) => {{
        let (heap, block, new_size) = ($heap, $block, $new_size);
        match NonNull::new(block.cast::<u8>()) {
            // Of a null block the old size says what kind of object it will be.
            None if new_size == 0 => null_mut(),
            None => or_null(heap.alloc_bytes(new_size)),
            Some(at) if new_size == 0 => {
                // SAFETY: the caller in C gives the block up; others are noticed, and there is no
                // way to tell.
                let _ = unsafe { heap.free(at) };
                null_mut()
            }
            // SAFETY: the caller in C gives the block up; others are noticed.
            Some(at) => match unsafe { heap.realloc_bytes(at, new_size) } {
                Ok(block) => block.as_ptr().cast(),
                Err(_) if new_size <= $old_size => block,
                Err(_) => null_mut(),
            },
        }
    }};
}
pub(super) use lua_alloc;

/// Lua's allocator (`lua_Alloc`): `context` is a heap. Frees for a new size of zero, allocates for
/// a null block, and resizes else. A block that is made shorter never fails.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_lua_alloc(
    context: *mut c_void,
    block: *mut c_void,
    old_size: usize,
    new_size: usize,
) -> *mut c_void {
    let found = found_or!(context.cast::<hm_heap>(), null_mut());
    found.by_turns(
        (block, old_size, new_size),
        |by, (block, old_size, new_size)| lua_alloc!(by, block, old_size, new_size),
        |by, (block, old_size, new_size)| lua_alloc!(by, block, old_size, new_size),
    )
}
