//! All caches of a heap: how a thread gets one, and leaves it to the next thread.

use super::LocalHeap;
use crate::{
    heap::{
        Heap, Return,
        cache::{Cache, CacheRef, HardenedCache},
        class::{self, CLASSES},
        config::SHARDS,
        error::HeapError,
        slot::NOWHERE,
    },
    provider::{Error, PageProvider},
    sync::RawMutex,
};
use core::{
    alloc::Layout,
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::{NonNull, null_mut},
    sync::atomic::Ordering::{Acquire, Relaxed, Release},
};

/// Blocks that a magazine has room for in an empty cache that no thread has, at most.
const KEPT: u32 = 32;

/// Bytes of blocks that magazines of stocked caches have room for at most.
const STOCK: usize = 8 << 20;

/// The part that the lock of the caches guards, beside which ones are in use.
pub(in crate::heap) struct Caches {
    /// Those that no thread has, and that are empty.
    unused: Option<CacheRef>,
    /// Those that threads left behind with blocks in them.
    stocked: Option<CacheRef>,
    /// Bytes of blocks that magazines of the stocked ones have room for.
    stock: usize,
    /// Bytes of blocks that all magazines have room for.
    pub(super) room: usize,
    /// How many threads there are in each shard.
    threads: [u32; SHARDS],
    /// Whether a call that never goes on may have left all this half changed.
    pub(in crate::heap) is_torn: bool,
}

impl Caches {
    pub(in crate::heap) const fn new() -> Self {
        Self {
            unused: None,
            stocked: None,
            stock: 0,
            room: 0,
            threads: [0; SHARDS],
            is_torn: false,
        }
    }

    /// Counts caches that there are; those that no thread has serve again if they are to.
    pub(in crate::heap) fn of(all: impl Iterator<Item = CacheRef>, serve: bool) -> Self {
        let mut caches = Self::new();
        for cache in all {
            caches.room += cache.room();
            if cache.in_use.load(Relaxed) {
                caches.threads[cache.shard()] += 1;
            } else if serve {
                caches.put(cache);
            }
        }
        caches
    }

    /// Takes a cache that no thread has, the last that was put there, before those that are empty.
    fn take(&mut self) -> Option<CacheRef> {
        self.take_stocked().or_else(|| pop(&mut self.unused))
    }

    fn take_stocked(&mut self) -> Option<CacheRef> {
        let cache = pop(&mut self.stocked)?;
        self.stock = self.stock.saturating_sub(cache.room());
        Some(cache)
    }

    /// Puts a cache that no thread has where the next one finds it.
    fn put(&mut self, cache: CacheRef) {
        let list = if cache.is_empty() {
            &mut self.unused
        } else {
            self.stock += cache.room();
            &mut self.stocked
        };
        let next = list.map_or(null_mut(), CacheRef::as_ptr);
        cache.next_unused.store(next, Relaxed);
        *list = Some(cache);
    }

    /// Notes that a thread uses a cache.
    fn begin(&mut self, cache: CacheRef) {
        self.threads[cache.shard()] += 1;
        cache.in_use.store(true, Relaxed);
    }

    /// Notes that the thread of a cache does not use it any more.
    fn end(&mut self, cache: CacheRef) {
        let threads = &mut self.threads[cache.shard()];
        *threads = threads.saturating_sub(1);
        cache.in_use.store(false, Relaxed);
        self.put(cache);
    }

    /// Returns a shard that no other one has fewer threads than: this one if possible, so that
    /// threads that go on with what others did, one after the other, share slabs, and the lines of
    /// their states, with few.
    fn least_used(&self, own: usize, shards: usize) -> usize {
        let threads = |shard: &usize| self.threads[*shard];
        let least = (0..shards).min_by_key(threads).unwrap_or(0);
        if threads(&own) == threads(&least) {
            own
        } else {
            least
        }
    }
}

/// Takes the first of a list of caches.
pub(super) fn pop(list: &mut Option<CacheRef>) -> Option<CacheRef> {
    let cache = (*list)?;
    let next = NonNull::new(cache.next_unused.load(Relaxed));
    // SAFETY: links hold what `put` stored there: caches, which stay as long as the heap.
    *list = next.map(|next| unsafe { CacheRef::new(next) });
    Some(cache)
}

// SAFETY: caches are made of atomics, and stay as long as the heap.
unsafe impl Send for Caches {}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Makes a handle for the calling thread. It takes three kilobytes of metadata, and more
    /// as it is used.
    ///
    /// # Errors
    ///
    /// [`HeapError::Metadata`] where there is no memory for it.
    pub fn local(&self) -> Result<LocalHeap<'_, P, M, R>, HeapError> {
        self.make_local(false)
    }

    /// Makes a handle for a thread that keeps its cache in a slot.
    pub(in crate::heap) fn local_of_slot(&self) -> Result<LocalHeap<'_, P, M, R>, HeapError> {
        self.make_local(true)
    }

    fn make_local(&self, by_slot: bool) -> Result<LocalHeap<'_, P, M, R>, HeapError> {
        let attempt = || self.again_if_replaced(|| self.try_make_local(by_slot));
        attempt().or_else(|error| {
            if self.reclaim(error) {
                attempt()
            } else {
                Err(error)
            }
        })
    }

    fn try_make_local(&self, by_slot: bool) -> Result<LocalHeap<'_, P, M, R>, HeapError> {
        let mut caches = self.lock_caches();
        let cache = match caches.take() {
            Some(cache) => cache,
            None => {
                let cache = self.make_cache().map_err(HeapError::Metadata)?;
                self.note_cache(cache);
                cache
            }
        };
        let shard = caches.least_used(cache.shard(), self.config.shard_count());
        cache
            .shard
            .store(u32::try_from(shard).unwrap_or(0), Relaxed);
        cache.ticks.store(self.ticks.load(Relaxed), Relaxed);
        cache.trims.store(self.trims.load(Relaxed), Relaxed);
        cache.by_slot.store(by_slot, Relaxed);
        // As a thread may have left it that was not copied into a forked child.
        cache.mark.store(0, Relaxed);
        cache.changing.store(0, Relaxed);
        cache.forget_locks();
        cache.place.store(null_mut(), Relaxed);
        caches.begin(cache);
        Ok(LocalHeap {
            heap: self,
            cache,
            _not_sync: PhantomData,
        })
    }

    /// Makes another cache.
    fn make_cache(&self) -> Result<CacheRef, Error> {
        let new = Cache::new(self.map.root().raw());
        let Some(hardened) = &self.hardened else {
            let made = self.arena().alloc_value(new)?;
            // SAFETY: initialised just now, and never freed before the arena, which is the heap's.
            return Ok(unsafe { CacheRef::new(made) });
        };
        let place = self.arena().alloc(Layout::new::<HardenedCache>())?;
        // SAFETY: allocated just now with this layout, and never freed before the arena, which is
        // the heap's.
        Ok(unsafe { CacheRef::new_hardened(place, new, hardened.seals) })
    }

    /// Adds a cache to all that were ever made.
    fn note_cache(&self, cache: CacheRef) {
        let mut first = self.first_cache.load(Relaxed);
        loop {
            cache.next.store(first, Relaxed);
            let new = cache.as_ptr();
            // It can fail where a handler forked, in the child.
            match self
                .first_cache
                .compare_exchange(first, new, Release, Relaxed)
            {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    /// Yields all caches that were ever made.
    pub(in crate::heap) fn all_caches(&self) -> impl Iterator<Item = CacheRef> {
        let at = |ptr| {
            // SAFETY: links hold what `local` put there: caches, which stay as long as the heap.
            NonNull::new(ptr).map(|cache| unsafe { CacheRef::new(cache) })
        };
        let first = at(self.first_cache.load(Acquire));
        core::iter::successors(first, move |cache| at(cache.next.load(Acquire)))
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Brings back the blocks that ended threads left in their caches.
    pub(in crate::heap) fn flush_stocked(&self) {
        loop {
            let mut caches = self.lock_caches();
            let Some(cache) = caches.take_stocked() else {
                return;
            };
            // A forked child finds it as it finds those of threads that it has not.
            cache.by_slot.store(true, Relaxed);
            cache.place.store(NOWHERE, Relaxed);
            caches.begin(cache);
            drop(caches);
            // SAFETY: in use by this call alone since it is in no list any more.
            drop(unsafe { LocalHeap::from_cache(self, cache) });
        }
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> LocalHeap<'_, P, M, R> {
    /// Ends a thread's use of the cache, and leaves it with what is in it to the next thread, which
    /// does much the same; but only until the next tick, and only some megabytes in all.
    pub(in crate::heap) fn leave_to_next(self) {
        let local = ManuallyDrop::new(self);
        let mut caches = local.heap.lock_caches();
        let is_kept = local.heap.config.returns() != Return::Eager
            && local.cache.room() <= STOCK - caches.stock.min(STOCK);
        if is_kept {
            caches.end(local.cache);
        } else {
            drop(caches);
            drop(ManuallyDrop::into_inner(local));
        }
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Drop for LocalHeap<'_, P, M, R> {
    fn drop(&mut self) {
        self.flush();
        self.cache.begin_small();
        let mut caches = self.heap.lock_caches();
        // The next thread, which does much the same, finds room for some blocks of each class that
        // this one used.
        for class in 0..CLASSES {
            let _changing = self.cache.changing(class);
            let magazine = self.stack(class);
            let capacity = magazine.capacity();
            if capacity > KEPT
                && let Some((slots, layout)) = magazine.shut()
            {
                let room = capacity as usize * class::size(class);
                caches.room = caches.room.saturating_sub(room);
                // SAFETY: allocated by `widen` with this layout; the magazine has forgotten them.
                unsafe { self.heap.free_metadata(slots, layout) };
            }
        }
        caches.end(self.cache);
    }
}
