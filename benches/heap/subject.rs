//! Ours and the C library's heap.

use hostmem::{
    OsProvider, Yield,
    heap::{Heap, LocalHeap},
};
use std::{alloc::Layout, ffi::c_void, ptr::NonNull};

pub type OurHeap = Heap<OsProvider, OsProvider, Yield>;

/// A heap.
pub trait Subject {
    /// What rows and notes call it.
    const NAME: &'static str;

    /// Allocates.
    ///
    /// # Panics
    ///
    /// Without memory.
    fn alloc(&self, layout: Layout) -> NonNull<u8>;

    /// Frees, sized where the heap has such a call.
    ///
    /// # Safety
    ///
    /// The block came from this subject's `alloc` with this layout, and nobody uses it.
    unsafe fn free(&self, block: NonNull<u8>, layout: Layout);
}

/// A thread's handle of ours: default configuration, frees checked.
pub struct Ours<'heap>(pub LocalHeap<'heap, OsProvider, OsProvider, Yield>);

impl Subject for Ours<'_> {
    const NAME: &'static str = "ours";

    #[inline]
    fn alloc(&self, layout: Layout) -> NonNull<u8> {
        self.0.alloc(layout).expect("memory")
    }

    #[inline]
    unsafe fn free(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.0.free_sized(block, layout) }.expect("a live block");
    }
}

/// The C library's.
pub struct Malloc;

impl Subject for Malloc {
    const NAME: &'static str = "malloc";

    #[inline]
    fn alloc(&self, layout: Layout) -> NonNull<u8> {
        // SAFETY: malloc may be called with any size; no alignment is asked for that it has not.
        let block = unsafe { libc::malloc(layout.size()) };
        NonNull::new(block.cast()).expect("memory")
    }

    #[inline]
    unsafe fn free(&self, block: NonNull<u8>, _layout: Layout) {
        // SAFETY: by the caller's promise this came from malloc, and is not used any more.
        unsafe { libc::free(block.as_ptr().cast::<c_void>()) }
    }
}
