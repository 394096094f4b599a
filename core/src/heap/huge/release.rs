//! How a huge block is freed, and its addresses go back.

use super::{PURGED, RELEASED, ahead, backed, guards_of, is_hole};
use crate::{
    heap::{
        Heap,
        class::GRANULE,
        slab::{FREED, Handle, ZERO},
        space::Space,
    },
    page::PageRange,
    provider::{Error, ErrorKind, PageProvider, Purged},
    sync::RawMutex,
};
use core::sync::atomic::Ordering::Relaxed;

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Frees a huge block whose state says that it is free.
    pub(in crate::heap) fn free_huge(&self, space: &mut Space, slab: Handle) {
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
    pub(in crate::heap) fn drop_huge(&self, space: &mut Space, slab: Handle) {
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

    pub(in crate::heap) fn release_huge(
        &self,
        space: &mut Space,
        slab: Handle,
    ) -> Result<(), Error> {
        let range = self.whole(slab).ok_or(ErrorKind::InvalidArgument)?;
        // Before the addresses can be others'; it keeps its place, so that this can be
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
    pub(in crate::heap) fn purge_huge(&self, space: &mut Space, slab: Handle) {
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
    pub(in crate::heap) fn cut_huge(&self, space: &mut Space, slab: Handle, len: usize) -> bool {
        let (old_size, old_len) = (slab.block_bytes(), slab.len_bytes());
        let (old_end, end) = (backed(slab), backed(slab).min(len));
        let Some(whole) = self.whole(slab).filter(|_| self.guard_of(slab) == 0) else {
            return false;
        };
        let Some(rest) = whole.part(len, old_len.saturating_sub(len), self.page) else {
            return false;
        };
        // Before the addresses can be others'.
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
    pub(in crate::heap) fn drop_headroom(&self, space: &mut Space) -> bool {
        let mut some = false;
        for slab in self.all_huge() {
            let len = slab.block_bytes().next_multiple_of(GRANULE);
            some |= len < slab.len_bytes() && self.cut_huge(space, slab, len);
        }
        some
    }

    /// Releases all that the heap has for blocks, in use or not, for good; says whether to try
    /// again, since some could not be released, and some was.
    pub(in crate::heap) fn release_all(&self, space: &mut Space) -> bool {
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
