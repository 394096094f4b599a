//! A thread's own handle of a heap: the calls that take no lock.

use super::{
    Heap,
    cache::{Cache, CacheRef, FIRST, Magazine},
    class,
    error::HeapError,
    map::RootRef,
    shared::cleared,
    slab::{Entry, FREED, LIVE, ZERO},
};
use crate::{
    provider::PageProvider,
    sync::{RelaxStrategy, Spin},
};
use core::{
    alloc::Layout,
    cell::Cell,
    fmt,
    marker::PhantomData,
    ptr::NonNull,
    sync::atomic::Ordering::{Acquire, Relaxed, Release},
};

/// A thread's own handle of a heap, with free blocks at hand: a call takes a lock only once in many.
///
/// A handle may move to another thread, but two cannot use it at once. Any block of the heap may be
/// freed by any handle. Dropping a handle gives its blocks to the others.
pub struct LocalHeap<
    'heap,
    P: PageProvider + Copy,
    M: PageProvider + Copy = P,
    R: RelaxStrategy = Spin,
> {
    heap: &'heap Heap<P, M, R>,
    cache: CacheRef,
    root: RootRef<'heap>,
    _not_sync: PhantomData<Cell<()>>,
}

// SAFETY: the handle alone changes its cache; another thread sees what this one did before it gave
// the handle away. The heap is Sync.
unsafe impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RelaxStrategy + Send + Sync> Send
    for LocalHeap<'_, P, M, R>
{
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RelaxStrategy> Heap<P, M, R> {
    /// Makes a handle for the calling thread. It takes two kilobytes of metadata, and more
    /// as it is used.
    ///
    /// # Errors
    ///
    /// [`HeapError::Metadata`] where there is no memory for it.
    pub fn local(&self) -> Result<LocalHeap<'_, P, M, R>, HeapError> {
        let mut caches = self.caches.lock();
        let unused = self.all_caches().find(|cache| !cache.in_use.load(Relaxed));
        let cache = match unused {
            Some(cache) => cache,
            None => {
                let made = self.arena.alloc_value(Cache::new());
                let made = made.map_err(HeapError::Metadata)?;
                // SAFETY: initialised just now, and never freed before the arena, which is the heap's.
                let cache = unsafe { CacheRef::new(made) };
                cache.next.store(self.first_cache.load(Relaxed), Relaxed);
                self.first_cache.store(cache.as_ptr(), Release);
                cache
            }
        };
        let shards = u32::try_from(self.config.shard_count()).unwrap_or(1);
        cache.shard.store(*caches % shards, Relaxed);
        *caches = caches.wrapping_add(1);
        cache.in_use.store(true, Relaxed);
        Ok(LocalHeap {
            heap: self,
            cache,
            root: self.map.root(),
            _not_sync: PhantomData,
        })
    }

    /// Yields all caches that were ever made.
    pub(super) fn all_caches(&self) -> impl Iterator<Item = CacheRef> {
        let at = |ptr| {
            // SAFETY: links hold what `local` put there: caches, which stay as long as the heap.
            NonNull::new(ptr).map(|cache| unsafe { CacheRef::new(cache) })
        };
        let first = at(self.first_cache.load(Acquire));
        core::iter::successors(first, move |cache| at(cache.next.load(Acquire)))
    }
}

impl<'heap, P: PageProvider + Copy, M: PageProvider + Copy, R: RelaxStrategy>
    LocalHeap<'heap, P, M, R>
{
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
        if let Some(class) = class::quick(layout)
            && let Some(entry) = self.magazine(class).pop()
        {
            entry.state().store(LIVE, Relaxed);
            return Ok(entry.block);
        }
        self.alloc_slow(layout)
    }

    /// Allocates a block that reads zero, which costs nothing where its memory is fresh.
    ///
    /// # Errors
    ///
    /// As of [`LocalHeap::alloc`].
    #[inline]
    pub fn alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, HeapError> {
        let Some(class) = class::of(layout) else {
            return self.heap.alloc_big_zeroed(layout);
        };
        let entry = match self.magazine(class).pop() {
            Some(entry) => entry,
            None => self.refill(class)?,
        };
        let zero = entry.state().load(Relaxed) == ZERO;
        entry.state().store(LIVE, Relaxed);
        Ok(cleared((entry.block, zero), layout))
    }

    /// Frees a block.
    ///
    /// # Errors
    ///
    /// [`HeapError::NotOwned`], [`HeapError::NotLive`] or [`HeapError::Interior`] where `block` is no live
    /// block's start. Two threads that free the same block at the same moment may not be told.
    ///
    /// # Safety
    ///
    /// If it is the start of a live block of this heap, nobody uses that any more, and `block` is the pointer
    /// that was allocated, or may be used for as much: it is handed out again.
    #[inline]
    pub unsafe fn free(&self, block: NonNull<u8>) -> Result<(), HeapError> {
        let addr = block.addr().get();
        if let Some((class, state)) = self.root.live(addr) {
            let entry = Entry { block, state };
            entry.state().store(FREED, Relaxed);
            if !self.magazine(class).push(entry) {
                self.free_slow(class, entry);
            }
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe { self.heap.free_big_or_refuse(addr) }
    }

    /// Frees a block whose layout is known. As fast as [`LocalHeap::free`].
    ///
    /// # Errors
    ///
    /// As of [`LocalHeap::free`].
    ///
    /// # Safety
    ///
    /// As of [`LocalHeap::free`]; and the block was allocated or last resized with `layout`.
    #[inline]
    pub unsafe fn free_sized(&self, block: NonNull<u8>, layout: Layout) -> Result<(), HeapError> {
        debug_assert!(
            self.usable_size(block)
                .is_none_or(|size| size >= layout.size()),
            "the layout of another block"
        );
        // SAFETY: the caller's promise.
        unsafe { self.free(block) }
    }

    /// Makes a block `new_size` bytes long, where it lies or elsewhere; its contents stay, as far as
    /// they fit.
    ///
    /// # Errors
    ///
    /// As of [`LocalHeap::alloc`] and [`LocalHeap::free`]; the block stays as it is then.
    ///
    /// # Safety
    ///
    /// If `block` is the start of a live block of this heap, that was allocated or last resized with
    /// `layout`, and nobody uses it during the call, nor afterwards where another one is returned.
    pub unsafe fn realloc(
        &self,
        block: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Result<NonNull<u8>, HeapError> {
        let alloc = |new| self.alloc(new);
        // SAFETY: the caller gives the block up.
        let free = || unsafe { self.free(block) };
        // SAFETY: the caller's promise; alloc allocates.
        unsafe { self.heap.realloc_by(block, layout, new_size, alloc, free) }
    }

    /// Returns how many bytes of the live block that starts at `block` may be used; `None` where none does.
    #[inline]
    #[must_use]
    pub fn usable_size(&self, block: NonNull<u8>) -> Option<usize> {
        self.heap.usable_size(block)
    }

    /// Gives the free blocks that are at hand back to the heap, for other threads to use or for the
    /// host.
    pub fn flush(&self) {
        for (class, magazine) in self.cache.magazines.iter().enumerate() {
            let count = magazine.len();
            if count != 0 {
                self.heap.flush(class, magazine.oldest(count));
                magazine.forget_oldest(count);
            }
        }
    }

    /// As [`Heap::tick`](super::Heap::tick); first gives back what is at hand, if the time has come.
    pub fn tick(&self, now_ms: u64) {
        if self.heap.is_due(now_ms) {
            self.flush();
            self.heap.tick_now();
        }
    }

    /// Brings back what is at hand, if there was a tick since this was called last.
    fn follow_ticks(&self) {
        let ticks = self.heap.ticks.load(Relaxed);
        if self.cache.ticks.load(Relaxed) != ticks {
            self.cache.ticks.store(ticks, Relaxed);
            self.flush();
        }
    }

    #[inline]
    fn magazine(&self, class: usize) -> &Magazine {
        &self.cache.magazines[class]
    }

    #[cold]
    #[inline(never)]
    fn alloc_slow(&self, layout: Layout) -> Result<NonNull<u8>, HeapError> {
        let Some(class) = class::of(layout) else {
            return self
                .heap
                .alloc_big_or_reclaim(layout)
                .map(|(block, _)| block);
        };
        let entry = match self.magazine(class).pop() {
            Some(entry) => entry,
            None => self.refill(class)?,
        };
        entry.state().store(LIVE, Relaxed);
        Ok(entry.block)
    }

    /// Fills the empty magazine of a class by half, and returns one block more.
    #[cold]
    #[inline(never)]
    fn refill(&self, class: usize) -> Result<Entry, HeapError> {
        let magazine = self.magazine(class);
        self.follow_ticks();
        self.widen(class);
        let most = (magazine.capacity() / 2).max(1);
        let shard = self.cache.shard.load(Relaxed) as usize;
        let mut last = None;
        let mut take = |entry| {
            if last.is_none() {
                last = Some(entry);
            } else {
                let pushed = magazine.push(entry);
                debug_assert!(pushed, "no more was asked for than there is room");
            }
        };
        let result = self.heap.refill(shard, class, most as usize, &mut take);
        if let Err(error) = result {
            self.flush();
            if !self.heap.reclaim(error) {
                return Err(error);
            }
            self.heap.refill(shard, class, most as usize, &mut take)?;
        }
        magazine.reverse();
        last.ok_or(HeapError::Config)
    }

    /// Doubles the room in a magazine, up to what the configuration allows, if there is metadata.
    fn widen(&self, class: usize) {
        let magazine = self.magazine(class);
        let old = magazine.capacity();
        let limit = self.heap.config.limit(class);
        if old >= limit {
            return;
        }
        let capacity = (old * 2).max(FIRST).min(limit);
        let layout = Magazine::layout(capacity);
        // The arena is used under one of the heap's locks, so that a fork finds it at rest.
        let _caches = self.heap.caches.lock();
        let Some(slots) = layout.and_then(|layout| self.heap.arena.alloc(layout).ok()) else {
            return;
        };
        let old = magazine.memory();
        magazine.grow(slots.cast(), capacity);
        if let Some((slots, layout)) = old {
            // SAFETY: allocated here with this layout; the magazine has other slots now.
            unsafe { self.heap.arena.free(slots, layout) };
        }
    }

    /// Makes room in the full magazine of a class for `entry`, or gives it to the heap.
    #[cold]
    #[inline(never)]
    fn free_slow(&self, class: usize, entry: Entry) {
        let magazine = self.magazine(class);
        self.follow_ticks();
        self.widen(class);
        if !magazine.push(entry) {
            let count = magazine.len().div_ceil(2);
            self.heap.flush(class, magazine.oldest(count));
            magazine.forget_oldest(count);
            if !magazine.push(entry) {
                self.heap.flush(class, core::iter::once(entry));
            }
        }
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RelaxStrategy> Drop
    for LocalHeap<'_, P, M, R>
{
    fn drop(&mut self) {
        self.flush();
        let _caches = self.heap.caches.lock();
        for (slots, layout) in self.cache.magazines.iter().filter_map(Magazine::shut) {
            // SAFETY: allocated by `widen` with this layout; the magazine has forgotten them.
            unsafe { self.heap.arena.free(slots, layout) };
        }
        self.cache.in_use.store(false, Relaxed);
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RelaxStrategy> fmt::Debug
    for LocalHeap<'_, P, M, R>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalHeap").finish_non_exhaustive()
    }
}
