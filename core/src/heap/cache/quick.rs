//! The quick calls: those that a cached block and the window of the page map are enough for.

use super::{CacheRef, Magazine};
use crate::{
    atomic::Ordering::{Relaxed, Release},
    heap::{
        class,
        large::Big,
        map,
        slab::{Entry, LIVE, ZERO},
    },
};
use core::{alloc::Layout, ptr::NonNull};

impl CacheRef {
    /// Takes a cached block of the class of a small layout.
    #[inline]
    pub(in crate::heap) fn pop_quick(self, layout: Layout) -> Option<Entry> {
        let place = class::quick_place(layout)?;
        // SAFETY: `quick_place` returns what `class::place` does, or `NO_PLACE`.
        unsafe { self.magazine_at(place) }.pop()
    }

    /// Takes a cached block of the class of a small layout for its user.
    #[inline]
    pub(in crate::heap) fn alloc_quick(self, layout: Layout) -> Option<NonNull<u8>> {
        let entry = self.pop_quick(layout)?;
        entry.state().store(LIVE, Release);
        Some(entry.block)
    }

    /// As [`CacheRef::alloc_quick`], and says whether the block reads zero.
    #[inline]
    pub(in crate::heap) fn alloc_quick_told(self, layout: Layout) -> Option<Big> {
        let entry = self.pop_quick(layout)?;
        let zero = entry.state().load(Relaxed) == ZERO;
        entry.state().store(LIVE, Release);
        Some((entry.block, zero))
    }

    /// Frees a block if there is room for it in a magazine, and it lies in the first granule of a
    /// slab of a [quick class](class::is_quick), in the window of the page map, as it nearly always
    /// does; says whether it did.
    ///
    /// # Safety
    ///
    /// The heap is there. If `block` is the start of a live block of the heap, as it is unless
    /// `CHECKED`, its user gives that up.
    #[inline]
    pub(in crate::heap) unsafe fn free_quick<const CHECKED: bool>(
        self,
        block: NonNull<u8>,
    ) -> bool {
        let Some(value) = self.value_in_window(block.addr().get()) else {
            return false;
        };
        let Some(place) = map::quick_place(value) else {
            return false;
        };
        // SAFETY: `free_at` asks for what this function does, and for a value of the page map with
        // its place, which both come from the entry of the block.
        unsafe { self.free_at::<CHECKED>(block, value, place) }
    }

    /// As [`CacheRef::free_quick`], of a block that was allocated with this layout: a processor
    /// need not wait for the page map to know where the magazine is.
    ///
    /// # Safety
    ///
    /// Those of [`CacheRef::free_quick`]. A wrong layout is noticed.
    #[inline]
    pub(in crate::heap) unsafe fn free_quick_sized<const CHECKED: bool>(
        self,
        block: NonNull<u8>,
        layout: Layout,
    ) -> bool {
        let Some(place) = class::quick_place(layout) else {
            return false;
        };
        let Some(value) = self.value_in_window(block.addr().get()) else {
            return false;
        };
        if !map::has_place(value, place) {
            return false;
        }
        // SAFETY: `free_at` asks for what this function does, and for a value of the page map with
        // its place: `has_place` says that the value, the entry of the block, has it.
        unsafe { self.free_at::<CHECKED>(block, value, place) }
    }

    /// # Safety
    ///
    /// Those of [`CacheRef::free_quick`]; the page map has the value for the block, of which
    /// [`map::quick_place`] returns the place.
    #[inline]
    unsafe fn free_at<const CHECKED: bool>(
        self,
        block: NonNull<u8>,
        value: u64,
        place: usize,
    ) -> bool {
        // SAFETY: the value is of the heap's map, so that `quick_place` returned what
        // `class::place` did.
        let magazine = unsafe { self.magazine_at(place) };
        let (addr, reciprocal) = (block.addr().get(), magazine.reciprocal);
        // SAFETY: a value of the heap's map, which is there, with a place, and the class's own
        // reciprocal.
        let state = unsafe { map::live_quick::<CHECKED>(value, addr, reciprocal) };
        match state {
            Some(state) => magazine.push_live(Entry { block, state }),
            None => false,
        }
    }

    /// Returns the magazine at a [place](class::place).
    ///
    /// # Safety
    ///
    /// It is one that [`class::place`] returned, or [`class::NO_PLACE`].
    #[cfg(not(loom))]
    #[inline]
    pub(in crate::heap) unsafe fn magazine_at(&self, place: usize) -> &Magazine {
        // SAFETY: `place` came from `class::place`, or is that of the empty magazine: at such an
        // offset lies a magazine in the cache, as is asserted beside its fields.
        let magazine = unsafe { self.0.byte_add(place) }.cast();
        // SAFETY: initialised with the cache, and there as long: whoever made this said that the
        // cache stays.
        unsafe { magazine.as_ref() }
    }

    /// Returns the magazine at a [place](class::place), which is not where it lies in models.
    ///
    /// # Safety
    ///
    /// It is one that [`class::place`] returned, or [`class::NO_PLACE`].
    #[cfg(loom)]
    pub(in crate::heap) unsafe fn magazine_at(&self, place: usize) -> &Magazine {
        match (place / class::MAGAZINE).checked_sub(class::FIRST_KIND) {
            Some(class) => &self.magazines[class],
            None => &self.none,
        }
    }
}
