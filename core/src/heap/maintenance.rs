//! How free memory goes back: ticks, trims, and the sweep of pages inside slabs.

use super::{
    Heap, Return,
    class::{CLASSES, GRANULE},
    segment::SegmentRef,
    space::Space,
};
use crate::{provider::PageProvider, sync::RawMutex};
use core::{ops::ControlFlow, sync::atomic::Ordering::Relaxed};

/// How much work is done to give memory back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Level {
    /// Memory that is free as a whole: segments, granules of 64 KiB, or large pages where memory
    /// came by those, and huge blocks that are kept.
    Free,
    /// That, and pages of the host that hold only free blocks, between live ones: a call of the
    /// provider for each run of them. Large pages that it takes parts of the host may fill again.
    Deep,
}

/// Slabs that one call looks at, to give back pages of theirs: a millisecond's work or two.
const SWEPT: usize = 128;

/// Milliseconds between two calls that do.
const PAUSE_MS: u64 = 5;

/// How far the giving back of pages inside slabs has got.
pub(super) struct Sweep {
    /// Slabs below this address are still to be looked at.
    end: usize,
    /// When it may go on.
    next_ms: u64,
    /// Whether there was a tick since it began, so that it begins again when all were looked at.
    again: bool,
}

impl Sweep {
    pub(super) const fn new() -> Self {
        Self {
            end: 0,
            next_ms: 0,
            again: false,
        }
    }

    /// Begins with the highest slab, or goes on with those that were not looked at yet: ticks that
    /// come often keep none from being reached.
    fn begin(&mut self) {
        if self.end == 0 {
            self.end = usize::MAX;
        } else {
            self.again = true;
        }
    }

    /// Notes that all slabs were looked at; says whether to begin again.
    fn end(&mut self) -> bool {
        let again = core::mem::take(&mut self.again);
        self.end = if again { usize::MAX } else { 0 };
        again
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Gives back memory that has been free for as long as the configuration says. `now_ms` are
    /// milliseconds of any clock that only goes forwards. Costs nothing until the time has come.
    ///
    /// Other threads bring back what they have cached when they next take a lock or have asked for
    /// some kilobytes. A thread that may then do nothing for long calls
    /// [`LocalHeap::tick`](super::LocalHeap::tick), or
    /// [`LocalHeap::flush`](super::LocalHeap::flush) before.
    pub fn tick(&self, now_ms: u64) {
        if self.is_due(now_ms) {
            self.tick_now();
            self.sweep_all();
        }
    }

    /// Does what calls that take a lock do beside: frees what was deferred, ticks if there is a
    /// clock, and goes on with what the last tick began. Returns what the clock says.
    pub(super) fn maintain(&self) -> Option<u64> {
        self.take_deferred();
        let now_ms = self.config.now_ms();
        if now_ms.is_some_and(|now_ms| self.is_due(now_ms)) {
            self.tick_now();
        }
        self.sweep(now_ms);
        now_ms
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

    /// Gives back what has been free as a whole for long enough, and begins with pages inside
    /// slabs.
    pub(super) fn tick_now(&self) {
        self.flush_stocked();
        self.drop_free_slabs();
        let mut space = self.lock_space();
        self.return_free(&mut space, true, false);
        self.release_unreleased(&mut space);
        self.drop_kept(&mut space, true);
        drop(space);
        self.lock_sweep().begin();
        self.is_sweeping.store(true, Relaxed);
    }

    /// Gives back all memory that is free now, and addresses of segments that are free. What
    /// threads have [cached](super::HeapStatistics::cached) keeps its slabs from being free: each
    /// brings it back, and gives back what is free then, at its next call or soon after; see
    /// [`LocalHeap::collect`](super::LocalHeap::collect) for the calling thread.
    pub fn collect(&self, level: Level) {
        self.trim_deep.store(level == Level::Deep, Relaxed);
        self.trims.fetch_add(1, Relaxed);
        for cache in self.all_caches().filter(|cache| cache.in_use.load(Relaxed)) {
            cache.hurry();
        }
        self.collect_own(level);
    }

    /// Returns how much work the last trim did.
    pub(super) fn trim_level(&self) -> Level {
        if self.trim_deep.load(Relaxed) {
            Level::Deep
        } else {
            Level::Free
        }
    }

    /// Gives back all memory that is free now.
    pub(super) fn collect_own(&self, level: Level) {
        self.take_deferred();
        self.flush_stocked();
        self.end_quarantine();
        self.drop_free_slabs();
        {
            let mut space = self.lock_space();
            self.drop_waiting(&mut space);
            self.release_unreleased(&mut space);
            self.drop_kept(&mut space, false);
            self.release_free(&mut space);
            self.thin_out_all(&space);
            self.return_free(&mut space, false, level == Level::Deep);
        }
        if level == Level::Deep {
            self.collect_slabs(|_| ControlFlow::Continue(()));
        }
    }

    /// Does what [`Heap::collect`] does for [`Level::Free`].
    pub fn trim(&self) {
        self.collect(Level::Free);
    }

    /// Gives memory back until no more than `resident_bytes` of it are
    /// [resident](super::HeapStatistics::resident), or no more is free: what costs least first, and
    /// of that the highest addresses, as the lowest serve first. Returns how many bytes are
    /// resident then. Addresses are kept, but for those of huge blocks.
    ///
    /// The order is: huge blocks that were kept, free granules, and pages of slabs that hold only
    /// free blocks.
    pub fn trim_to(&self, resident_bytes: usize) -> usize {
        self.take_deferred();
        let excess = || self.resident_bytes().saturating_sub(resident_bytes);
        loop {
            let left = excess();
            if left == 0 || self.drop_one_kept(&mut self.lock_space(), left) == 0 {
                break;
            }
        }
        if excess() != 0 {
            self.flush_stocked();
            self.drop_free_slabs();
            let left = excess();
            self.return_some(&mut self.lock_space(), left);
        }
        let mut left = excess();
        if left != 0 {
            self.collect_slabs(|given| {
                left = left.saturating_sub(given);
                if left == 0 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
        }
        self.resident_bytes()
    }

    /// Takes memory from pages of slabs that hold only free blocks, and tells `after` of each slab
    /// how much, until that breaks, or the provider fails.
    fn collect_slabs(&self, mut after: impl FnMut(usize) -> ControlFlow<()>) {
        let mut end = usize::MAX;
        while let Some((_, addr)) = self.slab_below(end) {
            match self.collect_slab(addr, None) {
                Ok(given) if after(given).is_continue() => {}
                _ => return,
            }
            end = addr;
        }
    }

    /// Says whether pages of slabs are being given back, for which calls should come here again
    /// soon.
    pub(super) fn is_sweeping(&self) -> bool {
        self.is_sweeping.load(Relaxed)
    }

    /// Goes on with giving back pages of slabs that hold only free blocks, and have not been needed
    /// between two ticks: some slabs at a time, and not again at once.
    fn sweep(&self, now_ms: Option<u64>) {
        if !self.is_sweeping() {
            return;
        }
        let Some(mut sweep) = self.try_lock_sweep() else {
            return;
        };
        if let Some(now_ms) = now_ms {
            if now_ms < sweep.next_ms && sweep.next_ms - now_ms <= PAUSE_MS {
                return;
            }
            sweep.next_ms = now_ms + PAUSE_MS;
        }
        if !self.sweep_some(&mut sweep) && !sweep.end() {
            self.is_sweeping.store(false, Relaxed);
        }
    }

    /// Does all that is left of giving back pages of slabs, if no other call does it.
    pub(super) fn sweep_all(&self) {
        if let Some(mut sweep) = self.try_lock_sweep() {
            sweep.end = usize::MAX;
            while self.sweep_some(&mut sweep) {}
            sweep.again = false;
            sweep.end();
            self.is_sweeping.store(false, Relaxed);
        }
    }

    /// Looks at some slabs; says whether there are more.
    fn sweep_some(&self, sweep: &mut Sweep) -> bool {
        let now = self.ticks.load(Relaxed);
        for _ in 0..SWEPT {
            let Some((segment, addr)) = self.slab_below(sweep.end) else {
                return false;
            };
            sweep.end = addr;
            if segment.has_large_pages() && !self.thin_out(&self.lock_space(), segment, Some(now)) {
                sweep.end = segment.addr();
            } else if self.collect_slab(addr, Some(now)).is_err() {
                return false;
            }
        }
        true
    }

    /// Has a segment get its memory by base pages from now on, if half of it is free, and has not
    /// been needed between two ticks if `tick` tells the present one: then parts of large pages may
    /// go back. Says whether that is so. The lock of the granules is held.
    fn thin_out(&self, _space: &Space, segment: SegmentRef, tick: Option<u32>) -> bool {
        let (start, granules) = (segment.addr(), segment.granules());
        let mut idle = segment.idle_count(tick.is_some()) * GRANULE;
        for granule in 0..granules {
            let addr = start + granule * GRANULE;
            let slab = self.map.slab(addr).filter(|slab| slab.addr() == addr);
            // How many are free may change meanwhile, as the bin's lock is not held: half is no
            // sharp bound.
            if let Some(slab) = slab.filter(|slab| slab.class() < CLASSES)
                && !tick.is_some_and(|now| slab.is_recent(now))
            {
                idle += slab.free_blocks() * slab.block_bytes();
            }
        }
        let is_thin = idle >= granules * GRANULE / 2;
        if is_thin && let Some(range) = segment.range(&(0..granules), self.page) {
            // SAFETY: the segment's addresses, all of which are the heap's while its lock is held.
            unsafe { self.provider.avoid_large_pages(range) };
            segment.use_base_pages();
        }
        is_thin
    }

    /// Has segments that are half free get their memory by base pages from now on.
    fn thin_out_all(&self, space: &Space) {
        for (_, segment) in space.segments.all() {
            if segment.has_large_pages() {
                self.thin_out(space, *segment, None);
            }
        }
    }

    /// Finds the highest slab of a class that starts below `end`, and its segment.
    fn slab_below(&self, end: usize) -> Option<(SegmentRef, usize)> {
        let mut end = end;
        loop {
            // One segment after the other by address, as bins' locks come before that of the
            // granules.
            let (segment, start, granules) = {
                let space = self.lock_space();
                let place = space.segments.below(end).checked_sub(1)?;
                let segment = space.segments.nth(place)?;
                (segment, segment.addr(), segment.granules())
            };
            let above = (end - start).div_ceil(GRANULE).min(granules);
            let found = (0..above).rev().find_map(|granule| {
                let addr = start + granule * GRANULE;
                let slab = self.map.slab(addr)?;
                (slab.class() < CLASSES && slab.addr() == addr).then_some(addr)
            });
            if let Some(addr) = found {
                return Some((segment, addr));
            }
            end = start;
        }
    }
}
