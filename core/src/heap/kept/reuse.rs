//! How a kept block serves again.

use super::{Fit, LEAST, RESIZED};
use crate::{
    heap::{
        Heap,
        class::GRANULE,
        huge::{committed_ahead, is_hole},
        large::Big,
        slab::ZERO,
        space::Space,
    },
    provider::{PageProvider, reserve_ahead},
    sync::RawMutex,
};
use core::{alloc::Layout, ptr::NonNull, sync::atomic::Ordering::Relaxed};

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Allocates a huge block that was kept and serves as it is.
    pub(in crate::heap) fn alloc_kept(
        &self,
        space: &mut Space,
        layout: Layout,
    ) -> Option<NonNull<u8>> {
        let size = self.page.round_up(layout.size().max(1))?;
        let slab = space.kept.take(size, layout.align(), Fit::Whole)?;
        self.make_live(space, slab, layout.size());
        Some(slab.start())
    }

    /// Allocates a huge block that was kept, if it serves with some of its memory as headroom, or
    /// when it is given more.
    pub(in crate::heap) fn alloc_resized(
        &self,
        space: &mut Space,
        layout: Layout,
    ) -> Option<NonNull<u8>> {
        let size = self.page.round_up(layout.size().max(1))?;
        for how in [Fit::Near, Fit::Shorter, Fit::Longer] {
            let Some(slab) = space.kept.take(size, layout.align(), how) else {
                continue;
            };
            if how == Fit::Shorter {
                let (end, len) = (slab.block_bytes(), slab.len_bytes());
                slab.set_taken_at(self.ticks.load(Relaxed));
                self.set_huge(space, slab, size, len, end);
            } else if !self.extend_huge(space, slab, size) {
                space.kept.push(slab);
                continue;
            }
            self.make_live(space, slab, layout.size());
            return Some(slab.start());
        }
        None
    }

    /// Allocates a huge block for one that grows, which was kept. It brings all of the memory that
    /// it has, as headroom.
    pub(in crate::heap) fn alloc_kept_to_grow(
        &self,
        space: &mut Space,
        layout: Layout,
    ) -> Option<NonNull<u8>> {
        let need = self.page.round_up(layout.size().max(1))?;
        let most = self.most_kept(space).saturating_sub(space.gauges.ahead);
        let slab = space.kept.take_to_grow(need, layout.align(), most)?;
        let (end, len) = (slab.block_bytes(), slab.len_bytes());
        let size = committed_ahead(need, len).min(end);
        slab.set_taken_at(self.ticks.load(Relaxed));
        self.set_huge(space, slab, size, len, end);
        self.make_live(space, slab, layout.size());
        Some(slab.start())
    }

    /// Returns how many bytes of addresses a huge block is given that needs `min_len`: more where
    /// blocks come and go, so that it can serve for longer ones.
    pub(in crate::heap) fn kept_ahead(&self, space: &Space, min_len: usize) -> usize {
        if space.kept.is_empty() {
            return min_len;
        }
        let wanted = min_len
            .saturating_mul(RESIZED)
            .min(min_len.saturating_add(LEAST));
        reserve_ahead(&self.provider, min_len, wanted) / GRANULE * GRANULE
    }

    /// Allocates a huge block that could not be released, and suits.
    pub(in crate::heap) fn alloc_unreleased(
        &self,
        space: &mut Space,
        layout: Layout,
    ) -> Option<Big> {
        let size = self.page.round_up(layout.size().max(1))?;
        let slab = space.kept.take_unreleased(size, layout.align())?;
        let zero = slab.only().state().load(Relaxed) == ZERO;
        if is_hole(slab) {
            space.gauges.committed += slab.block_bytes();
            slab.set_holes(0);
        }
        self.make_live(space, slab, layout.size());
        Some((slab.start(), zero))
    }
}
