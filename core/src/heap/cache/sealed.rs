//! The cache of a hardened heap, and the quick calls of the lower level of hardening.

use super::{Cache, CacheRef, Magazine};
use crate::{
    atomic::{
        self,
        Ordering::{Relaxed, Release},
    },
    heap::{
        class::{self, CLASSES, STEP},
        hardened::{self, CANARY_LEAST, Seals},
        map,
        slab::{Entry, FREED, LIVE},
    },
};
use core::{
    alloc::Layout,
    mem,
    ptr::{NonNull, null_mut},
};

/// A cache of a hardened heap, and its magazines.
#[repr(C)]
pub(in crate::heap) struct HardenedCache {
    cache: Cache,
    pub(super) magazines: [Magazine; CLASSES],
}

impl CacheRef {
    /// Makes one of a hardened heap, which is of the lower level if there are seals.
    ///
    /// # Safety
    ///
    /// Fresh memory for a [`HardenedCache`] lies there, which stays as long as every copy of this.
    pub(in crate::heap) unsafe fn new_hardened(
        place: NonNull<u8>,
        cache: Cache,
        seals: Option<Seals>,
    ) -> Self {
        // SAFETY: the caller gives memory for a `HardenedCache`, which has magazines at this
        // offset.
        let first =
            unsafe { place.add(mem::offset_of!(HardenedCache, magazines)) }.cast::<Magazine>();
        for class in 0..CLASSES {
            // SAFETY: a `HardenedCache` has as many magazines as there are classes.
            let magazine = unsafe { first.add(class) };
            // SAFETY: inside the caller's fresh memory, aligned as a field of a `HardenedCache` is.
            unsafe { magazine.write(Magazine::new(class)) };
        }
        cache.hardened.store(first.as_ptr(), Relaxed);
        let seals = seals.map_or(null_mut(), Seals::as_ptr);
        cache.seals.store(seals, Relaxed);
        let place = place.cast::<Cache>();
        // SAFETY: fresh memory for a `HardenedCache`, which begins with a cache.
        unsafe { place.write(cache) };
        Self(place)
    }
}

impl CacheRef {
    /// Returns the canaries of the heap, if it is hardened, and of the lower level.
    #[inline]
    fn seals(self) -> Option<Seals> {
        // SAFETY: `own_ptr` asks that no other thread stores meanwhile: the field is never changed
        // once the cache is in use.
        let canaries = NonNull::new(unsafe { atomic::own_ptr(&self.seals) })?;
        // SAFETY: `new_hardened` stored what `Seals` gave; the heap is there as long as this cache.
        Some(unsafe { Seals::new(canaries) })
    }

    /// As [`CacheRef::alloc_quick`], at the lower level of hardening: a block that nothing was
    /// written into since it was freed, with a canary behind what is asked for.
    #[inline]
    pub(in crate::heap) fn alloc_sealed(self, layout: Layout) -> Option<NonNull<u8>> {
        let seals = self.seals()?;
        if layout.align() > STEP {
            return None;
        }
        let len = layout.size() + CANARY_LEAST;
        let place = class::quick_place_of(len)?;
        // SAFETY: `quick_place_of` returns what `class::place` does for sizes that are not zero;
        // the cache is of a hardened heap.
        let magazine = unsafe { self.stack_at(place) };
        // SAFETY: blocks in magazines are free, and this thread's.
        let entry = magazine.pop_if(|entry| unsafe { hardened::is_clean(entry.block) })?;
        let slack = class::quick_size_of(len) - len;
        if len <= class::BYTE_MAX {
            let after = class::slack_after_quick(magazine.reciprocal);
            // SAFETY: slabs of hardened heaps keep what was asked for; the class is as long at
            // most.
            unsafe { entry.set_slack(after, slack, false) };
        } else {
            // SAFETY: slabs of hardened heaps keep what was asked for; the class is longer than
            // `class::BYTE_MAX`.
            unsafe { entry.set_slack(class::FEW_BLOCKS, slack, true) };
        }
        // SAFETY: the class is as long as `len`; the block is this thread's.
        unsafe { seals.write(entry.block, layout.size()) };
        entry.state().store(LIVE, Release);
        Some(entry.block)
    }

    /// As [`CacheRef::free_quick_sized`], at the lower level of hardening; the canary is where the
    /// layout says, or the block stays as it is.
    ///
    /// # Safety
    ///
    /// Those of [`CacheRef::free_quick`]. A wrong layout is noticed.
    #[inline]
    pub(in crate::heap) unsafe fn free_sealed(self, block: NonNull<u8>, layout: Layout) -> bool {
        let Some(seals) = self.seals() else {
            return false;
        };
        if layout.align() > STEP {
            return false;
        }
        let Some(place) = class::quick_place_of(layout.size() + CANARY_LEAST) else {
            return false;
        };
        let Some(value) = self.value_in_window(block.addr().get()) else {
            return false;
        };
        if !map::has_place(value, place) {
            return false;
        }
        // SAFETY: `quick_place_of` returns what `class::place` does for sizes that are not zero;
        // the cache has seals, so that `new_hardened` made it.
        let magazine = unsafe { self.stack_at(place) };
        let (addr, reciprocal) = (block.addr().get(), magazine.reciprocal);
        // SAFETY: a value of the heap's map, which is there, with this place, and the class's own
        // reciprocal.
        let Some(state) = (unsafe { map::live_quick::<true>(value, addr, reciprocal) }) else {
            return false;
        };
        // SAFETY: live, and of a class that has room for a canary; the caller gives it up.
        if !unsafe { seals.is_intact(block, layout.size()) } {
            return false;
        }
        magazine.push_after(Entry { block, state }, |entry| {
            entry.state().store(FREED, Relaxed);
            // SAFETY: the block is this thread's since its state changed, and its canary is behind
            // what the layout says, as was just seen.
            unsafe { hardened::mark_free(block, layout.size()) };
        })
    }

    /// Returns the magazine of a hardened heap at a [place](class::place).
    ///
    /// # Safety
    ///
    /// It is one that [`class::place`] returned, and [`CacheRef::new_hardened`] made this.
    #[cfg(not(loom))]
    #[inline]
    pub(in crate::heap) unsafe fn stack_at(&self, place: usize) -> &Magazine {
        const BEHIND: usize = size_of::<Cache>() - class::place(0) as usize;
        let offset = BEHIND + place;
        // SAFETY: `place` came from `class::place`, so that it is that of one of the magazines,
        // which lie right behind the cache, as is asserted beside its fields.
        let magazine = unsafe { self.0.byte_add(offset) }.cast();
        // SAFETY: `new_hardened` initialised it, and its caller said that it stays.
        unsafe { magazine.as_ref() }
    }

    /// Returns the magazine of a hardened heap at a [place](class::place), which is not where it
    /// lies in models.
    ///
    /// # Safety
    ///
    /// It is one that [`class::place`] returned, and [`CacheRef::new_hardened`] made this.
    #[cfg(loom)]
    pub(in crate::heap) unsafe fn stack_at(&self, place: usize) -> &Magazine {
        self.stack(place / class::MAGAZINE - class::FIRST_KIND)
    }
}
