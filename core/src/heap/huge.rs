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
//!
//! | room | what it has |
//! |---|---|
//! | `make` | how a huge block is made |
//! | `find` | which one is at an address |
//! | `release` | how one is freed, and its addresses go back |

mod find;
mod make;
mod release;

pub(super) use make::Place;

use super::{Heap, class::GRANULE, slab::Handle, space::Space};
use crate::{provider::PageProvider, sync::RawMutex};
use core::sync::atomic::Ordering::Relaxed;

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

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
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
        // A forked child finds no more between the two than there is.
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
            // The size that was asked for is not in whole pages.
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
}

/// Returns how many bytes a block that grows and needs `size` is given memory for, of `len`.
pub(super) const fn committed_ahead(size: usize, len: usize) -> usize {
    let ahead = size.saturating_add(size / COMMITTED_AHEAD);
    match ahead.checked_next_multiple_of(GRANULE) {
        Some(ahead) if ahead < len => ahead,
        _ => len,
    }
}
