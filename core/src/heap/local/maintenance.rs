//! How a thread follows ticks and trims.

use super::LocalHeap;
use crate::{
    heap::{Heap, Level, cache::CacheRef},
    provider::PageProvider,
    sync::RawMutex,
};
use core::{mem::ManuallyDrop, sync::atomic::Ordering::Relaxed};

impl<'heap, P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> LocalHeap<'heap, P, M, R> {
    /// As [`Heap::tick`](crate::heap::Heap::tick); first gives back what is cached, if the time has
    /// come.
    pub fn tick(&self, now_ms: u64) {
        if self.heap.is_due(now_ms) {
            self.flush();
            self.heap.tick_now();
            self.heap.sweep_all();
        }
    }

    /// As [`Heap::collect`](crate::heap::Heap::collect); first gives back what this handle has
    /// cached.
    pub fn collect(&self, level: Level) {
        self.flush();
        self.heap.collect(level);
    }

    /// Looks at the clock for a quick call that has used up its budget.
    /// It does not unwind, so that quick calls need not provide for that.
    #[cold]
    #[inline(never)]
    pub(super) extern "C" fn look_at(heap: &'heap Heap<P, M, R>, cache: CacheRef) {
        // SAFETY: those of the handle that counts, which does nothing else meanwhile.
        let local = ManuallyDrop::new(unsafe { Self::from_cache(heap, cache) });
        local.maintain();
    }

    /// Does the maintenance of calls that take a lock, or have asked for as much as
    /// [`Cache::count`](crate::heap::cache::Cache::count) allows: see [`Heap::maintain`]; and bring
    /// back what is cached, if there was a tick or a trim since this was called last.
    pub(in crate::heap) fn maintain(&self) {
        let now_ms = self.heap.maintain();
        let period_ms = self.heap.config.period_ms();
        self.cache.grant(now_ms, period_ms, self.heap.is_sweeping());
        self.follow();
    }

    /// Does what ticks and trims by others ask for.
    fn follow(&self) {
        if let Some(addr) = self.cache.place_for_window()
            && let Some(window) = self.heap.map.window_around(addr)
        {
            self.cache.set_window(window);
        }
        let (ticks, trims) = (self.heap.ticks.load(Relaxed), self.heap.trims.load(Relaxed));
        let is_trim = self.cache.trims.load(Relaxed) != trims;
        if is_trim || self.cache.ticks.load(Relaxed) != ticks {
            self.cache.ticks.store(ticks, Relaxed);
            self.cache.trims.store(trims, Relaxed);
            self.flush();
            self.cache.begin_small();
        }
        if is_trim {
            self.heap.collect_own(self.heap.trim_level());
        }
    }
}
