//! How a forked child repairs the heap where it finds locks held.
//!
//! The parent takes no lock for a fork and waits for no thread. So a child may find locks held, and
//! what they guard half changed, by threads that it does not have; or by a call on its own thread
//! that a signal handler interrupted, which then forked: that call goes on in the child when the
//! handler returns. What is guarded is made anew, from what is whole after every step of a change:
//!
//! | what | from |
//! |---|---|
//! | bins | the page map, and the free bits of its slabs |
//! | granules | the segments that were ever made, the page map, and states |
//! | huge blocks | their index, a copy of which is published after each change |
//! | the list of caches | all that were ever made, and which ones are in use |
//! | large and huge blocks in quarantine | nothing: they are free, as their states say |
//! | the arena | nothing: it is left behind, and what lies in it is never freed |
//!
//! New parts are put in the place of all that locks guard, and what no lock was held of moves there
//! as it is. If no call goes on, all that is free serves again. Else what it may be changing is
//! left to it: slabs of a bin whose lock is held, and granules that are free if theirs is. Blocks
//! of such slabs can be freed, but do not serve again. What is lost to the child so is counted
//! ([`HeapStatistics::abandoned`](super::HeapStatistics::abandoned)).
//!
//! The quarantine of blocks with a class has no lock: what is in it stays, and is counted again. A
//! block that a thread was just freeing, moving or handing out which the child does not have stays
//! out of use.
//!
//! A call that goes on finds that it was replaced when it waits for a lock; or it ends in what it
//! had locked, of which nothing is in use any more. Before it gives addresses back it looks whether
//! the child still knows them.

#[cfg(all(test, not(loom)))]
pub(super) mod tests;

use super::{
    Heap, LocalHeap,
    bin::Bin,
    bits::Bits,
    cache::CacheRef,
    class::{self, CLASSES, GRANULE, LARGE},
    local::Caches,
    maintenance::Sweep,
    parts::{Held, Parts},
    segment::{Segment, SegmentRef},
    slab::{FREED, Handle, ZERO},
    space::{IndexRef, Space},
};
use crate::{
    arena::Arena,
    fork::ForkChild,
    intervals::{Intervals, Spares},
    page::AddressRange,
    provider::{Error, ErrorKind, PageProvider},
    sync::{Lock, RawMutex},
};
use core::{mem, sync::atomic::Ordering::Relaxed};

// SAFETY: what a held lock guards is made anew, of what is whole after every step of a change, and
// of nothing that an interrupted call of this thread may change when it goes on.
unsafe impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> ForkChild
    for Heap<P, M, R>
{
    /// The forking thread may be in a call. See
    /// [`HeapStatistics::abandoned`](super::HeapStatistics::abandoned) for what of the heap cannot
    /// be used again then.
    unsafe fn fork_child(&self) -> Result<(), Error> {
        // SAFETY: `repair` asks for a forked child whose only thread this is, which `fork_child`
        // asks for as well; a call may go on, which `resumes` says.
        unsafe { self.repair(true) }
    }
}

/// Takes what a lock guards if it is open, and leaves something else.
fn take<T, R: RawMutex>(lock: &Lock<T, R>, left: T) -> Option<T> {
    let mut held = lock.try_lock()?;
    Some(mem::replace(&mut *held, left))
}

impl<R: RawMutex> Parts<R> {
    /// Says whether one of the locks is held.
    fn is_any_held(&self) -> bool {
        self.bins().iter().any(Lock::is_locked)
            || self.space.is_locked()
            || self.caches.is_locked()
            || self.sweep.is_locked()
    }

    /// Opens the locks that threads hold which the child does not have, or calls that go on.
    ///
    /// # Safety
    ///
    /// The calling thread is the only one of a forked child, and other parts are in use.
    unsafe fn abandon(&self) {
        for bin in self.bins() {
            // SAFETY: the only thread of a forked child, as the caller says; other parts are in use,
            // so that only a call that goes on uses what this lock guards.
            unsafe { bin.abandon() };
        }
        // SAFETY: the only thread of a forked child; other parts are in use, as the caller says.
        unsafe { self.space.abandon() };
        // SAFETY: the only thread of a forked child; other parts are in use, as the caller says.
        unsafe { self.caches.abandon() };
        // SAFETY: the only thread of a forked child; other parts are in use, as the caller says.
        unsafe { self.sweep.abandon() };
    }
}

/// Returns the error of metadata.
fn metadata(error: super::HeapError) -> Error {
    match error {
        super::HeapError::Memory(error) | super::HeapError::Metadata(error) => error,
        _ => ErrorKind::Exhausted.into(),
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Makes anew what locks guard, if one is held. A call of this thread may go on afterwards if
    /// it `resumes`.
    ///
    /// # Errors
    ///
    /// Where there is no metadata; nothing changes then.
    ///
    /// # Safety
    ///
    /// Those of [`ForkChild::fork_child`]; and unless it `resumes`, no call of this thread on the
    /// heap has begun that is to go on.
    pub(super) unsafe fn repair(&self, resumes: bool) -> Result<(), Error> {
        self.recount_quarantine();
        let arena = self.arena();
        let is_arena_held = arena.is_locked();
        let old = self.parts();
        if !is_arena_held && !old.is_any_held() {
            return Ok(());
        }
        if is_arena_held {
            let new = Arena::new(self.metadata, self.config.metadata_bytes())?;
            // SAFETY: `renew` asks that no other thread uses the arena: a forked child has only
            // this one, as the caller says. Drop disposes with the same provider.
            unsafe { self.arena.renew(&self.metadata, || new)? };
            // SAFETY: `abandon` asks for an arena that is not in use: it was replaced just now, in
            // a child with this thread only.
            unsafe { arena.abandon() };
        }
        let arena = self.arena();
        let count = self.config.shard_count() * CLASSES;
        let bins = arena.alloc_slice(count, || Lock::new(Bin::new()))?;
        let era = old.era.wrapping_add(1);
        let renewed = if old.space.is_locked() {
            Some(self.new_space(old, era, resumes)?)
        } else {
            None
        };
        let make = || {
            // Parts whose lock is open move as they are.
            let left = || Space::new(self.config.segment_granules(), old.huge, old.era);
            let space = renewed.or_else(|| take(&old.space, left()));
            let mut space = space.unwrap_or_else(left);
            space.era = era;
            let caches = take(&old.caches, Caches::new());
            let caches = caches.unwrap_or_else(|| Caches::of(self.all_caches(), !resumes));
            Parts {
                bins,
                huge: space.huge,
                space: Lock::new(space),
                caches: Lock::new(caches),
                sweep: Lock::new(take(&old.sweep, Sweep::new()).unwrap_or_else(Sweep::new)),
                era,
            }
        };
        // SAFETY: `renew` asks that no other thread uses the parts: a forked child has only this
        // one, as the caller says. Drop disposes with the same provider.
        unsafe { self.parts.renew(&self.metadata, make)? };
        self.fill_bins(old, resumes);
        // SAFETY: the only thread of the child, as the caller says, and the parts were replaced just
        // now.
        unsafe { old.abandon() };
        Ok(())
    }

    fn note_abandoned(&self, bytes: usize) {
        self.abandoned.fetch_add(bytes, Relaxed);
    }

    /// Makes the granules anew, whose lock is held.
    fn new_space(&self, old: &Parts<R>, era: u32, resumes: bool) -> Result<Space, Error> {
        let huge = if resumes {
            let copy = Intervals::new();
            let mut spares = Spares::new();
            for range in old.huge.all().filter(|range| range.len != 0) {
                spares.make_room(&copy, self.arena())?;
                copy.insert(&mut spares, range);
            }
            IndexRef::new(self.arena(), copy)?
        } else {
            old.huge
        };
        let mut space = Space::new(self.config.segment_granules(), huge, era);
        let mut next = self.first_segment.get();
        while let Some(segment) = next {
            next = segment.made_before.get();
            if segment.is_left() {
                continue;
            }
            space.segments.make_room(self.arena()).map_err(metadata)?;
            let in_use = self.owned(&mut space, segment, resumes);
            let segment = if resumes {
                let new = self.arena().alloc_value(Segment::new())?;
                // SAFETY: initialised just now, and never freed before the arena, which is the
                // heap's.
                let new = unsafe { SegmentRef::new(new) };
                self.note_abandoned(new.take_over(&segment));
                self.note_segment(new);
                new
            } else {
                segment.recount(|n| in_use.word(n / 64) >> (n % 64) & 1 == 1);
                self.forget_entries(segment, &in_use);
                segment
            };
            let all = 0..segment.granules();
            space.gauges.reserved += segment.kept_count() * GRANULE;
            space.gauges.committed += segment.with_memory(&all) * GRANULE;
            space.gauges.mappings += segment.borders(&all);
            space.insert(segment);
        }
        self.find_huge(&mut space, resumes)?;
        let blocks = space.segments.all().iter();
        let blocks = blocks.filter_map(|(addr, segment)| {
            AddressRange::from_len(*addr, segment.granules() * GRANULE)
        });
        space.leaves = self
            .map
            .find_leaves(self.page, self.arena(), blocks)
            .map_err(metadata)?;
        Ok(space)
    }

    /// Returns which granules of a segment are in use, as the page map and states tell, and counts
    /// large blocks.
    fn owned(&self, space: &mut Space, segment: SegmentRef, resumes: bool) -> Bits {
        let in_use = Bits::new();
        for (first, slab) in self.slabs_of(segment) {
            let count = slab.len_bytes() / GRANULE;
            let mut guards = 0;
            if slab.is(LARGE) {
                guards = self.guard_of(slab) / GRANULE;
                if matches!(slab.only().state().load(Relaxed), FREED | ZERO) {
                    // It was being given back, or waited in quarantine.
                    let bytes = (count + 2 * guards) * GRANULE;
                    self.note_abandoned(if resumes { bytes } else { 0 });
                    continue;
                }
                space.gauges.large += slab.len_bytes();
                space.gauges.large_blocks += 1;
                self.count_guards(space, slab, true);
            }
            let end = (first + count + guards).min(segment.granules());
            in_use.set(first.saturating_sub(guards)..end);
            // Of all of its granules, if a call had begun with that.
            self.map.set(slab.addr(), slab.len_bytes(), Some(slab));
        }
        in_use
    }

    /// Enters granules that are not in use as ones of no slab, as far as they are the heap's.
    fn forget_entries(&self, segment: SegmentRef, in_use: &Bits) {
        let mut from = 0;
        while let Some(part) = segment.kept(from) {
            from = part.end;
            let mut at = part.start;
            while at < part.end
                && let Some(free) = in_use.gap(at..part.end)
            {
                let addr = segment.addr() + free.start * GRANULE;
                self.map.set(addr, free.len() * GRANULE, Some(self.nothing));
                at = free.end;
            }
        }
    }

    /// Yields the slabs that begin in a segment, as the page map tells, and the number of the
    /// granule where each does.
    fn slabs_of(&self, segment: SegmentRef) -> impl Iterator<Item = (usize, Handle)> {
        (0..segment.granules()).filter_map(move |n| {
            let addr = segment.addr() + n * GRANULE;
            let slab = self.map.slab(addr)?;
            let is_slab = slab.class() < CLASSES || slab.is(LARGE);
            (is_slab && slab.addr() == addr).then_some((n, slab))
        })
    }

    /// Counts huge blocks, and has those released that are free.
    fn find_huge(&self, space: &mut Space, resumes: bool) -> Result<(), Error> {
        space.spares.make_room(&space.huge, self.arena())?;
        let mut bytes = 0;
        let index = space.huge;
        for range in index.all() {
            let Some(slab) = self.huge_of(range).filter(|_| range.len != 0) else {
                // It was being released.
                if !resumes {
                    index.remove(&mut space.spares, range.start);
                    space.spares.make_room(&index, self.arena())?;
                }
                continue;
            };
            let is_free = matches!(slab.only().state().load(Relaxed), FREED | ZERO);
            if !is_free {
                bytes += self.counted(slab);
                self.count_guards(space, slab, true);
            } else if resumes {
                self.note_abandoned(range.len);
            } else {
                // Its memory may have gone, as that of a block that was moved.
                self.set_huge(space, slab, 0, slab.len_bytes(), 0);
                space.kept.push_unreleased(slab);
            }
            space.count_huge(range.len, Some(slab));
        }
        self.huge_bytes.store(bytes, Relaxed);
        Ok(())
    }

    /// Fills the bins in use, which are empty, with those of before.
    fn fill_bins(&self, old: &Parts<R>, resumes: bool) {
        let mut any_held = false;
        for (n, before) in old.bins().iter().enumerate() {
            match take(before, Bin::new()) {
                Some(bin) => *self.lock_bin(n / CLASSES, n % CLASSES) = bin,
                None => any_held = true,
            }
        }
        if !any_held {
            return;
        }
        let mut place = 0;
        while let Some(segment) = { self.lock_space().segments.nth(place) } {
            place += 1;
            for (_, slab) in self.slabs_of(segment) {
                let (shard, class) = (slab.shard(), slab.class());
                if class >= CLASSES || !old.bins()[shard * CLASSES + class].is_locked() {
                    continue;
                }
                let is_new = resumes && !slab.is_abandoned();
                if is_new {
                    slab.abandon();
                }
                let free = self.lock_bin(shard, class).adopt(slab, self.page);
                if is_new {
                    self.note_abandoned(free * class::size(class));
                }
            }
        }
    }

    /// Makes granules anew that a call never goes on with.
    pub(super) fn mend_space(&self, space: &mut Held<'_, Space, R>) {
        let (parts, huge, era) = (space.parts, space.huge, space.era);
        let new = self.new_space(parts, era, false);
        // Without metadata for that, what was free is lost.
        **space = new.unwrap_or_else(|_| Space::new(self.config.segment_granules(), huge, era));
    }

    /// Makes a bin anew that a call never goes on with. Its lock is held.
    pub(super) fn mend_bin(&self, bin: &mut Held<'_, Bin, R>, shard: usize, class: usize) {
        **bin = Bin::new();
        let space = self.lock_space();
        for (_, segment) in space.segments.all() {
            for (_, slab) in self.slabs_of(*segment) {
                if slab.class() == class && slab.shard() == shard {
                    bin.adopt(slab, self.page);
                }
            }
        }
    }

    /// Brings back what threads that have their caches by slots had cached, except for `own`.
    ///
    /// A thread may have been at any step when the process was copied. Its stores are seen in order
    /// up to some one, and a magazine has a block twice at worst, of which the second one is
    /// refused by its slab; what was on its way to a bin is lost.
    ///
    /// # Safety
    ///
    /// The process has but the calling thread, which alone has `own`.
    pub(super) unsafe fn adopt_orphans(&self, own: Option<CacheRef>) {
        let orphans = self.all_caches().filter(|&cache| {
            cache.by_slot.load(Relaxed) && cache.in_use.load(Relaxed) && Some(cache) != own
        });
        for cache in orphans {
            if self.is_full() {
                // Half of an entry may be written.
                cache.forget_call();
            }
            // SAFETY: in use by a thread that is not in this process.
            drop(unsafe { LocalHeap::from_cache(self, cache) });
        }
    }
}
