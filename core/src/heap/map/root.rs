//! The root of the page map, and the leaves that it leads to: for readers without a lock.

use super::{Entry, GRANULE_BITS, LEAF, LEAF_BITS, Map, RawWindow, Slot};
use crate::atomic::Ordering::Acquire;
use core::ptr::NonNull;

/// The root of a map, for readers.
#[derive(Clone, Copy)]
pub(in crate::heap) struct RootRef<'map> {
    raw: RawRoot,
    _map: core::marker::PhantomData<&'map Map>,
}

/// The root of a map, for readers who know by other means that it is there.
#[derive(Clone, Copy)]
pub(in crate::heap) struct RawRoot {
    pub(super) root: NonNull<Slot>,
    /// The first granule that the map tells apart, by its address.
    pub(in crate::heap) first: usize,
    pub(in crate::heap) granules: usize,
}

// SAFETY: what is there is an array of atomics, in memory that belongs to the map.
unsafe impl Send for RawRoot {}

// SAFETY: what is there is an array of atomics, which any thread may read, in memory that belongs
// to the map.
unsafe impl Sync for RawRoot {}

impl RawRoot {
    /// Returns the root.
    ///
    /// # Safety
    ///
    /// The map is there as long as the result.
    #[inline]
    pub(in crate::heap) const unsafe fn get<'map>(self) -> RootRef<'map> {
        RootRef {
            raw: self,
            _map: core::marker::PhantomData,
        }
    }
}

impl<'map> RootRef<'map> {
    /// Forgets how long the map is there.
    pub(in crate::heap) const fn raw(self) -> RawRoot {
        self.raw
    }

    /// Returns the slot of a leaf.
    pub(super) fn slot(self, n: usize) -> Option<&'map Slot> {
        if n >= self.raw.granules.div_ceil(LEAF) {
            return None;
        }
        // SAFETY: `Map::new` made as many slots.
        let slot = unsafe { self.raw.root.add(n) };
        // SAFETY: zeroed by `Map::new`, which is an array of null pointers, and only changed
        // through its atomics; there as long as the map, as the caller of `RawRoot::get` said.
        Some(unsafe { slot.as_ref() })
    }

    /// Returns the leaf that has an address, as a window.
    pub(super) fn leaf(self, addr: usize) -> Option<RawWindow> {
        let granule = (addr >> GRANULE_BITS).wrapping_sub(self.raw.first);
        let n = granule >> LEAF_BITS;
        let entries = NonNull::new(self.slot(n)?.load(Acquire))?;
        Some(RawWindow {
            entries,
            start: (self.raw.first + n * LEAF) << GRANULE_BITS,
            len: LEAF.min(self.raw.granules - n * LEAF),
        })
    }

    #[inline]
    pub(super) fn entry(self, addr: usize) -> Option<&'map Entry> {
        let granule = (addr >> GRANULE_BITS).wrapping_sub(self.raw.first);
        if granule >= self.raw.granules {
            return None;
        }
        // SAFETY: below `granules`, for which there are slots.
        let slot = unsafe { self.raw.root.add(granule >> LEAF_BITS) };
        // SAFETY: `Map::new` zeroed the slots, which are changed by atomics only, and are there as
        // long as the map, as the caller of `RawRoot::get` said.
        let slot = unsafe { slot.as_ref() };
        let leaf = NonNull::new(slot.load(Acquire))?;
        // SAFETY: a leaf has LEAF entries, but for the last, which has as many as there are
        // granules.
        let entry = unsafe { leaf.add(granule % LEAF) };
        // SAFETY: zeroed by `Map::cover`, changed by its atomics only, and there as long as the
        // map.
        Some(unsafe { entry.as_ref() })
    }

    /// Returns the entry of the granule around `addr`, any address at all, or zero.
    #[inline]
    pub(in crate::heap) fn value(self, addr: usize) -> u64 {
        self.entry(addr).map_or(0, |entry| entry.load(Acquire))
    }
}
