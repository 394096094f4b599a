//! Huge blocks that were freed and are kept: for the next ones, or until they can be released.

use super::{
    Heap,
    class::GRANULE,
    large::Big,
    slab::{Handle, ZERO},
    space::{KEPT_BYTES, Space},
};
use crate::{provider::PageProvider, sync::RawMutex};
use core::{alloc::Layout, ptr::NonNull, sync::atomic::Ordering::Relaxed};

/// A block that was kept may serve for one that is so much smaller: an eighth.
const SLACK: usize = 8;

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Allocates a huge block that was kept and suits.
    pub(super) fn alloc_kept(&self, space: &mut Space, layout: Layout) -> Option<NonNull<u8>> {
        let size = self.page.round_up(layout.size().max(1))?;
        let slab = take_kept(space, size, layout.align())?;
        self.make_live(space, slab, layout.size());
        Some(slab.start())
    }

    /// Allocates a huge block that could not be released, and suits.
    pub(super) fn alloc_unreleased(&self, space: &mut Space, layout: Layout) -> Option<Big> {
        let size = self.page.round_up(layout.size().max(1))?;
        let slab = take_unreleased(space, size, layout.align())?;
        let zero = slab.only().state().load(Relaxed) == ZERO;
        if slab.holes() != 0 {
            space.gauges.committed += slab.block_bytes();
            slab.set_holes(0);
        }
        self.make_live(space, slab, layout.size());
        Some((slab.start(), zero))
    }

    /// Keeps a huge block that was freed for the next, if there is room; says whether there was.
    pub(super) fn keep(&self, space: &mut Space, slab: Handle) -> bool {
        let keep = slab.block_bytes() <= KEPT_BYTES
            && self.config.returns() != super::Return::Eager
            && !self.is_hard();
        let place = space.kept.iter().position(Option::is_none).filter(|_| keep);
        if let Some(place) = place {
            let len = slab.block_bytes().next_multiple_of(GRANULE);
            if len < slab.len_bytes() {
                // If the addresses cannot go, they are kept as well.
                self.cut_huge(space, slab, len);
            }
            space.kept[place] = Some((slab, false));
        }
        place.is_some()
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
}

/// Takes the kept huge block that fits best, if one does.
fn take_kept(space: &mut Space, size: usize, align: usize) -> Option<Handle> {
    let fits = |slab: Handle| suits(slab, size, align).then_some(slab.block_bytes());
    let of = |kept: &Option<(Handle, bool)>| kept.and_then(|(slab, _)| fits(slab));
    let best = space.kept.iter().filter_map(of).min()?;
    let place = space.kept.iter().position(|kept| of(kept) == Some(best))?;
    space.kept[place].take().map(|(slab, _)| slab)
}

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
