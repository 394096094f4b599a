//! Calls that need no layout: for C's `malloc`, and other interfaces that free a block by its
//! address alone.
//!
//! A block that is asked for by size is aligned to 16 bytes, which is enough for every type of C.
//! The heap keeps no layouts: [`LocalHeap::free`] finds a block by its address, and
//! [`LocalHeap::realloc_bytes`] takes the usable size of a block for its old size.
//! Those of a heap in a static are in `global`.

#[cfg(not(all(test, loom)))]
mod global;

use super::{BlockInfo, Heap, HeapError, LocalHeap, class::STEP};
use crate::{provider::PageProvider, sync::RawMutex};
use core::{alloc::Layout, ptr::NonNull};

/// Returns the layout of a block that is asked for by size.
#[inline]
fn sized(size: usize) -> Result<Layout, HeapError> {
    Layout::from_size_align(size, STEP).map_err(|_| HeapError::InvalidSize)
}

/// Returns the layout of a block that is asked for by size and alignment.
#[inline]
fn aligned(size: usize, align: usize) -> Result<Layout, HeapError> {
    Layout::from_size_align(size, align)
        .and_then(|layout| layout.align_to(STEP))
        .map_err(|_| HeapError::InvalidSize)
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Allocates a block of `size` bytes, aligned to 16; its contents are undefined. A block of
    /// size zero has an address of its own. [`Heap::free`] frees it.
    ///
    /// # Errors
    ///
    /// See [`LocalHeap::alloc_bytes`].
    ///
    /// # Examples
    ///
    /// ```
    /// use hostmem_core::{heap::{Heap, HeapError}, provider::PageProvider};
    ///
    /// fn example<P: PageProvider + Copy>(heap: &Heap<P>) -> Result<(), HeapError> {
    ///     let block = heap.alloc_bytes(100)?;
    ///     assert!(heap.usable_size(block) >= Some(100));
    ///     // SAFETY: allocated above; the old address is not used again.
    ///     let block = unsafe { heap.realloc_bytes(block, 5000)? };
    ///     // SAFETY: live, and not used again.
    ///     unsafe { heap.free(block) }
    /// }
    /// ```
    pub fn alloc_bytes(&self, size: usize) -> Result<NonNull<u8>, HeapError> {
        self.alloc(sized(size)?)
    }

    /// Allocates a block of `size` bytes that read zero, aligned to 16.
    ///
    /// # Errors
    ///
    /// See [`LocalHeap::alloc_bytes`].
    pub fn alloc_bytes_zeroed(&self, size: usize) -> Result<NonNull<u8>, HeapError> {
        self.alloc_zeroed(sized(size)?)
    }

    /// Allocates a block of `size` bytes at a multiple of `align`, and of 16; its contents are
    /// undefined.
    ///
    /// # Errors
    ///
    /// See [`LocalHeap::alloc_aligned`].
    pub fn alloc_aligned(&self, size: usize, align: usize) -> Result<NonNull<u8>, HeapError> {
        self.alloc(aligned(size, align)?)
    }

    /// Makes a block `new_size` bytes long, where it lies or elsewhere; its contents stay, as far
    /// as they fit. See [`LocalHeap::realloc_bytes`].
    ///
    /// # Errors
    ///
    /// See [`LocalHeap::realloc_bytes`].
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::realloc_bytes`].
    pub unsafe fn realloc_bytes(
        &self,
        block: NonNull<u8>,
        new_size: usize,
    ) -> Result<NonNull<u8>, HeapError> {
        let layout = self.usable_layout(block)?;
        // SAFETY: the caller gives the block up; all bytes of the layout are its own.
        unsafe { self.realloc(block, layout, new_size) }
    }

    /// Returns the layout of all that may be used of a live block.
    pub(super) fn usable_layout(&self, block: NonNull<u8>) -> Result<Layout, HeapError> {
        let size = self.usable_size(block);
        sized(size.ok_or_else(|| self.refusal(block.addr().get()))?)
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> LocalHeap<'_, P, M, R> {
    /// Allocates a block of `size` bytes, aligned to 16; its contents are undefined. A block of
    /// size zero has an address of its own. [`LocalHeap::free`] frees it.
    ///
    /// # Errors
    ///
    /// [`HeapError::InvalidSize`] for more bytes than half of the address space, and otherwise
    /// those of [`LocalHeap::alloc`].
    #[inline]
    pub fn alloc_bytes(&self, size: usize) -> Result<NonNull<u8>, HeapError> {
        self.alloc(sized(size)?)
    }

    /// Allocates a block of `size` bytes that read zero, aligned to 16.
    ///
    /// # Errors
    ///
    /// See [`LocalHeap::alloc_bytes`].
    #[inline]
    pub fn alloc_bytes_zeroed(&self, size: usize) -> Result<NonNull<u8>, HeapError> {
        self.alloc_zeroed(sized(size)?)
    }

    /// Allocates a block of `size` bytes at a multiple of `align`, and of 16; its contents are
    /// undefined.
    ///
    /// # Errors
    ///
    /// [`HeapError::InvalidSize`] where `align` is no power of two, or where the size, rounded up
    /// to the alignment, is more than half of the address space; otherwise those of
    /// [`LocalHeap::alloc`].
    #[inline]
    pub fn alloc_aligned(&self, size: usize, align: usize) -> Result<NonNull<u8>, HeapError> {
        self.alloc(aligned(size, align)?)
    }

    /// Makes a block `new_size` bytes long, where it lies or elsewhere; its contents stay, as far
    /// as they fit. The block may be from any call that allocates, of any handle of the heap.
    ///
    /// A block that moves is aligned to 16, and no more: as in C, a larger alignment is lost.
    /// A new size of zero leaves a live block of that size.
    ///
    /// # Errors
    ///
    /// Those of [`LocalHeap::alloc_bytes`] and [`LocalHeap::free`]; the block stays as it is then.
    ///
    /// # Safety
    ///
    /// If `block` is the start of a live block of this heap, it is not used during the call, nor
    /// afterwards where another one is returned.
    #[inline]
    pub unsafe fn realloc_bytes(
        &self,
        block: NonNull<u8>,
        new_size: usize,
    ) -> Result<NonNull<u8>, HeapError> {
        // SAFETY: `realloc_bytes_quick` asks what this function does.
        if let Some(block) = unsafe { self.realloc_bytes_quick(block, new_size) } {
            return Ok(block);
        }
        // SAFETY: `realloc_bytes_slow` asks what this function does; the block was left as it is.
        unsafe { self.realloc_bytes_slow(block, new_size) }
    }

    /// Says whether `addr`, any address at all, lies in the heap's memory. See [`Heap::owns`].
    #[inline]
    #[must_use]
    pub fn owns(&self, addr: usize) -> bool {
        self.heap().owns(addr)
    }

    /// Finds the live block around `addr`, any address at all. See [`Heap::block_of`].
    #[inline]
    #[must_use]
    pub fn block_of(&self, addr: usize) -> Option<BlockInfo> {
        self.heap().block_of(addr)
    }
}
