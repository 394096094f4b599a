//! Heaps for collections: allocator-api2's `Allocator`, which is that of unstable Rust.

use super::{GlobalHeap, Heap, HeapError, LocalHeap, StaticHeap};
use crate::{provider::PageProvider, sync::RawMutex};
use allocator_api2::alloc::{AllocError, Allocator};
use core::{
    alloc::{GlobalAlloc, Layout},
    ptr::NonNull,
};

/// Describes the bytes of a block that was asked for.
fn slice(block: NonNull<u8>, size: usize) -> NonNull<[u8]> {
    NonNull::slice_from_raw_parts(block, size)
}

fn bytes(
    block: Result<NonNull<u8>, HeapError>,
    layout: Layout,
) -> Result<NonNull<[u8]>, AllocError> {
    block
        .map(|block| slice(block, layout.size()))
        .map_err(|_| AllocError)
}

/// Implements the calls that resize a block, which differ only in what their callers promise.
macro_rules! resizing {
    ($($call:ident)*) => {$(
        unsafe fn $call(
            &self,
            block: NonNull<u8>,
            old: Layout,
            new: Layout,
        ) -> Result<NonNull<[u8]>, AllocError> {
            // SAFETY: the caller's promise.
            let realloc = |size| unsafe { self.realloc(block, old, size) };
            // SAFETY: the caller's promise.
            unsafe { resize(self, block, old, new, realloc) }
        }
    )*};
}

/// Implements the trait for a reference of a heap or a handle, whose calls these are.
///
/// Blocks stay where they are when the reference is copied. Where a block is to become longer or shorter,
/// the heap does that in place if it can; a change of alignment moves it.
macro_rules! allocator {
    () => {
        fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
            bytes(self.alloc(layout), layout)
        }

        fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
            bytes(self.alloc_zeroed(layout), layout)
        }

        unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
            // SAFETY: the caller's promise: a block of this heap with this layout, used no more.
            let freed = unsafe { self.free_sized(block, layout) };
            debug_assert!(freed.is_ok(), "{block:p}: {freed:?}");
        }

        resizing!(grow shrink);
    };
}

/// Makes a block as `new` says: by `realloc` of its size where the alignment stays, else by moving it.
///
/// # Safety
///
/// As of [`Allocator::grow`] or [`Allocator::shrink`].
unsafe fn resize<A: Allocator>(
    allocator: &A,
    block: NonNull<u8>,
    old: Layout,
    new: Layout,
    realloc: impl FnOnce(usize) -> Result<NonNull<u8>, HeapError>,
) -> Result<NonNull<[u8]>, AllocError> {
    if old.align() == new.align() {
        return bytes(realloc(new.size()), new);
    }
    let target = allocator.allocate(new)?;
    let len = old.size().min(new.size());
    // SAFETY: len bytes of both, which are live blocks: they share no byte.
    unsafe { target.cast::<u8>().copy_from_nonoverlapping(block, len) };
    // SAFETY: the caller gives the block up.
    unsafe { allocator.deallocate(block, old) };
    Ok(target)
}

// SAFETY: blocks stay live, and where they are, until they are freed or the heap is dropped, which a reference
// keeps from happening; copies of the reference are the same heap.
unsafe impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Allocator
    for &Heap<P, M, R>
{
    allocator!();
}

// SAFETY: as for a reference of the heap, which the handle keeps. Dropping the handle keeps blocks live.
unsafe impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Allocator
    for &LocalHeap<'_, P, M, R>
{
    allocator!();
}

// SAFETY: the heap lies in a static, and all values of the type are the same one.
unsafe impl<C: StaticHeap> Allocator for GlobalHeap<C> {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the heap serves sizes of zero as well.
        let block = unsafe { self.alloc(layout) };
        NonNull::new(block)
            .map(|block| slice(block, layout.size()))
            .ok_or(AllocError)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.dealloc(block.as_ptr(), layout) };
    }
}
