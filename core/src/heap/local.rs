//! A thread's own handle of a heap: the calls that take no lock.
//!
//! Here are the quick calls. What they leave over goes down:
//!
//! | room | what it has |
//! |---|---|
//! | `resize` | reallocations |
//! | `slow` | blocks without a class, empty magazines and full ones |
//! | `hardened` | the calls of a hardened heap |
//! | `refill` | the way from magazines to bins and back |
//! | `caches` | how a handle gets a cache, and leaves it to the next one |
//! | `maintenance` | what a handle does about ticks and trims |

mod caches;
mod hardened;
mod maintenance;
mod refill;
mod resize;
mod slow;

pub(super) use caches::Caches;

use super::{
    Heap,
    cache::{CacheRef, Magazine},
    error::HeapError,
    map,
    shared::cleared,
    slab::{Entry, Handle},
};
use crate::{
    atomic::AtomicU8,
    provider::PageProvider,
    sync::{RawMutex, Spin},
};
use core::{alloc::Layout, cell::Cell, fmt, hint::cold_path, marker::PhantomData, ptr::NonNull};

/// A thread's own handle of a heap, with cached free blocks: a call takes a lock only once in
/// many.
///
/// A handle may move to another thread, but two cannot use it at once. Any block of the heap may be
/// freed by any handle. Dropping a handle gives its blocks to the others.
pub struct LocalHeap<'heap, P: PageProvider + Copy, M: PageProvider + Copy = P, R: RawMutex = Spin>
{
    heap: &'heap Heap<P, M, R>,
    cache: CacheRef,
    _not_sync: PhantomData<Cell<()>>,
}

// SAFETY: the handle alone changes its cache; another thread sees what this one did before it gave
// the handle away. The heap is Sync.
unsafe impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex + Send + Sync> Send
    for LocalHeap<'_, P, M, R>
{
}

impl<'heap, P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> LocalHeap<'heap, P, M, R> {
    /// Makes the handle of a thread that has a cache.
    ///
    /// # Safety
    ///
    /// The cache is of this heap and in use, and no other handle has it that is used while this one
    /// is.
    #[inline]
    pub(super) unsafe fn from_cache(heap: &'heap Heap<P, M, R>, cache: CacheRef) -> Self {
        Self {
            heap,
            cache,
            _not_sync: PhantomData,
        }
    }

    /// Returns the entry of the page map for an address, or zero.
    #[inline]
    pub(super) fn value(&self, addr: usize) -> u64 {
        self.cache.value_in_window(addr).unwrap_or_else(|| {
            self.cache.miss(addr);
            // SAFETY: the heap's own map, and the heap is borrowed for so long.
            unsafe { self.cache.root.get() }.value(addr)
        })
    }

    /// Returns the class and the state of the live block that starts at `addr`, any address at all,
    /// if it has a class. Unless `CHECKED`, one is known to start there.
    #[inline]
    fn live<const CHECKED: bool>(&self, addr: usize) -> Option<(usize, NonNull<AtomicU8>)> {
        // SAFETY: a value of the heap's map, and the heap is borrowed.
        unsafe { map::live::<CHECKED>(self.value(addr), addr) }
    }

    /// Returns the descriptor of the live block that starts at `addr`, any address at all, if it
    /// has no class and the page map tells of it.
    #[inline]
    fn live_big(&self, addr: usize) -> Option<Handle> {
        let slab = self.slab_around(addr)?;
        slab.is_live_big(addr).then_some(slab)
    }

    pub(super) const fn cache(&self) -> CacheRef {
        self.cache
    }

    /// Returns the heap.
    #[must_use]
    pub const fn heap(&self) -> &'heap Heap<P, M, R> {
        self.heap
    }

    /// Allocates a block; its contents are undefined. One of size zero is a block like any other.
    ///
    /// # Errors
    ///
    /// [`HeapError::Memory`] and [`HeapError::Metadata`] where there is none;
    /// [`HeapError::InvalidSize`] where no host has so much.
    #[inline]
    pub fn alloc(&self, layout: Layout) -> Result<NonNull<u8>, HeapError> {
        match self.alloc_quick(layout) {
            Some(block) => Ok(block),
            None => {
                cold_path();
                self.alloc_slow(layout)
            }
        }
    }

    /// Allocates a cached block.
    #[inline]
    pub(super) fn alloc_quick(&self, layout: Layout) -> Option<NonNull<u8>> {
        let block = self.cache.alloc_quick(layout)?;
        self.count(layout.size());
        Some(block)
    }

    /// Allocates a cached block that reads zero.
    #[inline]
    fn alloc_zeroed_quick(&self, layout: Layout) -> Option<NonNull<u8>> {
        let told = self.cache.alloc_quick_told(layout)?;
        self.count(layout.size());
        Some(cleared(told, layout))
    }

    /// Counts what was asked for, and looks at the clock if it is time to.
    #[inline]
    pub(super) fn count(&self, bytes: usize) {
        if !self.cache.count(bytes) {
            self.look();
        }
    }

    /// Looks at the clock, and at what ticks and trims of others ask for.
    #[inline]
    pub(super) fn look(&self) {
        Self::look_at(self.heap, self.cache);
    }

    /// Allocates a block that reads zero, which costs nothing where its memory is fresh.
    ///
    /// # Errors
    ///
    /// Those of [`LocalHeap::alloc`].
    #[inline]
    pub fn alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, HeapError> {
        match self.alloc_zeroed_quick(layout) {
            Some(block) => Ok(block),
            None => {
                cold_path();
                self.alloc_zeroed_slow(layout)
            }
        }
    }

    /// Frees a block.
    ///
    /// # Errors
    ///
    /// [`HeapError::NotOwned`], [`HeapError::NotLive`] or [`HeapError::Interior`] where `block` is
    /// no live block's start. Two threads that free the same block at the same moment may not be
    /// told.
    ///
    /// # Safety
    ///
    /// If it is the start of a live block of this heap, it is not used any more, and `block` is
    /// the pointer that was allocated, or may be used for as much: it is handed out again.
    #[inline]
    pub unsafe fn free(&self, block: NonNull<u8>) -> Result<(), HeapError> {
        // SAFETY: `free_quick` asks that the caller gives the block up, if it is live, as this
        // function does; the heap is borrowed.
        if unsafe { self.cache.free_quick::<true>(block) } {
            return Ok(());
        }
        cold_path();
        // SAFETY: `free_other` asks that the caller gives the block up, if it is live; it was left
        // as it is.
        unsafe { self.free_other::<true>(block) }
    }

    /// As [`LocalHeap::free`], but does not look whether the block is live: hardening level 0.
    ///
    /// # Errors
    ///
    /// Those of [`LocalHeap::free`], for blocks without a class.
    ///
    /// # Safety
    ///
    /// `block` is the start of a live block of this heap, and it is not used any more.
    #[inline]
    pub unsafe fn free_unchecked(&self, block: NonNull<u8>) -> Result<(), HeapError> {
        // SAFETY: `free_quick` asks, unless it checks, for a live block that the caller gives up,
        // as this function does; the heap is borrowed.
        if unsafe { self.cache.free_quick::<false>(block) } {
            return Ok(());
        }
        cold_path();
        // SAFETY: `free_other` asks, unless it checks, for a live block that the caller gives up;
        // it was left as it is.
        unsafe { self.free_other::<false>(block) }
    }

    /// Frees a block as [`CacheRef::free_quick`] does, wherever it lies.
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::free`], or of [`LocalHeap::free_unchecked`] unless `CHECKED`.
    #[inline]
    pub(super) unsafe fn free_cached<const CHECKED: bool>(&self, block: NonNull<u8>) -> bool {
        let Some((class, state)) = self.live::<CHECKED>(block.addr().get()) else {
            return false;
        };
        self.magazine(class).push_live(Entry { block, state })
    }

    /// Frees a block whose layout is known, which is a little faster than [`LocalHeap::free`].
    ///
    /// # Errors
    ///
    /// Those of [`LocalHeap::free`].
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::free`]; and the block was allocated or last resized with `layout`.
    #[inline]
    pub unsafe fn free_sized(&self, block: NonNull<u8>, layout: Layout) -> Result<(), HeapError> {
        debug_assert!(
            self.heap.is_hardened()
                || self
                    .usable_size(block)
                    .is_none_or(|size| size >= layout.size()),
            "the layout of another block"
        );
        // SAFETY: `free_quick_sized` asks that the caller gives the block up, if it is live, as
        // this function does; it notices a wrong layout.
        if unsafe { self.cache.free_quick_sized::<true>(block, layout) } {
            return Ok(());
        }
        cold_path();
        if self.heap.is_hardened() {
            // SAFETY: `free_slow` asks that the caller gives the block up, if it is live; it was
            // left as it is.
            return unsafe { self.free_slow(block, Some(layout)) };
        }
        // SAFETY: `free_other` asks that the caller gives the block up, if it is live; it was left
        // as it is.
        unsafe { self.free_other::<true>(block) }
    }

    /// Frees a block whose layout may be known, which is looked at if the heap is hardened.
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::free`].
    pub(super) unsafe fn free_as(
        &self,
        block: NonNull<u8>,
        layout: Option<Layout>,
    ) -> Result<(), HeapError> {
        if self.heap.is_hardened() {
            // SAFETY: `free_slow` asks what this function does: the caller gives the block up, if
            // it is live.
            return unsafe { self.free_slow(block, layout) };
        }
        // SAFETY: `free` asks what this function does: the caller gives the block up, if it is
        // live.
        unsafe { self.free(block) }
    }

    /// Returns how many bytes of the live block that starts at `block` may be used; `None` where
    /// none does.
    #[inline]
    #[must_use]
    pub fn usable_size(&self, block: NonNull<u8>) -> Option<usize> {
        self.heap.usable_size(block)
    }

    #[inline]
    fn magazine(&self, class: usize) -> &Magazine {
        &self.cache.magazines[class]
    }

    /// As [`Cache::stack`](crate::heap::cache::Cache::stack).
    #[inline]
    fn stack(&self, class: usize) -> &Magazine {
        self.cache.stack(class)
    }

    /// Returns the slab around an address, if the page map has one.
    #[inline]
    fn slab_around(&self, addr: usize) -> Option<Handle> {
        // SAFETY: a value of the heap's map, and the heap is borrowed.
        unsafe { map::slab(self.value(addr)) }
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> fmt::Debug
    for LocalHeap<'_, P, M, R>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalHeap").finish_non_exhaustive()
    }
}
