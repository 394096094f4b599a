//! Heaps for collections: allocator-api2's `Allocator`, which is that of unstable Rust.

use super::{GlobalHeap, Heap, HeapError, LocalHeap, StaticHeap};
use crate::{provider::PageProvider, sync::RawMutex};
use allocator_api2::alloc::{AllocError, Allocator};
use core::{
    alloc::{GlobalAlloc, Layout},
    ptr::{NonNull, without_provenance_mut},
};

/// Describes the bytes of a block that was asked for.
fn slice(block: NonNull<u8>, size: usize) -> NonNull<[u8]> {
    NonNull::slice_from_raw_parts(block, size)
}

fn bytes(
    block: Result<NonNull<u8>, HeapError>,
    layout: Layout,
) -> Result<NonNull<[u8]>, HeapError> {
    block.map(|block| slice(block, layout.size()))
}

/// Tells the heap's hook of a block that is none, or that is corrupt, for which the trait has no
/// error.
fn told<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex>(
    heap: &Heap<P, M, R>,
    block: NonNull<u8>,
    result: Result<NonNull<[u8]>, HeapError>,
) -> Result<NonNull<[u8]>, AllocError> {
    result.map_err(|error| {
        match error {
            HeapError::Overflow(at) | HeapError::WriteAfterFree(at) => {
                heap.config().tell(without_provenance_mut(at.addr()), error);
            }
            _ if error.is_invalid_free() => heap.config().tell(block.as_ptr(), error),
            _ => {}
        }
        AllocError
    })
}

/// The calls that heaps and handles have in common here.
trait OfHeap {
    type Pages: PageProvider + Copy;
    type Metadata: PageProvider + Copy;
    type Lock: RawMutex;

    /// Returns the heap.
    fn of(&self) -> &Heap<Self::Pages, Self::Metadata, Self::Lock>;
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> OfHeap for &Heap<P, M, R> {
    type Pages = P;
    type Metadata = M;
    type Lock = R;

    fn of(&self) -> &Heap<P, M, R> {
        self
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> OfHeap
    for &LocalHeap<'_, P, M, R>
{
    type Pages = P;
    type Metadata = M;
    type Lock = R;

    fn of(&self) -> &Heap<P, M, R> {
        self.heap()
    }
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
            // SAFETY: by the contract a live block of this heap with the layout `old`, which is
            // used no more where another one is returned.
            let realloc = |size| unsafe { self.realloc(block, old, size) };
            // SAFETY: by the contract a live block with the layout `old`, which `realloc` makes
            // longer or shorter.
            let resized = unsafe { resize(self, block, old, new, realloc) };
            told(self.of(), block, resized)
        }
    )*};
}

/// Implements the trait for a reference of a heap or a handle, whose calls these are.
///
/// Blocks stay where they are when the reference is copied. Where a block is to become longer or
/// shorter, the heap does that in place if it can; a change of alignment moves it.
macro_rules! allocator {
    () => {
        fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
            let block = bytes(self.alloc(layout), layout);
            told(self.of(), NonNull::dangling(), block)
        }

        fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
            let block = bytes(self.alloc_zeroed(layout), layout);
            told(self.of(), NonNull::dangling(), block)
        }

        unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
            // SAFETY: by the contract a block of this heap with this layout, which is used no more.
            if let Err(error) = unsafe { self.free_sized(block, layout) } {
                self.of().config().tell(block.as_ptr(), error);
            }
        }

        resizing!(grow shrink);
    };
}

/// Makes a block as `new` says: by `realloc` of its size where the alignment stays, else by moving
/// it.
///
/// # Safety
///
/// Those of [`Allocator::grow`] or [`Allocator::shrink`].
unsafe fn resize<A: Allocator>(
    allocator: &A,
    block: NonNull<u8>,
    old: Layout,
    new: Layout,
    realloc: impl FnOnce(usize) -> Result<NonNull<u8>, HeapError>,
) -> Result<NonNull<[u8]>, HeapError> {
    if old.align() == new.align() {
        return bytes(realloc(new.size()), new);
    }
    // The hook was told why, if it was to be.
    let target = allocator.allocate(new).map_err(|_| HeapError::Busy)?;
    let len = old.size().min(new.size());
    // SAFETY: len bytes of both, which are live blocks: they share no byte.
    unsafe { target.cast::<u8>().copy_from_nonoverlapping(block, len) };
    // SAFETY: the caller gives the block up.
    unsafe { allocator.deallocate(block, old) };
    Ok(target)
}

// SAFETY: blocks stay live, and where they are, until they are freed or the heap is dropped, which
// a reference keeps from happening; copies of the reference are the same heap.
unsafe impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Allocator
    for &Heap<P, M, R>
{
    allocator!();
}

// SAFETY: blocks are the heap's, which the handle borrows: they stay live, and where they are,
// until they are freed; copies of the reference are the same handle. Dropping the handle keeps
// blocks live.
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
        // SAFETY: `dealloc` asks for a block of this allocator with this layout that is used no
        // more, which the contract of `deallocate` says.
        unsafe { self.dealloc(block.as_ptr(), layout) };
    }
}
