//! How blocks go from bins to the magazines of a thread and back, half a magazine at a time.

use super::LocalHeap;
use crate::{
    heap::{
        cache::{FIRST, Magazine},
        class::{self, CLASSES},
        error::HeapError,
        slab::Entry,
    },
    provider::PageProvider,
    sync::RawMutex,
};
use core::{mem::MaybeUninit, slice};

/// Blocks that are under way from a magazine to bins at once, at most: 4 KiB of the stack. For so
/// many the blocks that stay move down once.
const FLUSHED: u32 = 256;

/// Bytes of blocks that all magazines of a heap have room for at most, so that idle threads do not
/// keep more.
const ROOM: usize = 64 << 20;

/// How many times the room of a magazine grows at once. Slots of each size that it had before stay
/// behind for other magazines, so that steps are few.
const WIDER: u32 = 4;

impl<'heap, P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> LocalHeap<'heap, P, M, R> {
    /// Puts a block that is free into its magazine, or half of that into their slabs.
    #[inline]
    pub(in crate::heap) fn keep(&self, class: usize, entry: Entry) {
        if !self.stack(class).push(entry) {
            self.keep_slow(class, entry);
        }
    }

    #[cold]
    fn keep_slow(&self, class: usize, entry: Entry) {
        let magazine = self.stack(class);
        self.widen(class);
        if !magazine.push(entry) {
            self.flush_oldest(class, magazine.len().div_ceil(2));
            if !magazine.push(entry) {
                self.heap.flush(class, &[entry]);
            }
        }
    }

    /// Fills the empty magazine of a class by half, and returns one block more.
    #[cold]
    #[inline(never)]
    pub(super) fn refill(&self, class: usize) -> Result<Entry, HeapError> {
        let magazine = self.stack(class);
        self.maintain();
        self.widen(class);
        let most = self.cache.batch(class, magazine.capacity() / 2);
        let shard = self.cache.shard();
        // From above downwards, as the lowest comes first and is to be the first that is popped.
        let (mut found, mut place) = (None, most - 1);
        let mut take = |entry| {
            if found.is_none() {
                found = Some(entry);
            } else {
                place -= 1;
                magazine.put_at(place, entry);
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
        magazine.filled(place, most - 1);
        found.ok_or(HeapError::Internal)
    }

    /// Makes the room in a magazine four times as much, up to what the configuration allows, if
    /// there is metadata.
    fn widen(&self, class: usize) {
        let magazine = self.stack(class);
        let old = magazine.capacity();
        let limit = self.heap.config.limit(class);
        if old >= limit {
            return;
        }
        let capacity = (old * WIDER).max(FIRST).min(limit);
        let layout = Magazine::layout(capacity);
        let bytes = (capacity - old) as usize * class::size(class);
        // The arena is used under one of the heap's locks, so that a fork finds it at rest.
        let mut caches = self.heap.lock_caches();
        if bytes > ROOM - caches.room.min(ROOM) {
            return;
        }
        let Some(slots) = layout.and_then(|layout| self.heap.arena().alloc(layout).ok()) else {
            return;
        };
        caches.room += bytes;
        let _changing = self.cache.changing(class);
        let old = magazine.memory();
        magazine.grow(slots.cast(), capacity);
        if let Some((slots, layout)) = old {
            // SAFETY: allocated here with this layout; the magazine has other slots now.
            unsafe { self.heap.free_metadata(slots, layout) };
        }
    }

    /// Gives the cached free blocks back to the heap, for other threads to use or for the
    /// host.
    pub fn flush(&self) {
        for class in 0..CLASSES {
            self.flush_oldest(class, self.stack(class).len());
        }
    }

    /// Brings back the `count` blocks of a class that have been cached for longest.
    fn flush_oldest(&self, class: usize, count: u32) {
        let magazine = self.stack(class);
        let mut left = count;
        while left != 0 {
            let mut some = [const { MaybeUninit::uninit() }; FLUSHED as usize];
            let now = left.min(FLUSHED);
            for (place, entry) in some.iter_mut().zip(magazine.oldest(now)) {
                place.write(entry);
            }
            // First, so that a forked child finds no block in two places.
            let changing = self.cache.changing(class);
            magazine.forget_oldest(now);
            drop(changing);
            // SAFETY: the first `now` were written above, as many as there are and no more than
            // there is room for.
            let some = unsafe { slice::from_raw_parts(some.as_ptr().cast(), now as usize) };
            self.heap.flush(class, some);
            left -= now;
        }
    }
}
