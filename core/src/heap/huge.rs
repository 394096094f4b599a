//! Huge blocks: a reservation of the provider each.
//!
//! ```text
//!   guard │ size: committed, and the block's │ committed │ addresses only │ guard
//!         │                                  └───────── headroom ─────────┤
//!         └────────────── len ────────────────────────────────────────────┘
//! ```
//!
//! Guards are there at the highest level of hardening, headroom is behind blocks that grew. Some of
//! it is committed where a kept block serves for one that grows: until that needs it, or a tick
//! takes it.

use super::{
    Heap, NAME,
    class::{GRANULE, HUGE},
    error::HeapError,
    large::{Big, CHUNK, Growth},
    parts::Held,
    slab::{self, FREED, Handle, LIVE, Notes, ZERO},
    space::Space,
};
use crate::{
    intervals::Interval,
    page::PageRange,
    provider::{Error, ErrorKind, PageProvider, PageWish, Purged, Request, reserve_ahead},
    sync::RawMutex,
};
use core::{
    alloc::Layout,
    ptr::NonNull,
    sync::atomic::Ordering::{Relaxed, Release},
};

/// A block that grows gets so many times its size of addresses where they are not limited, so that
/// it moves a few times only until it has all that a host gives.
const AHEAD: usize = 8;

/// Bytes of addresses that it gets beyond its size at most: 64 GiB, or 256 MiB where addresses have
/// 32 bits.
const AHEAD_MOST: usize = 1 << (20 + usize::BITS / 4);

/// A block that grows is committed by an eighth more than it needs, so that a call of the provider
/// comes once in many steps; what is not written takes no memory.
const COMMITTED_AHEAD: usize = 8;

/// The holes of a huge block whose memory went back, or away.
pub(super) const PURGED: u64 = 1;

/// The holes of one whose addresses went back, when the heap is dropped.
const RELEASED: u64 = 2;

/// Bits of the holes of a huge block that are not where its memory ends: less than a page.
const FLAGS: u64 = PURGED | RELEASED;

/// Returns where the memory of a huge block ends, by its start: with that in its headroom. The lock
/// of the granules is held.
pub(super) fn backed(slab: Handle) -> usize {
    let backed = usize::try_from(slab.holes() & !FLAGS).unwrap_or(0);
    backed.max(slab.block_bytes())
}

/// Returns how many bytes of its headroom have memory. The lock of the granules is held.
pub(super) fn ahead(slab: Handle) -> usize {
    backed(slab) - slab.block_bytes()
}

/// Says whether the memory of a huge block went back, or away. The lock of the granules is held.
pub(super) fn is_hole(slab: Handle) -> bool {
    slab.holes() & FLAGS != 0
}

/// Returns how many mappings the guards of a huge block cost.
pub(super) fn guards_of(slab: Handle) -> usize {
    2 * slab.shard()
}

/// Addresses for a huge block, guards included, and the descriptor that is to have them.
pub(super) struct Place {
    pub(super) slab: Handle,
    pub(super) whole: PageRange,
    /// Bytes of each of the guards.
    pub(super) guard: usize,
    /// Bytes between the guards.
    pub(super) len: usize,
    /// Bytes that the block gets memory for.
    pub(super) size: usize,
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    pub(super) fn alloc_huge(&self, space: &mut Space, layout: Layout) -> Result<Big, HeapError> {
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
    pub(super) fn alloc_fresh(
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
    pub(super) fn reserve_huge(
        &self,
        space: &mut Space,
        layout: Layout,
        growth: Growth,
    ) -> Result<Place, HeapError> {
        let invalid = HeapError::InvalidSize;
        let mut size = self.page.round_up(layout.size().max(1)).ok_or(invalid)?;
        let least = size.checked_next_multiple_of(GRANULE).ok_or(invalid)?;
        let slab = match space.spare_huge {
            Some(slab) => slab,
            None => slab::make(self.arena(), HUGE, CHUNK, Notes::Asked)?,
        };
        space.spare_huge = Some(slab);
        let room = space.spares.make_room(&space.huge, self.arena());
        room.map_err(HeapError::Metadata)?;
        let guard = self.guard_now(space);
        let wanted = match growth {
            Growth::Fixed => self.kept_ahead(space, least),
            Growth::Growing => self.with_headroom(least),
        };
        let align = layout.align().max(GRANULE);
        let request = Request::bytes(wanted).align(align).guards(guard, guard);
        let mut request = request.name(NAME);
        if least < wanted {
            request = request.at_least(least);
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

    /// Returns the bytes of addresses for a block that grows and needs `least` now.
    fn with_headroom(&self, least: usize) -> usize {
        let more = least.saturating_mul(AHEAD - 1).min(AHEAD_MOST);
        let ahead = reserve_ahead(&self.provider, least, least.saturating_add(more));
        // Where addresses are limited, still so many that the copies of a block that grows are
        // together no longer than a few times its last length.
        let half = (least / 2).min(AHEAD_MOST).next_multiple_of(GRANULE);
        (ahead / GRANULE * GRANULE).max(least.saturating_add(half))
    }

    /// Gives the block of a place memory from byte `from` on. If that fails, the place goes back.
    pub(super) fn commit_huge(&self, place: &Place, from: usize) -> Result<(), HeapError> {
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
    pub(super) fn open_huge(&self, space: &mut Space, place: &Place, asked: usize) -> NonNull<u8> {
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

    /// Enters where a huge block starts in the page map, if that costs little.
    fn enter_first(&self, space: &mut Space, slab: Handle) {
        let (leaves, addr) = (&mut space.leaves, slab.addr());
        self.map
            .set_first(&self.metadata, leaves, self.arena(), addr, slab);
    }

    /// Makes a huge block live that is there.
    pub(super) fn make_live(&self, space: &mut Space, slab: Handle, asked: usize) {
        slab.set_asked(slab.only(), self.in_pages(asked));
        self.count_huge(self.counted(slab));
        space.gauges.huge_blocks += 1;
        self.count_guards(space, slab, true);
        slab.only().state().store(LIVE, Release);
    }

    /// Changes how long a huge block is that has memory, and where that ends.
    pub(super) fn set_huge(
        &self,
        space: &mut Space,
        slab: Handle,
        size: usize,
        len: usize,
        backed: usize,
    ) {
        let before = ahead(slab);
        let backed = if backed > size { backed as u64 } else { 0 };
        // What a child of a fork finds between the two is no more than there is.
        slab.set_holes(backed);
        slab.resize(size, len);
        space.gauges.ahead = space.gauges.ahead.saturating_sub(before) + ahead(slab);
    }

    /// Takes the memory in the headroom of a huge block; says whether it went, if there was some.
    pub(super) fn drop_ahead(&self, space: &mut Space, slab: Handle) -> bool {
        let (size, len, end) = (slab.block_bytes(), slab.len_bytes(), backed(slab));
        let whole = self.whole(slab).filter(|_| end > size);
        let Some(rest) = whole.and_then(|whole| whole.part(size, end - size, self.page)) else {
            return true;
        };
        // Before the memory goes.
        self.set_huge(space, slab, size, len, size);
        // SAFETY: committed behind what is the block's.
        if unsafe { self.decommit_pages(rest) }.is_err() {
            self.set_huge(space, slab, size, len, end);
            return false;
        }
        space.gauges.committed -= rest.len_bytes();
        true
    }

    /// Takes the memory in the headroom of all huge blocks, or of those that have needed none of it
    /// between two ticks; returns how many bytes went.
    pub(super) fn drop_all_ahead(&self, space: &mut Space, only_aged: bool) -> usize {
        let before = space.gauges.ahead;
        if before == 0 {
            return 0;
        }
        let now = self.ticks.load(Relaxed);
        for slab in self.all_huge() {
            if ahead(slab) != 0 && !(only_aged && slab.is_recent(now)) {
                self.drop_ahead(space, slab);
            }
        }
        before - space.gauges.ahead
    }

    /// Returns how many bytes of a huge block may be used: what was asked for in whole pages, not
    /// what it has memory for ahead of its growth.
    #[inline]
    pub(super) fn in_pages(&self, asked: usize) -> usize {
        self.page.round_up(asked.max(1)).unwrap_or(asked)
    }

    /// Notes what is asked for of a live huge block.
    pub(super) fn set_usable(&self, slab: Handle, asked: usize) {
        let before = self.counted(slab);
        slab.set_asked(slab.only(), self.in_pages(asked));
        self.count_huge(self.counted(slab).wrapping_sub(before));
    }

    /// Returns the bytes that statistics count of a live huge block.
    pub(super) fn counted(&self, slab: Handle) -> usize {
        let size = slab.block_bytes();
        if self.is_hardened() {
            // What was asked for is not in whole pages.
            return size;
        }
        slab.usable(slab.addr(), size)
    }

    /// Counts bytes of live huge blocks, less ones as numbers that wrap around.
    pub(super) fn count_huge(&self, more: usize) {
        if more != 0 {
            self.huge_bytes.fetch_add(more, Relaxed);
        }
    }

    /// Returns the huge block whose reservation is around an address, any address at all.
    pub(super) fn huge_at(&self, addr: usize) -> Option<Handle> {
        self.huge_of(self.parts().huge.find(addr)?)
    }

    /// Returns the first huge block whose reservation ends above an address, and that.
    pub(super) fn next_huge(&self, addr: usize) -> Option<(Interval, Handle)> {
        let found = self.parts().huge.next(addr)?;
        Some((found, self.huge_of(found)?))
    }

    /// Yields all huge blocks. The lock of the granules is held, and none comes or goes meanwhile.
    pub(super) fn all_huge(&self) -> impl Iterator<Item = Handle> {
        let step = |from: Option<usize>| {
            let (range, slab) = self.next_huge(from?)?;
            Some((slab, range.start.checked_add(range.len)))
        };
        let first = step(Some(0));
        core::iter::successors(first, move |(_, from)| step(*from)).map(|(slab, _)| slab)
    }

    /// Enters the reservation of a huge block again, after its length has changed.
    pub(super) fn enter_huge(&self, space: &mut Space, slab: Handle) {
        if let Some(whole) = self.whole(slab) {
            let (start, len) = (whole.addr(), whole.len_bytes());
            let number = slab.exposed();
            space.huge.change(&mut space.spares, start, len, number);
        }
    }

    /// Releases a range after an error of a call on `part` of it.
    pub(super) fn release_unless_lost(&self, range: PageRange, part: PageRange, error: ErrorKind) {
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

    /// Ends a call that made a huge block. Where a fork has replaced what the call began with, it is
    /// entered in what took its place, too.
    ///
    /// # Errors
    ///
    /// Where there is no metadata.
    pub(super) fn carry_over(
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

    /// Returns the huge block of an entry of the index.
    pub(super) fn huge_of(&self, entry: Interval) -> Option<Handle> {
        // SAFETY: `open_huge` stored what `Handle::exposed` returned, and zero stands for none; the
        // heap is there.
        unsafe { Handle::from_exposed(entry.value) }
    }

    /// Frees a huge block whose state says that it is free.
    pub(super) fn free_huge(&self, space: &mut Space, slab: Handle) {
        let used = self.counted(slab);
        self.count_huge(0_usize.wrapping_sub(used));
        space.gauges.huge_blocks = space.gauges.huge_blocks.saturating_sub(1);
        self.count_guards(space, slab, false);
        if ahead(slab) != 0 {
            let end = backed(slab);
            self.set_huge(space, slab, end, slab.len_bytes(), end);
        }
        if !self.keep(space, slab, used) {
            self.wait_big(space, slab);
        }
    }

    /// Releases a huge block that is free. If it cannot be, its memory goes back, and a later pass
    /// tries again.
    pub(super) fn drop_huge(&self, space: &mut Space, slab: Handle) {
        if self.release_huge(space, slab).is_err() {
            slab.only().state().store(FREED, Relaxed);
            self.purge_huge(space, slab);
            space.kept.push_unreleased(slab);
        }
    }

    /// Releases addresses that an index of huge blocks told of until now. A forked child may have
    /// a copy that still does.
    fn release_claimed(&self, space: &Space, range: PageRange) -> Result<(), Error> {
        if self.is_replaced(space.era) {
            return Err(ErrorKind::Unsupported.into());
        }
        self.release_range(range)
    }

    pub(super) fn release_huge(&self, space: &mut Space, slab: Handle) -> Result<(), Error> {
        let range = self.whole(slab).ok_or(ErrorKind::InvalidArgument)?;
        // Before the addresses can be somebody else's; it keeps its place, so that this can be
        // undone.
        self.map.unset_first(slab.addr());
        space.huge.change(&mut space.spares, range.addr(), 0, 0);
        if let Err(error) = self.release_claimed(space, range) {
            self.enter_huge(space, slab);
            self.enter_first(space, slab);
            return Err(error);
        }
        space.huge.remove(&mut space.spares, range.addr());
        space.gauges.mappings = space.gauges.mappings.saturating_sub(guards_of(slab));
        space.gauges.reserved -= range.len_bytes();
        if !is_hole(slab) {
            space.gauges.committed -= slab.block_bytes();
        }
        slab.set_holes(0);
        slab.next.set(space.spare_huge);
        space.spare_huge = Some(slab);
        Ok(())
    }

    /// Gives the memory of a huge block back that could not be released, if it still has some.
    pub(super) fn purge_huge(&self, space: &mut Space, slab: Handle) {
        let Some(range) = PageRange::new(slab.start(), slab.block_bytes(), self.page) else {
            return;
        };
        if is_hole(slab) {
            return;
        }
        // SAFETY: committed as a whole when the block was made; it is free.
        match unsafe { self.purge_pages(range) } {
            Ok(Purged::Zero) => slab.only().state().store(ZERO, Relaxed),
            Ok(Purged::ZeroOrOld) => {}
            // The next pass tries again.
            Ok(Purged::Kept) | Err(_) => return,
        }
        slab.set_holes(PURGED);
        space.gauges.committed -= slab.block_bytes();
    }

    /// Gives back the addresses behind a huge block from byte `len` of it on, and the memory that
    /// they have; says whether they went.
    pub(super) fn cut_huge(&self, space: &mut Space, slab: Handle, len: usize) -> bool {
        let (old_size, old_len) = (slab.block_bytes(), slab.len_bytes());
        let (old_end, end) = (backed(slab), backed(slab).min(len));
        let Some(whole) = self.whole(slab).filter(|_| self.guard_of(slab) == 0) else {
            return false;
        };
        let Some(rest) = whole.part(len, old_len.saturating_sub(len), self.page) else {
            return false;
        };
        // Before the addresses can be somebody else's.
        self.set_huge(space, slab, old_size.min(len), len, end);
        self.enter_huge(space, slab);
        if self.release_claimed(space, rest).is_err() {
            self.set_huge(space, slab, old_size, old_len, old_end);
            self.enter_huge(space, slab);
            return false;
        }
        space.gauges.reserved -= rest.len_bytes();
        space.gauges.committed -= old_end - end;
        true
    }

    /// Gives the addresses that huge blocks could grow into back; says whether there were any.
    pub(super) fn drop_headroom(&self, space: &mut Space) -> bool {
        let mut some = false;
        for slab in self.all_huge() {
            let len = slab.block_bytes().next_multiple_of(GRANULE);
            some |= len < slab.len_bytes() && self.cut_huge(space, slab, len);
        }
        some
    }

    /// Releases all that the heap has for blocks, in use or not, for good; says whether to try
    /// again, since some could not be released, and some was.
    pub(super) fn release_all(&self, space: &mut Space) -> bool {
        let (mut some, mut all) = (false, true);
        let mut note = |released: bool| {
            some |= released;
            all &= released;
            released
        };
        for (_, segment) in space.segments.all() {
            let mut from = 0;
            while let Some(part) = segment.kept(from) {
                let range = segment.range(&part, self.page);
                if range.is_some_and(|range| note(self.release_range(range).is_ok())) {
                    segment.forget(part.clone());
                }
                from = part.end;
            }
        }
        for slab in self.all_huge().filter(|slab| slab.holes() != RELEASED) {
            let range = self.whole(slab);
            if range.is_some_and(|range| note(self.release_range(range).is_ok())) {
                slab.set_holes(RELEASED);
            }
        }
        some && !all
    }
}

/// Returns how many bytes a block that grows and needs `size` is given memory for, of `len`.
pub(super) const fn committed_ahead(size: usize, len: usize) -> usize {
    let ahead = size.saturating_add(size / COMMITTED_AHEAD);
    match ahead.checked_next_multiple_of(GRANULE) {
        Some(ahead) if ahead < len => ahead,
        _ => len,
    }
}
