//! What gives memory back, and what tells of it.

use super::{
    Heap, Return,
    class::{self, CLASSES, GRANULE},
};
use crate::{provider::PageProvider, sync::RelaxStrategy};
use core::sync::atomic::Ordering::Relaxed;

/// What a heap holds, in bytes where nothing else is said. Threads that allocate meanwhile are counted
/// before or after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapStatistics {
    /// Bytes of live blocks, as they are rounded up.
    pub used: usize,
    /// Bytes of free blocks that threads keep at hand.
    pub cached: usize,
    /// Bytes of slabs, free blocks in them included.
    pub slabs: usize,
    /// Bytes of blocks without a slab that is shared, up to 1 MiB each.
    pub large: usize,
    /// Bytes of larger blocks.
    pub huge: usize,
    /// Bytes of addresses, those of metadata excluded.
    pub reserved: usize,
    /// Bytes that have memory. Some of it may never have been touched.
    pub committed: usize,
    /// Bytes of metadata, those of the page map excluded.
    pub metadata: usize,
    /// Bytes that were ever asked for, as layouts say; not by resizing in place.
    pub requested: u64,
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RelaxStrategy> Heap<P, M, R> {
    /// Returns what is held now.
    pub fn statistics(&self) -> HeapStatistics {
        let mut all = HeapStatistics::default();
        for class in 0..CLASSES {
            let mut taken = 0;
            for shard in 0..self.config.shard_count() {
                let bin = self.bin(shard, class).lock();
                taken += bin.taken;
                all.slabs += bin.slabs * class::granules(class) * GRANULE;
            }
            let lens = self.all_caches().map(|cache| cache.magazines[class].len());
            let cached = lens.map(|len| len as usize).sum::<usize>().min(taken);
            all.cached += cached * class::size(class);
            all.used += (taken - cached) * class::size(class);
        }
        let gauges = self.space.lock().gauges;
        all.used += gauges.large + gauges.huge;
        all.large = gauges.large;
        all.huge = gauges.huge;
        all.reserved = gauges.reserved;
        all.committed = gauges.committed;
        all.metadata = self.arena.committed_bytes();
        let by_caches = self.all_caches().map(|cache| cache.requested.load(Relaxed));
        all.requested = by_caches.fold(self.requested.load(Relaxed), u64::wrapping_add);
        all
    }

    /// Gives back memory that has been free for as long as the configuration says. `now_ms` are
    /// milliseconds of any clock that only goes forwards. Costs nothing until the time has come.
    ///
    /// Other threads bring back what they have at hand the next time that a call of theirs takes a lock. A
    /// thread that may then do nothing for long calls [`LocalHeap::tick`](super::LocalHeap::tick), or
    /// [`LocalHeap::flush`](super::LocalHeap::flush) before.
    pub fn tick(&self, now_ms: u64) {
        if self.is_due(now_ms) {
            self.tick_now();
        }
    }

    /// What calls that take a lock do beside: free what was put aside, and tick if there is a clock.
    pub(super) fn upkeep(&self) {
        self.take_aside();
        if let Some(now_ms) = self.config.now_ms() {
            self.tick(now_ms);
        }
    }

    /// Says whether it is time for a tick, and if so begins it.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        let Return::After(least) = self.config.returns() else {
            return false;
        };
        let ticked = self.ticked.load(Relaxed);
        let due = now_ms.saturating_sub(ticked) >= least;
        // One thread does it.
        let begins = due
            && self
                .ticked
                .compare_exchange(ticked, now_ms, Relaxed, Relaxed)
                .is_ok();
        if begins {
            self.ticks.fetch_add(1, Relaxed);
        }
        begins
    }

    pub(super) fn tick_now(&self) {
        self.drop_free_slabs();
        let mut space = self.space.lock();
        self.decommit_free(&mut space, true);
        self.drop_kept(&mut space, true);
    }

    /// Gives back all memory that [`Heap::trim`] does, and that of pages that hold only free blocks between
    /// live ones. Slabs that such pages were taken from cost a call of the provider when they serve again.
    pub fn collect(&self) {
        self.trim();
        let mut at = 0;
        // One segment after the other by address, as bins' locks come before that of the granules.
        loop {
            let next = {
                let space = self.space.lock();
                let found = space.segments().find(|segment| segment.addr() >= at);
                found.map(|segment| (segment.addr(), segment.granules() * GRANULE))
            };
            let Some((start, len)) = next else {
                return;
            };
            for addr in (start..start + len).step_by(GRANULE) {
                self.collect_slab(addr);
            }
            at = start + len;
        }
    }

    /// Gives back all memory that is free now, and addresses, except for what threads keep at hand; see
    /// [`LocalHeap::flush`](super::LocalHeap::flush).
    pub fn trim(&self) {
        self.take_aside();
        self.drop_free_slabs();
        let mut space = self.space.lock();
        self.drop_kept(&mut space, false);
        self.release_free(&mut space);
        self.decommit_free(&mut space, false);
    }
}
