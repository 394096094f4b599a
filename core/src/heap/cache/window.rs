//! Which part of the page map a thread reads by a subtraction, and when it takes another part.

use super::Cache;
use crate::{
    atomic::{
        self,
        Ordering::{Acquire, Relaxed},
    },
    heap::{class, map::RawWindow},
};

/// How many addresses outside of its window a thread may meet between two looks at the clock until
/// it takes another.
const MISSES: u32 = 32;

impl Cache {
    /// Notes that an address did not lie in the window.
    pub(in crate::heap) fn miss(&self, addr: usize) {
        self.missed.store(addr, Relaxed);
        self.misses
            .store(self.misses.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Returns an address around which there should be a window, if there is none, or if many
    /// addresses did not lie in it since this was called last.
    pub(in crate::heap) fn place_for_window(&self) -> Option<usize> {
        let misses = self.misses.load(Relaxed);
        self.misses.store(0, Relaxed);
        if misses > MISSES {
            Some(self.missed.load(Relaxed))
        } else if self.window_len.load(Relaxed) == 0 {
            Some(self.window_start.load(Relaxed))
        } else {
            None
        }
    }

    /// Notes where a window of the page map is. Only the thread that has the cache does.
    pub(in crate::heap) fn set_window(&self, window: RawWindow) {
        self.window.store(window.entries.as_ptr(), Relaxed);
        self.window_start.store(window.start, Relaxed);
        self.window_len.store(window.len, Relaxed);
    }

    /// Returns the entry of the page map for an address in the window.
    #[inline]
    pub(in crate::heap) fn value_in_window(&self, addr: usize) -> Option<u64> {
        // SAFETY: only the thread that has the cache, which this is, changes it.
        let start = unsafe { atomic::own_usize(&self.window_start) };
        let place = addr.wrapping_sub(start) >> class::GRANULE.ilog2();
        if place >= self.window_len.load(Relaxed) {
            return None;
        }
        // SAFETY: `set_window` stored a window of more entries, and only this thread stores others.
        let entry = unsafe { self.window.load(Relaxed).add(place) };
        // SAFETY: entries of the page map are initialised, changed by atomics only, and there as
        // long as the heap, which has this cache.
        Some(unsafe { &*entry }.load(Acquire))
    }
}
