//! How blocks are kept, and released again.

use super::{BINS, Demand, LEAST, PART, RESIZED};
use crate::{
    heap::{Heap, class::GRANULE, slab::Handle, space::Space},
    page::PageRange,
    provider::PageProvider,
    sync::RawMutex,
};
use core::sync::atomic::Ordering::Relaxed;

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Keeps a huge block that was freed for the next, of which so much was used; says whether it
    /// did.
    pub(in crate::heap) fn keep(&self, space: &mut Space, slab: Handle, used: usize) -> bool {
        let most = self.most_kept(space).saturating_sub(space.gauges.ahead);
        if used > most || self.config.returns() == crate::heap::Return::Eager || self.is_full() {
            return false;
        }
        // Memory that it had ahead of its growth may be too much.
        if slab.block_bytes() > most && !self.shorten_huge(space, slab, most) {
            return false;
        }
        let bytes = slab.block_bytes();
        while space.kept.bytes > most - bytes
            && let Some(other) = space.kept.take_any()
        {
            self.drop_huge(space, other);
        }
        space.kept.push(slab);
        true
    }

    /// Returns how many bytes are kept at most, with those that blocks have ahead of their growth.
    pub(super) fn most_kept(&self, space: &Space) -> usize {
        let part = self.huge_bytes.load(Relaxed) / PART;
        // Where there are no ticks nothing tells in which time it was asked for.
        let ticks = self.ticks.load(Relaxed) != 0;
        let turned_over = if ticks { space.kept.turned_over() } else { 0 };
        let most = LEAST.max(part).max(turned_over);
        self.page.round_down(most)
    }

    /// Takes the memory of a huge block from byte `size` on back; says whether it went.
    fn shorten_huge(&self, space: &mut Space, slab: Handle, size: usize) -> bool {
        let old = slab.block_bytes();
        let whole = PageRange::new(slab.start(), old, self.page);
        let rest = whole.and_then(|whole| whole.part(size, old - size, self.page));
        let Some(rest) = rest else {
            return true;
        };
        // Before the memory goes.
        slab.resize(size, slab.len_bytes());
        // SAFETY: committed as part of the block, which is free.
        if unsafe { self.decommit_pages(rest) }.is_err() {
            slab.resize(old, slab.len_bytes());
            return false;
        }
        space.gauges.committed -= rest.len_bytes();
        true
    }

    /// Gives back what a huge block that is kept had to grow into, but for as much again as it has
    /// memory. If the addresses cannot go, they are kept as well.
    fn cut_kept(&self, space: &mut Space, slab: Handle) {
        let len = slab.block_bytes().saturating_mul(RESIZED);
        let len = len.next_multiple_of(GRANULE);
        if len < slab.len_bytes() {
            self.cut_huge(space, slab, len);
        }
    }

    /// Releases huge blocks that could not be before, until one still cannot be.
    pub(in crate::heap) fn release_unreleased(&self, space: &mut Space) {
        while let Some(slab) = space.kept.unreleased {
            let rest = slab.next.get();
            if self.release_huge(space, slab).is_err() {
                break;
            }
            space.kept.unreleased = rest;
        }
        for slab in space.kept.unreleased() {
            self.purge_huge(space, slab);
        }
    }

    /// Releases huge blocks that are kept: all, or those that were before the last tick; and memory
    /// that live ones have ahead of their growth for as long.
    pub(in crate::heap) fn drop_kept(&self, space: &mut Space, only_aged: bool) {
        self.drop_all_ahead(space, only_aged);
        let [now, _] = space.kept.demand;
        space.kept.demand = [Demand::NONE, now];
        for bin in 0..BINS {
            for _ in 0..if only_aged { 1 } else { 2 } {
                let mut next = space.kept.age(bin);
                while let Some(slab) = next {
                    next = slab.next.get();
                    self.drop_huge(space, slab);
                }
            }
            let mut next = space.kept.bins[1][bin];
            while let Some(slab) = next {
                next = slab.next.get();
                self.cut_kept(space, slab);
            }
        }
    }

    /// Releases one huge block that is kept: the least that has `wanted` bytes, or the longest;
    /// returns how many it had. Where none is kept, takes what live ones have ahead of their
    /// growth.
    pub(in crate::heap) fn drop_one_kept(&self, space: &mut Space, wanted: usize) -> usize {
        let Some(slab) = space.kept.take_for(wanted) else {
            return self.drop_all_ahead(space, false);
        };
        let bytes = slab.block_bytes();
        self.drop_huge(space, slab);
        bytes
    }
}
