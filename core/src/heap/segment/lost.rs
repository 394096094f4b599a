//! Which granules are the heap's: what is given up, lost to others, or taken over by a forked
//! child.

use super::{GRANULES, Segment};
use crate::heap::class::GRANULE;
use core::{
    ops::Range,
    sync::atomic::Ordering::{Relaxed, Release},
};

impl Segment {
    /// Takes the addresses of another one, of which only those granules are ever free that are
    /// given back from now on; that one is not used any more, but by a call that a fork
    /// interrupted. Returns the bytes that it had free.
    pub(in crate::heap) fn take_over(&self, from: &Self) -> usize {
        from.is_left.store(true, Relaxed);
        self.start.store(from.start.load(Relaxed), Relaxed);
        self.large.store(0, Relaxed);
        self.free_count.store(0, Relaxed);
        self.longest.store(0, Relaxed);
        let granules = from.granules();
        self.committed.copy(&from.committed);
        self.lost.copy(&from.lost);
        for bits in [&self.free, &self.purged, &self.refused, &self.aged] {
            bits.clear(0..GRANULES);
        }
        self.used.set(0..granules);
        self.granules.store(granules, Release);
        from.free.count(&(0..granules)) * GRANULE
    }

    /// Makes all granules free that are neither given back nor in use, as a number tells.
    pub(in crate::heap) fn recount(&self, in_use: impl Fn(usize) -> bool) {
        let (mut free, granules) = (0, self.granules());
        // No less than those that are taken here.
        self.free_count.store(granules, Relaxed);
        for n in 0..granules {
            let part = n..n + 1;
            if in_use(n) {
                self.take(part);
            } else if self.lost.none(part.clone()) {
                self.free.set(part);
                free += 1;
            }
        }
        self.free_count.store(free, Relaxed);
        self.longest.store(free, Relaxed);
    }

    /// Says whether a forked child has another one for these addresses, or there are none.
    pub(in crate::heap) fn is_left(&self) -> bool {
        self.is_left.load(Relaxed) || self.granules() == 0
    }

    /// Gives up free granules for now, so that a forked child does not take them for free.
    pub(in crate::heap) fn give_up(&self, part: &Range<usize>) {
        self.lost.set(part.clone());
    }

    /// Takes back what was given up.
    pub(in crate::heap) fn regain(&self, part: &Range<usize>) {
        self.lost.clear(part.clone());
    }

    /// Marks free granules as others', or released.
    pub(in crate::heap) fn lose(&self, part: &Range<usize>) {
        self.decommit(part);
        self.take(part.clone());
        self.lost.set(part.clone());
    }

    /// Marks any granules as given back, for good.
    pub(in crate::heap) fn forget(&self, part: Range<usize>) {
        self.lost.set(part);
    }

    /// Returns how many granules were not lost.
    pub(in crate::heap) fn kept_count(&self) -> usize {
        self.granules() - self.lost.count(&(0..self.granules()))
    }

    /// Returns the first run of granules from `from` on that are not lost.
    pub(in crate::heap) fn kept(&self, from: usize) -> Option<Range<usize>> {
        if from >= self.granules() {
            return None;
        }
        self.lost.gap(from..self.granules())
    }
}
