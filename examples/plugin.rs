//! A plugin with a heap of its own, and a call that closes the heap, for the program to make before
//! it unloads the plugin.
//!
//! ```text
//! cargo build --features std --example plugin        target/debug/examples/libplugin.so
//! ```
//!
//! The heap is not the plugin's global allocator: what the standard library keeps for each thread
//! would lie in it, and be used when threads end, after it was closed.

use core::ptr::{NonNull, null_mut};
use hostmem::{
    OsLock, OsProvider,
    heap::{GlobalHeap, Heap, HeapConfig, HeapError, HeapOf, State, StaticHeap},
};

hostmem::std_slot! {
    /// Where threads keep what they have cached of the plugin's heap.
    struct PluginSlot;
}

/// Describes the plugin's heap.
struct Plugin;

// SAFETY: the state and the slot are this heap's alone, and no provider allocates.
unsafe impl StaticHeap for Plugin {
    type Pages = OsProvider;
    type Metadata = OsProvider;
    type Lock = OsLock;
    type Slot = PluginSlot;

    fn open() -> Result<HeapOf<Self>, HeapError> {
        let os = OsProvider::new();
        Heap::new(os, os, HeapConfig::new())
    }

    fn state() -> &'static State<Self> {
        static STATE: State<Plugin> = State::new();
        &STATE
    }

    fn register() {
        // Where that fails, a child must not use the heap. The C library forgets it when it unloads
        // the plugin.
        let _ = hostmem::register_fork_child::<Self>();
    }
}

static HEAP: GlobalHeap<Plugin> = GlobalHeap::new();

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
    // SAFETY: the caller's promises are the same; no one else has the heap itself.
    unsafe { HEAP.close() }.is_ok()
}
