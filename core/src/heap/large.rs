//! Blocks without a class: *large* ones are granules of a segment, *huge* ones a reservation of the
//! provider each.

use super::{
    Heap,
    class::{CACHED_MAX, GRANULE, HUGE, LARGE},
    error::HeapError,
    slab::{self, FREED, Handle, LIVE, ZERO},
    space::{KEPT_BYTES, Space},
};
use crate::{
    page::PageRange,
    provider::{Error, ErrorKind, PageProvider, PageWish, Purged},
    sync::RawMutex,
};
use core::{
    alloc::Layout,
    ptr::NonNull,
    sync::atomic::Ordering::{Relaxed, Release},
};

/// The largest block that lies in a segment: larger ones would leave much of it unused.
const LARGE_MAX: usize = 1 << 20;

/// A block that was kept may serve for one that is so much smaller: an eighth.
const SLACK: usize = 8;

/// A block without a class, and whether it reads zero.
pub(super) type Big = (NonNull<u8>, bool);

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Allocates a block that no class serves.
    pub(super) fn alloc_big(&self, layout: Layout) -> Result<Big, HeapError> {
        let mut space = self.space.lock();
        if layout.size() <= LARGE_MAX && layout.align() <= GRANULE {
            self.alloc_large(&mut space, layout.size())
        } else {
            self.alloc_huge(&mut space, layout)
        }
    }

    fn alloc_large(&self, space: &mut Space, size: usize) -> Result<Big, HeapError> {
        let slab = match space.spare_large {
            Some(slab) => slab,
            None => slab::make(&self.arena, LARGE, CHUNK, self.is_hard())?,
        };
        space.spare_large = Some(slab);
        let count = size.div_ceil(GRANULE).max(1);
        let (start, zero) = self.take_granules(space, count, self.guard() / GRANULE)?;
        space.spare_large = slab.next.get();
        space.gauges.large += count * GRANULE;
        space.gauges.large_blocks += 1;
        Ok((
            self.open(slab, start, count * GRANULE, count * GRANULE),
            zero,
        ))
    }

    /// Makes a block of a descriptor.
    fn open(&self, slab: Handle, start: NonNull<u8>, len: usize, size: usize) -> NonNull<u8> {
        slab.open(start, len, false, 0);
        slab.resize(size, len);
        slab.only().state().store(LIVE, Release);
        self.map.set(slab.addr(), len, Some(slab));
        start
    }

    /// Allocates a block that no class serves from what is free and has memory.
    pub(super) fn alloc_at_hand(
        &self,
        space: &mut Space,
        layout: Layout,
    ) -> Result<Big, HeapError> {
        // Guards may need calls of the provider.
        if self.is_hard() {
            return Err(HeapError::Busy);
        }
        if layout.size() > LARGE_MAX || layout.align() > GRANULE {
            let size = self.page.round_up(layout.size().max(1));
            let size = size.ok_or(HeapError::InvalidSize)?;
            let slab = take_kept(space, size, layout.align()).ok_or(HeapError::Busy)?;
            return Ok((self.open_kept(space, slab), false));
        }
        let count = layout.size().div_ceil(GRANULE).max(1);
        let slab = space.spare_large.ok_or(HeapError::Busy)?;
        let (segment, part) = space.at_hand(count).ok_or(HeapError::Busy)?;
        let start = self.part_start(segment, &part)?;
        let zero = space.take(segment, part);
        space.spare_large = slab.next.get();
        space.gauges.large += count * GRANULE;
        space.gauges.large_blocks += 1;
        let len = count * GRANULE;
        Ok((self.open(slab, start, len, len), zero))
    }

    /// Makes a huge block that was kept live.
    fn open_kept(&self, space: &mut Space, slab: Handle) -> NonNull<u8> {
        slab.only().state().store(LIVE, Release);
        space.gauges.huge += slab.block_bytes();
        space.gauges.huge_blocks += 1;
        slab.start()
    }

    fn alloc_huge(&self, space: &mut Space, layout: Layout) -> Result<Big, HeapError> {
        let invalid = HeapError::InvalidSize;
        let size = self.page.round_up(layout.size().max(1)).ok_or(invalid)?;
        let len = size.checked_next_multiple_of(GRANULE).ok_or(invalid)?;
        if let Some(slab) = take_kept(space, size, layout.align()) {
            return Ok((self.open_kept(space, slab), false));
        }
        if let Some(slab) = take_unreleased(space, size, layout.align()) {
            return Ok(self.open_unreleased(space, slab));
        }
        let slab = match space.spare_huge {
            Some(slab) => slab,
            None => slab::make(&self.arena, HUGE, CHUNK, self.is_hard())?,
        };
        space.spare_huge = Some(slab);
        space.huge.make_room(&self.arena)?;
        let guard = self.guard();
        let range = self.reserve(space, len, layout.align().max(GRANULE), guard)?;
        let part = range.part(guard, size, self.page).ok_or(invalid)?;
        // SAFETY: reserved just now.
        if let Err(error) = unsafe { self.commit_pages(part, PageWish::Base) } {
            self.give_back_unless_lost(range, part, error.kind());
            return Err(HeapError::Memory(error));
        }
        space.spare_huge = slab.next.get();
        space.gauges.reserved += range.len_bytes();
        space.gauges.committed += size;
        space.gauges.huge += size;
        space.gauges.huge_blocks += 1;
        space.huge.insert(part.addr(), slab);
        if guard != 0 {
            self.map
                .set(range.addr(), range.len_bytes(), Some(self.nothing));
        }
        Ok((self.open(slab, part.start(), len, size), true))
    }

    /// Releases a range after an error of a call on `part` of it.
    fn give_back_unless_lost(&self, range: PageRange, part: PageRange, error: ErrorKind) {
        if error != ErrorKind::RangeLost {
            // An error wastes addresses and no more, here and below.
            let _ = self.give_back(range);
            return;
        }
        let before = part.addr() - range.addr();
        let behind = before + part.len_bytes();
        for (from, len) in [(0, before), (behind, range.len_bytes() - behind)] {
            if let Some(rest) = range.part(from, len, self.page) {
                let _ = self.give_back(rest);
            }
        }
    }

    /// Frees a block without a class, whose state says that it is live.
    pub(super) fn free_big(&self, slab: Handle) {
        let mut space = self.space.lock();
        // Somebody else may have freed it since it was looked at.
        if slab.only().state().swap(FREED, Relaxed) != LIVE {
            return;
        }
        if slab.is(LARGE) {
            space.gauges.large -= slab.len_bytes();
            space.gauges.large_blocks -= 1;
            let (addr, len) = (slab.addr(), slab.len_bytes());
            self.give_granules(&mut space, addr, len);
            if self.is_hard() {
                let guard = self.guard();
                self.give_granules(&mut space, addr - guard, guard);
                self.give_granules(&mut space, addr + len, guard);
            }
            slab.next.set(space.spare_large);
            space.spare_large = Some(slab);
            return;
        }
        space.gauges.huge -= slab.block_bytes();
        space.gauges.huge_blocks -= 1;
        let keep = slab.block_bytes() <= KEPT_BYTES
            && self.config.returns() != super::Return::Eager
            && !self.is_hard();
        let place = space.kept.iter().position(Option::is_none).filter(|_| keep);
        match place {
            Some(place) => space.kept[place] = Some((slab, false)),
            None => self.drop_huge(&mut space, slab),
        }
    }

    /// Releases a huge block that is free. If it cannot be, its memory goes back, and a later pass tries again.
    fn drop_huge(&self, space: &mut Space, slab: Handle) {
        if self.release_huge(space, slab).is_err() {
            slab.only().state().store(FREED, Relaxed);
            self.purge_huge(space, slab);
            slab.next.set(space.unreleased);
            space.unreleased = Some(slab);
        }
    }

    fn release_huge(&self, space: &mut Space, slab: Handle) -> Result<(), Error> {
        let range = self.whole(slab).ok_or(ErrorKind::InvalidArgument)?;
        // Before the addresses can be somebody else's.
        self.map.set(range.addr(), range.len_bytes(), None);
        if let Err(error) = self.give_back(range) {
            let nothing = Some(self.nothing);
            self.map.set(range.addr(), range.len_bytes(), nothing);
            return Err(error);
        }
        space.gauges.reserved -= range.len_bytes();
        if slab.holes() == 0 {
            space.gauges.committed -= slab.block_bytes();
        }
        slab.set_holes(0);
        space.huge.remove(slab.addr());
        slab.next.set(space.spare_huge);
        space.spare_huge = Some(slab);
        Ok(())
    }

    /// Gives the memory of a huge block back that could not be released, if it still has some.
    fn purge_huge(&self, space: &mut Space, slab: Handle) {
        let Some(range) = PageRange::new(slab.start(), slab.block_bytes(), self.page) else {
            return;
        };
        if slab.holes() != 0 {
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

    /// Releases huge blocks that could not be before, until one still cannot be.
    pub(super) fn release_unreleased(&self, space: &mut Space) {
        while let Some(slab) = space.unreleased {
            let rest = slab.next.get();
            if self.release_huge(space, slab).is_err() {
                break;
            }
            space.unreleased = rest;
        }
        for slab in unreleased(space) {
            self.purge_huge(space, slab);
        }
    }

    /// Releases all that the heap has for blocks, in use or not, for good; says whether to try again, since some could
    /// not be released, and some was.
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
                if range.is_some_and(|range| note(self.give_back(range).is_ok())) {
                    segment.forget(part.clone());
                }
                from = part.end;
            }
        }
        let rest = |slab: &&(usize, Handle)| slab.1.holes() != RELEASED;
        for (_, slab) in space.huge.all().iter().filter(rest) {
            let range = self.whole(*slab);
            if range.is_some_and(|range| note(self.give_back(range).is_ok())) {
                slab.set_holes(RELEASED);
            }
        }
        some && !all
    }

    /// Makes a huge block that could not be released live.
    fn open_unreleased(&self, space: &mut Space, slab: Handle) -> Big {
        let zero = slab.only().state().load(Relaxed) == ZERO;
        if slab.holes() != 0 {
            space.gauges.committed += slab.block_bytes();
            slab.set_holes(0);
        }
        space.gauges.huge += slab.block_bytes();
        space.gauges.huge_blocks += 1;
        let (len, size) = (slab.len_bytes(), slab.block_bytes());
        (self.open(slab, slab.start(), len, size), zero)
    }

    /// Releases huge blocks that are kept: all, or those that were before the last tick.
    pub(super) fn drop_kept(&self, space: &mut Space, only_aged: bool) {
        for place in 0..space.kept.len() {
            match &mut space.kept[place] {
                Some((_, aged)) if only_aged && !*aged => *aged = true,
                kept => {
                    if let Some((slab, _)) = kept.take() {
                        self.drop_huge(space, slab);
                    }
                }
            }
        }
    }

    /// Releases one huge block that is kept: the least that has `wanted` bytes, or the largest; returns how
    /// many it had, none where none is kept.
    pub(super) fn drop_one_kept(&self, space: &mut Space, wanted: usize) -> usize {
        let bytes = |kept: &Option<(Handle, bool)>| kept.map(|(slab, _)| slab.block_bytes());
        let all = || space.kept.iter().filter_map(bytes);
        let best = all().filter(|n| *n >= wanted).min().or(all().max());
        let place = space.kept.iter().position(|kept| bytes(kept) == best);
        match place.and_then(|place| space.kept[place].take()) {
            Some((slab, _)) => {
                self.drop_huge(space, slab);
                slab.block_bytes()
            }
            None => 0,
        }
    }

    /// Makes a block that no class serves, and that is live, longer or shorter where it lies; says
    /// whether that was possible. A block is not made shorter by less than half for nothing.
    pub(super) fn resize_big(&self, slab: Handle, size: usize) -> bool {
        let old = slab.block_bytes();
        if slab.is(HUGE) {
            return size <= old && size > old / 2;
        }
        let (Some(new), true) = (size.checked_next_multiple_of(GRANULE), size > CACHED_MAX) else {
            return false;
        };
        if new > LARGE_MAX {
            return false;
        }
        let mut space = self.space.lock();
        let behind = slab.addr() + old.min(new);
        if new < old {
            slab.resize(new, new);
            self.give_granules(&mut space, behind, old - new);
        } else if new > old {
            if !self.take_behind(&mut space, behind, (new - old) / GRANULE) {
                return false;
            }
            slab.resize(new, new);
            self.map.set(behind, new - old, Some(slab));
        }
        space.gauges.large = space.gauges.large + new - old;
        true
    }
}

/// Descriptors that are made at once.
const CHUNK: usize = 8;

/// Takes the kept huge block that fits best, if one does.
fn take_kept(space: &mut Space, size: usize, align: usize) -> Option<Handle> {
    let fits = |slab: Handle| suits(slab, size, align).then_some(slab.block_bytes());
    let of = |kept: &Option<(Handle, bool)>| kept.and_then(|(slab, _)| fits(slab));
    let best = space.kept.iter().filter_map(of).min()?;
    let place = space.kept.iter().position(|kept| of(kept) == Some(best))?;
    space.kept[place].take().map(|(slab, _)| slab)
}

/// The holes of a huge block whose memory went back.
const PURGED: u64 = 1;

/// The holes of one whose addresses went back, when the heap is dropped.
const RELEASED: u64 = 2;

/// Yields the huge blocks that could not be released.
pub(super) fn unreleased(space: &Space) -> impl Iterator<Item = Handle> + use<> {
    core::iter::successors(space.unreleased, |slab| slab.next.get())
}

/// Takes the first huge block that could not be released, and suits, out of their list.
fn take_unreleased(space: &mut Space, size: usize, align: usize) -> Option<Handle> {
    let found = unreleased(space).find(|slab| suits(*slab, size, align))?;
    let before = unreleased(space).find(|slab| slab.next.get() == Some(found));
    match before {
        Some(before) => before.next.set(found.next.get()),
        None => space.unreleased = found.next.get(),
    }
    Some(found)
}

/// Says whether a huge block that is there serves for another one.
fn suits(slab: Handle, size: usize, align: usize) -> bool {
    let bytes = slab.block_bytes();
    bytes >= size && bytes - bytes / SLACK <= size && slab.addr().is_multiple_of(align)
}
