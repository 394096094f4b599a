//! A plugin with a heap of its own, and a call that closes the heap, for the program to make before
//! it unloads the plugin.
//!
//! ```text
//! cargo build --example plugin        target/debug/examples/libplugin.so
//! ```
//!
//! The heap is not the plugin's global allocator: what the standard library keeps for each thread
//! would lie in it, and be used when threads end, after it was closed.

use core::ptr::{NonNull, null_mut};
use hostmem::{Heap, HeapConfig};

hostmem::global_heap! {
    /// The plugin's heap. The C library forgets what it is to do in forked children when it unloads
    /// the plugin.
    static HEAP: Heap = Heap::new(HeapConfig::new());
}

/// Allocates `len` bytes; returns null where there is no memory, and once the heap is closed.
#[unsafe(no_mangle)]
pub extern "C" fn plugin_alloc(len: usize) -> *mut u8 {
    HEAP.alloc_bytes_or_else(len, |_error| null_mut())
}

/// Frees a block; says whether it was one.
///
/// # Safety
///
/// If it is one that [`plugin_alloc`] returned, it is used no more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plugin_free(block: *mut u8) -> bool {
    let free = |block| {
        // SAFETY: the caller gives the block up, if it is one.
        unsafe { HEAP.free(block) }
    };
    NonNull::new(block).is_some_and(|block| free(block).is_ok())
}

/// Closes the heap: all of its memory goes back. Says whether it did, which it does not where
/// a signal handler interrupted another call.
///
/// # Safety
///
/// No other thread is in a call of the plugin, or ending, until this returns. No block is used any
/// more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plugin_close() -> bool {
    // SAFETY: no other thread is in a call of the heap, and no block is used any more, by this
    // function's conditions; only the plugin has the heap itself.
    unsafe { HEAP.close() }.is_ok()
}
