//! How blocks without a class become longer or shorter.
//!
//! ```text
//!   a large block   takes the granules behind it, or moves to where as many are free behind it
//!   a huge one      gets memory in its headroom, or moves to addresses with more of it: its pages
//!                   where the host can move them, else as many bytes as were asked for
//! ```
//!
//! Headroom grows with the block, and so does what is committed at once, so that the calls and
//! copies of a block that grows step by step are few beside the steps, however small those are.

use super::{
    Heap,
    class::{CACHED_MAX, GRANULE, HUGE},
    error::HeapError,
    huge::{ahead, backed, committed_ahead},
    large::{Growth, LARGE_MAX},
    shared::move_by,
    slab::{FREED, Handle, LIVE},
    space::Space,
};
use crate::{
    page::PageRange,
    provider::{Capabilities, Error, ErrorKind, PageProvider, PageWish},
    sync::RawMutex,
};
use core::{
    alloc::Layout,
    ptr::NonNull,
    sync::atomic::Ordering::{AcqRel, Relaxed, Release},
};

/// A block stays as it is while it uses three quarters of what it has.
const SLACK: usize = 4;

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Makes a block that no class serves, and that is live, longer or shorter where it lies; says
    /// whether that was possible.
    pub(super) fn resize_big(&self, slab: Handle, size: usize) -> bool {
        if self.stays_big(slab, size) {
            return true;
        }
        if !slab.is(HUGE) {
            return self.resize_large(slab, size);
        }
        let stays = self.resize_huge(slab, size);
        if stays {
            self.set_usable(slab, size);
        }
        stays
    }

    /// As [`Heap::resize_big`], if nothing has to be done for it.
    #[inline]
    pub(super) fn stays_big(&self, slab: Handle, size: usize) -> bool {
        let old = slab.block_bytes();
        let stays = size <= old && size > old - old / SLACK;
        if stays && slab.is(HUGE) && slab.usable_by(0, 0) != self.in_pages(size) {
            self.set_usable(slab, size);
        }
        stays
    }

    fn resize_large(&self, slab: Handle, size: usize) -> bool {
        let old = slab.block_bytes();
        let (Some(new), true) = (size.checked_next_multiple_of(GRANULE), size > CACHED_MAX) else {
            return false;
        };
        if new > LARGE_MAX {
            return false;
        }
        let mut space = self.lock_space();
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
        space.gauges.large = (space.gauges.large + new).saturating_sub(old);
        true
    }

    fn resize_huge(&self, slab: Handle, size: usize) -> bool {
        let old = slab.block_bytes();
        if size <= LARGE_MAX {
            // A block of another kind takes less.
            return false;
        }
        let Some(need) = self.page.round_up(size) else {
            return false;
        };
        let len = slab.len_bytes();
        if need > len {
            return false;
        }
        let mut space = self.lock_space();
        if need > old {
            let more = committed_ahead(need, len);
            self.extend_huge(&mut space, slab, more) || self.extend_huge(&mut space, slab, need)
        } else {
            let Some(kept) = need.checked_next_multiple_of(GRANULE) else {
                return false;
            };
            if !self.cut_huge(&mut space, slab, kept) {
                // A host at its limit of mappings cannot split one, but takes the memory.
                self.purge_behind(slab, need);
            }
            true
        }
    }

    /// Gives a huge block memory in its headroom; says whether there was some.
    pub(super) fn extend_huge(&self, space: &mut Space, slab: Handle, size: usize) -> bool {
        let (old, len) = (backed(slab), slab.len_bytes());
        slab.set_taken_at(self.ticks.load(Relaxed));
        if size <= old {
            self.set_huge(space, slab, size, len, old);
            return true;
        }
        let part = self
            .whole(slab)
            .and_then(|whole| whole.part(old, size - old, self.page));
        let Some(part) = part.filter(|_| self.guard_of(slab) == 0) else {
            return false;
        };
        // SAFETY: reserved with the block, behind what is committed.
        if let Err(error) = unsafe { self.commit_pages(part, PageWish::Base) } {
            if error.kind() == ErrorKind::RangeLost {
                self.lose_headroom(space, slab);
            }
            return false;
        }
        space.gauges.committed += part.len_bytes();
        self.set_huge(space, slab, size, len, size);
        true
    }

    /// Forgets addresses behind a huge block that are others' now, as a whole: which ones
    /// those are is not known.
    fn lose_headroom(&self, space: &mut Space, slab: Handle) {
        let (size, len) = (slab.block_bytes(), slab.len_bytes());
        let kept = size.next_multiple_of(GRANULE);
        // Memory that it had there may be others' as well.
        space.gauges.committed -= ahead(slab);
        self.set_huge(space, slab, size, kept, size);
        self.enter_huge(space, slab);
        space.gauges.reserved -= len - kept;
    }

    /// Gives the memory of a huge block from byte `from` on back, which is not needed any more.
    fn purge_behind(&self, slab: Handle, from: usize) {
        let whole = PageRange::new(slab.start(), slab.block_bytes(), self.page);
        let rest = whole.and_then(|whole| {
            let len = slab.block_bytes().saturating_sub(from);
            whole.part(from, len, self.page)
        });
        if let Some(rest) = rest {
            // SAFETY: committed as part of the block, whose user has given it up. An error leaves
            // it as it is.
            let _ = unsafe { self.purge_pages(rest) };
        }
    }

    /// Moves a block to one without a class that is longer; then `free` frees it, unless its pages
    /// went along.
    ///
    /// # Errors
    ///
    /// Where there is no memory; the block stays as it is.
    ///
    /// # Safety
    ///
    /// Those of [`Heap::realloc_by`]; the block is live.
    #[cold]
    pub(super) unsafe fn grow_by(
        &self,
        block: NonNull<u8>,
        layout: Layout,
        new: Layout,
        free: impl FnOnce() -> Result<(), HeapError>,
    ) -> Result<NonNull<u8>, HeapError> {
        self.maintain();
        let (slab, _) = self.live_at(block.addr().get())?;
        let attempt = || self.place_grown(slab, new);
        let grown = attempt().or_else(|error| {
            if self.reclaim(error) {
                attempt()
            } else {
                Err(error)
            }
        })?;
        self.requested.fetch_add(new.size() as u64, Relaxed);
        match grown {
            Grown::Moved(target) => Ok(target),
            // SAFETY: `move_by` asks for a live block that is as long as `layout` says, which the
            // caller promises; the target is a live block of the new layout that only this call
            // knows.
            Grown::Empty(target) => unsafe { move_by(block, layout, new, |_| Ok(target), free) },
        }
    }

    /// Finds a place for a live block that grows, and moves its pages there if the host can.
    fn place_grown(&self, slab: Handle, new: Layout) -> Result<Grown, HeapError> {
        let mut space = self.lock_space();
        if new.size() <= LARGE_MAX && new.align() <= GRANULE {
            let (block, _) = self.alloc_large(&mut space, new.size(), Growth::Growing)?;
            return Ok(Grown::Empty(block));
        }
        let grown = self.place_huge(&mut space, slab, new)?;
        let (Grown::Moved(block) | Grown::Empty(block)) = grown;
        self.carry_over(space, block)?;
        Ok(grown)
    }

    fn place_huge(&self, space: &mut Space, slab: Handle, new: Layout) -> Result<Grown, HeapError> {
        let moves = self
            .provider
            .capabilities()
            .contains(Capabilities::MOVE_PAGES);
        let grown = if slab.is(HUGE) && moves {
            self.move_huge(space, slab, new)
        } else if let Some(block) = self.alloc_kept_to_grow(space, new) {
            Ok(Grown::Empty(block))
        } else if slab.is(HUGE) {
            self.move_huge(space, slab, new)
        } else {
            let block = self.alloc_fresh(space, new, Growth::Growing);
            block.map(Grown::Empty)
        };
        match grown {
            // There may be room for the block and no more, or for no mapping that has two kinds of
            // pages.
            Err(HeapError::Memory(error)) if error.kind() == ErrorKind::Exhausted => {
                let (block, _) = self.alloc_huge(space, new)?;
                Ok(Grown::Empty(block))
            }
            grown => grown,
        }
    }

    /// Moves the pages of a huge block to addresses that leave room behind it, or makes an empty
    /// block there.
    fn move_huge(&self, space: &mut Space, old: Handle, new: Layout) -> Result<Grown, HeapError> {
        let place = self.reserve_huge(space, new, Growth::Growing)?;
        let size = old.block_bytes();
        let from = PageRange::new(old.start(), size, self.page);
        let to = place.whole.part(0, size, self.page);
        let (Some(from), Some(to)) = (from, to) else {
            // An error wastes addresses and no more.
            let _ = self.release_range(place.whole);
            return Err(HeapError::InvalidSize);
        };
        // Headroom that the block has not grown into would stay behind. If it cannot go, it goes
        // with the addresses.
        self.drop_ahead(space, old);
        // Steps that can fail come first, so that nothing has to be moved back.
        self.commit_huge(&place, size)?;
        // Given up before the pages go: a child of a fork keeps what is claimed.
        let live = old.only();
        let given = live
            .state()
            .compare_exchange(LIVE, FREED, AcqRel, Relaxed)
            .is_ok();
        if !given {
            // Another call freed it meanwhile.
            let _ = self.release_range(place.whole);
            return Err(HeapError::NotLive);
        }
        // SAFETY: the block's pages, all committed, and as many that were reserved just now; its
        // user waits for this call.
        match unsafe { self.move_pages(from, to) } {
            Ok(()) => {
                self.count_huge(0_usize.wrapping_sub(self.counted(old)));
                space.gauges.huge_blocks = space.gauges.huge_blocks.saturating_sub(1);
                // They are counted with the new block.
                space.gauges.committed -= backed(old);
                self.set_huge(space, old, 0, old.len_bytes(), 0);
                let block = self.open_huge(space, &place, new.size());
                self.drop_huge(space, old);
                Ok(Grown::Moved(block))
            }
            Err(error) => {
                live.state().store(LIVE, Release);
                self.fill_instead(space, &place, to, new, error)
            }
        }
    }

    /// Makes an empty block where pages could not be moved to.
    fn fill_instead(
        &self,
        space: &mut Space,
        place: &super::huge::Place,
        to: PageRange,
        new: Layout,
        error: Error,
    ) -> Result<Grown, HeapError> {
        if error.kind() != ErrorKind::Unsupported {
            self.release_unless_lost(place.whole, to, error.kind());
            return Err(HeapError::Memory(error));
        }
        // SAFETY: reserved just now, and not committed: nothing was moved there.
        if let Err(error) = unsafe { self.commit_pages(to, PageWish::Base) } {
            self.release_unless_lost(place.whole, to, error.kind());
            return Err(HeapError::Memory(error));
        }
        Ok(Grown::Empty(self.open_huge(space, place, new.size())))
    }
}

/// The new place of a block that grows, and whether it has the contents.
enum Grown {
    /// Its pages are here now.
    Moved(NonNull<u8>),
    /// It is to be copied here.
    Empty(NonNull<u8>),
}
