//! How a huge block is made: addresses, memory, and its entry.

use super::{committed_ahead, guards_of};
use crate::{
    heap::{
        Heap, NAME,
        class::{GRANULE, HUGE},
        error::HeapError,
        large::{Big, CHUNK, Growth},
        parts::Held,
        slab::{self, Handle, LIVE, Notes},
        space::Space,
    },
    intervals::Interval,
    page::PageRange,
    provider::{ErrorKind, PageProvider, PageWish, Request, reserve_ahead},
    sync::RawMutex,
};
use core::{
    alloc::Layout,
    ptr::NonNull,
    sync::atomic::Ordering::{Relaxed, Release},
};

/// A block that grows gets this many times its size of addresses where they are not limited, so
/// that it moves a few times only until it has all that a host gives.
const AHEAD: usize = 8;

/// Bytes of addresses that it gets beyond its size at most: 64 GiB, or 256 MiB where addresses have
/// 32 bits.
const AHEAD_MOST: usize = 1 << (20 + usize::BITS / 4);

/// Addresses for a huge block, guards included, and the descriptor that is to have them.
pub(in crate::heap) struct Place {
    pub(in crate::heap) slab: Handle,
    pub(in crate::heap) whole: PageRange,
    /// Bytes of each of the guards.
    pub(in crate::heap) guard: usize,
    /// Bytes between the guards.
    pub(in crate::heap) len: usize,
    /// Bytes that the block gets memory for.
    pub(in crate::heap) size: usize,
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    pub(in crate::heap) fn alloc_huge(
        &self,
        space: &mut Space,
        layout: Layout,
    ) -> Result<Big, HeapError> {
        let in_use = self.huge_bytes.load(Relaxed);
        space
            .kept
            .note(layout.size(), in_use.saturating_add(layout.size()));
        if let Some(block) = self.alloc_kept(space, layout) {
            return Ok((block, false));
        }
        if let Some(told) = self.alloc_unreleased(space, layout) {
            return Ok(told);
        }
        if let Some(block) = self.alloc_resized(space, layout) {
            return Ok((block, false));
        }
        let block = self.alloc_fresh(space, layout, Growth::Fixed)?;
        Ok((block, true))
    }

    /// Allocates a huge block at addresses of its own; it reads zero.
    pub(in crate::heap) fn alloc_fresh(
        &self,
        space: &mut Space,
        layout: Layout,
        growth: Growth,
    ) -> Result<NonNull<u8>, HeapError> {
        let place = self.reserve_huge(space, layout, growth)?;
        self.commit_huge(&place, 0)?;
        Ok(self.open_huge(space, &place, layout.size()))
    }

    /// Reserves addresses for a huge block.
    pub(in crate::heap) fn reserve_huge(
        &self,
        space: &mut Space,
        layout: Layout,
        growth: Growth,
    ) -> Result<Place, HeapError> {
        let invalid = HeapError::InvalidSize;
        let mut size = self.page.round_up(layout.size().max(1)).ok_or(invalid)?;
        let min_len = size.checked_next_multiple_of(GRANULE).ok_or(invalid)?;
        let slab = match space.spare_huge {
            Some(slab) => slab,
            None => slab::make(self.arena(), HUGE, CHUNK, Notes::Asked)?,
        };
        space.spare_huge = Some(slab);
        let room = space.spares.make_room(&space.huge, self.arena());
        room.map_err(HeapError::Metadata)?;
        let guard = self.guard_now(space);
        let wanted = match growth {
            Growth::Fixed => self.kept_ahead(space, min_len),
            Growth::Growing => self.with_headroom(min_len),
        };
        let align = layout.align().max(GRANULE);
        let request = Request::bytes(wanted).align(align).guards(guard, guard);
        let mut request = request.name(NAME);
        if min_len < wanted {
            request = request.at_least(min_len);
        }
        let mut whole = self.reserve_pages(&request).map_err(HeapError::Memory)?;
        let len = (whole.len_bytes() - 2 * guard) / GRANULE * GRANULE;
        let kept = len + 2 * guard;
        if let Some(rest) = whole.part(kept, whole.len_bytes() - kept, self.page) {
            // Less than a granule. An error wastes its addresses, and no more.
            let _ = self.release_range(rest);
            whole = whole.part(0, kept, self.page).ok_or(invalid)?;
        }
        if growth == Growth::Growing {
            size = committed_ahead(size, len);
        }
        Ok(Place {
            slab,
            whole,
            guard,
            len,
            size,
        })
    }

    /// Returns the bytes of addresses for a block that grows and needs `min_len` now.
    fn with_headroom(&self, min_len: usize) -> usize {
        let more = min_len.saturating_mul(AHEAD - 1).min(AHEAD_MOST);
        let ahead = reserve_ahead(&self.provider, min_len, min_len.saturating_add(more));
        // Where addresses are limited, still enough that the copies of a block that grows are
        // together no longer than a few times its last length.
        let half = (min_len / 2).min(AHEAD_MOST).next_multiple_of(GRANULE);
        (ahead / GRANULE * GRANULE).max(min_len.saturating_add(half))
    }

    /// Gives the block of a place memory from byte `from` on. If that fails, the place goes back.
    pub(in crate::heap) fn commit_huge(&self, place: &Place, from: usize) -> Result<(), HeapError> {
        let before = place.guard + from;
        let len = place.size.saturating_sub(from);
        let part = place.whole.part(before, len, self.page);
        let Some(part) = part else {
            return Ok(());
        };
        // SAFETY: reserved by `reserve_huge`, and not committed yet.
        if let Err(error) = unsafe { self.commit_pages(part, PageWish::Base) } {
            self.release_unless_lost(place.whole, part, error.kind());
            return Err(HeapError::Memory(error));
        }
        Ok(())
    }

    /// Makes a live block at a place that has memory.
    pub(in crate::heap) fn open_huge(
        &self,
        space: &mut Space,
        place: &Place,
        asked: usize,
    ) -> NonNull<u8> {
        let slab = place.slab;
        space.spare_huge = slab.next.get();
        let start = place.whole.start().as_ptr().wrapping_add(place.guard);
        let start = NonNull::new(start).unwrap_or(place.whole.start());
        space.gauges.reserved += place.whole.len_bytes();
        space.gauges.committed += place.size;
        slab.set_holes(0);
        let guards = u8::try_from(place.guard / GRANULE).unwrap_or(0);
        slab.open(start, place.len, false, guards);
        space.gauges.mappings += guards_of(slab);
        slab.resize(place.size, place.len);
        let range = Interval {
            start: place.whole.addr(),
            len: place.whole.len_bytes(),
            value: slab.exposed(),
        };
        space.huge.insert(&mut space.spares, range);
        self.enter_first(space, slab);
        self.make_live(space, slab, asked);
        start
    }

    /// Makes a huge block live that is there.
    pub(in crate::heap) fn make_live(&self, space: &mut Space, slab: Handle, asked: usize) {
        slab.set_asked(slab.only(), self.in_pages(asked));
        self.count_huge(self.counted(slab));
        space.gauges.huge_blocks += 1;
        self.count_guards(space, slab, true);
        slab.only().state().store(LIVE, Release);
    }

    /// Releases a range after an error of a call on `part` of it.
    pub(in crate::heap) fn release_unless_lost(
        &self,
        range: PageRange,
        part: PageRange,
        error: ErrorKind,
    ) {
        if error != ErrorKind::RangeLost {
            // An error wastes addresses and no more, here and below.
            let _ = self.release_range(range);
            return;
        }
        let before = part.addr() - range.addr();
        let behind = before + part.len_bytes();
        for (from, len) in [(0, before), (behind, range.len_bytes() - behind)] {
            if let Some(rest) = range.part(from, len, self.page) {
                let _ = self.release_range(rest);
            }
        }
    }

    /// Ends a call that made a huge block. Where a fork has replaced what the call began with, it
    /// is entered in what took its place, too.
    ///
    /// # Errors
    ///
    /// Where there is no metadata.
    pub(in crate::heap) fn carry_over(
        &self,
        space: Held<'_, Space, R>,
        block: NonNull<u8>,
    ) -> Result<(), HeapError> {
        let (before, era) = (space.huge, space.era);
        drop(space);
        if !self.is_replaced(era) {
            return Ok(());
        }
        let addr = block.addr().get();
        let Some(range) = before.find(addr) else {
            return Ok(());
        };
        let mut space = self.lock_space();
        let index = space.huge;
        if index.find(addr).is_some() {
            return Ok(());
        }
        let room = space.spares.make_room(&index, self.arena());
        room.map_err(HeapError::Metadata)?;
        index.insert(&mut space.spares, range);
        let slab = self.huge_of(range);
        space.count_huge(range.len, slab);
        if let Some(slab) = slab {
            self.count_guards(&mut space, slab, true);
        }
        self.carry_over(space, block)
    }
}
