//! The pages of a slab: which ones hold only free blocks, and gave their memory back. The bin's
//! lock is held.

use super::{Entry, NEVER, Slab, ZERO};
use crate::{
    atomic::Ordering::Relaxed,
    page::{PageRange, PageSize},
};

impl Slab {
    /// Returns which parts of [`Slab::hole_bytes`] gave their memory back, a bit each. The bin's
    /// lock is held.
    pub(in crate::heap) fn holes(&self) -> u64 {
        self.holes.load(Relaxed)
    }

    /// Says whether a block was taken at tick `now` or at the one before.
    pub(in crate::heap) fn is_recent(&self, now: u32) -> bool {
        now.wrapping_sub(self.taken_at.load(Relaxed)) < 2
    }

    pub(in crate::heap) fn set_taken_at(&self, tick: u32) {
        self.taken_at.store(tick, Relaxed);
        self.looked_at.store(NEVER, Relaxed);
    }

    /// Says whether no block was taken or brought back since [`Slab::set_looked_at`]. The bin's
    /// lock is held.
    pub(in crate::heap) fn is_looked_at(&self) -> bool {
        u32::from(self.looked_at.load(Relaxed)) == self.free.load(Relaxed)
    }

    /// Notes that there is no idle page left that the host takes.
    pub(in crate::heap) fn set_looked_at(&self) {
        let free = u16::try_from(self.free.load(Relaxed)).unwrap_or(NEVER);
        self.looked_at.store(free, Relaxed);
    }

    pub(in crate::heap) fn set_holes(&self, holes: u64) {
        self.holes.store(holes, Relaxed);
    }

    /// Returns how many pages one bit of [`Slab::holes`] stands for: one, or as many as it takes
    /// for all of the slab to fit in 64 bits.
    pub(in crate::heap) fn hole_pages(&self, page: PageSize) -> u32 {
        let mut pages = 1;
        while self.len_bytes() / page.bytes() > 64 * pages as usize {
            pages *= 2;
        }
        pages
    }

    /// Returns the bytes of those.
    pub(in crate::heap) fn hole_bytes(&self, page: PageSize) -> usize {
        page.bytes() * self.hole_pages(page) as usize
    }

    /// Returns which parts of [`Slab::hole_bytes`] hold only free blocks, some of which were used,
    /// a bit each. The bin's lock is held.
    pub(in crate::heap) fn idle_parts(&self, page: PageSize) -> u64 {
        let size = self.block_bytes();
        let last = self.blocks() - 1;
        let is_free = |n: usize| self.bits()[n / 64].load(Relaxed) >> (n % 64) & 1 == 1;
        let was_used = |n: usize| self.states()[n].load(Relaxed) != ZERO;
        let part = self.hole_bytes(page);
        (0..self.len_bytes() / part)
            .filter(|number| {
                let first = (number * part / size).min(last);
                let blocks = first..=((number + 1) * part - 1).div_euclid(size).min(last);
                blocks.clone().all(is_free) && blocks.clone().any(was_used)
            })
            .fold(0, |parts, number| parts | 1 << number)
    }

    /// Returns the parts of `bytes` bytes that a block lies in, a bit each.
    pub(in crate::heap) fn parts_of(&self, entry: Entry, bytes: usize) -> u64 {
        let offset = entry.block.addr().get() - self.addr();
        let first = offset / bytes;
        let last = (offset + self.block_bytes() - 1) / bytes;
        debug_assert!(last < 64, "a part for each bit");
        (u64::MAX >> (63 - (last - first))) << first
    }

    /// Notes that free blocks that lie in a part of the granules as a whole read zero. The bin's
    /// lock is held.
    pub(in crate::heap) fn clear_blocks(&self, part: PageRange) {
        let size = self.block_bytes();
        let first = (part.addr() - self.addr()).div_ceil(size);
        let behind = (part.end() - self.addr()) / size;
        let states = &self.states()[..self.blocks()];
        for state in states.iter().take(behind).skip(first) {
            state.store(ZERO, Relaxed);
        }
    }

    /// Returns how many pages cannot have been touched: none of their blocks was ever taken. The
    /// bin's lock is held.
    pub(in crate::heap) fn fresh_pages(&self, page: PageSize) -> u32 {
        let used = page.round_up(self.fresh_from.load(Relaxed) as usize);
        let bytes = self.len_bytes().saturating_sub(used.unwrap_or(usize::MAX));
        u32::try_from(bytes / page.bytes()).unwrap_or(0)
    }
}
