//! Which block of a slab is at an address, and whether it is live: for callers without a lock.

use super::{DEFERRED, Entry, FREED, LIVE, Slab};
use crate::{
    atomic::{
        Ordering::{Acquire, Relaxed},
        fence,
    },
    heap::{class, map::Spot},
};
use core::ptr::NonNull;

impl Slab {
    /// Returns the number of the block around `addr`, which lies in the granules, and whether it
    /// starts there; the number of blocks for what is left over behind them.
    #[inline]
    pub(super) fn index(&self, addr: usize) -> (usize, bool) {
        class::index(addr.wrapping_sub(self.addr()), self.reciprocal)
    }

    /// Returns the live block that starts at `addr`.
    #[inline]
    pub(in crate::heap) fn live(&self, addr: usize) -> Option<Entry> {
        self.block(addr, LIVE)
    }

    /// Returns the block that starts at `addr` and is free.
    #[inline]
    pub(in crate::heap) fn freed(&self, addr: usize) -> Option<Entry> {
        self.block(addr, FREED)
    }

    /// Says whether this is of one block, without a class, that is live and starts at `addr`.
    #[inline]
    pub(in crate::heap) fn is_live_big(&self, addr: usize) -> bool {
        self.class() >= class::CLASSES
            && self.addr() == addr
            && self.states()[0].load(Relaxed) == LIVE
    }

    /// Returns the block that starts at `addr` and whose free is deferred.
    pub(in crate::heap) fn deferred(&self, addr: usize) -> Option<Entry> {
        self.block(addr, DEFERRED)
    }

    /// Returns the block in a state that starts at `addr`.
    #[inline]
    fn block(&self, addr: usize, in_state: u8) -> Option<Entry> {
        let (index, is_start) = self.index(addr);
        let state = self.states().get(index)?;
        if !is_start || state.load(Relaxed) != in_state {
            return None;
        }
        // With the provenance of the granules, whatever the caller's pointer was narrowed to.
        let block = self.start.load(Relaxed).with_addr(addr);
        Some(Entry {
            block: NonNull::new(block)?,
            state: self.state(index),
        })
    }

    /// Returns the start and the size of the live block around `addr`. `None` where granules are
    /// taken meanwhile: then the block was freed before.
    #[inline]
    pub(in crate::heap) fn around(&self, addr: usize) -> Option<(usize, usize)> {
        let version = self.version.load(Acquire);
        let start = self.addr();
        let (index, _) = class::index(addr.wrapping_sub(start), self.reciprocal);
        // The call that made it live has seen the slab as it is now, so that the loads below are no
        // older.
        let live = self.states().get(index)?.load(Acquire) == LIVE;
        let size = self.block_bytes();
        fence(Acquire);
        let same = self.version.load(Relaxed) == version && version.is_multiple_of(2);
        let block = start.wrapping_add(index.wrapping_mul(size));
        (live && same && addr.wrapping_sub(block) < size).then_some((block, size))
    }

    /// As [`Slab::around`], for who knows from the page map that the slab is of a class, where it
    /// began, and the block's number and state: nothing that is loaded here waits for another.
    #[inline]
    pub(in crate::heap) fn around_spot(&self, spot: &Spot) -> Option<(usize, usize)> {
        let version = self.version.load(Acquire);
        // SAFETY: a state of this slab, initialised in `make`, changed by atomics only, and there
        // as long as the descriptor.
        let state = unsafe { spot.state.as_ref() };
        let live = state.load(Acquire) == LIVE;
        let stays = self.addr() == spot.start;
        fence(Acquire);
        let same = self.version.load(Relaxed) == version && version.is_multiple_of(2);
        let size = class::size(spot.class);
        let block = spot.start.wrapping_add(spot.index.wrapping_mul(size));
        (live && stays && same).then_some((block, size))
    }

    /// Returns the number of the first live block from number `index` on.
    pub(in crate::heap) fn live_from(&self, index: usize) -> Option<usize> {
        let states = self.states().get(index..self.blocks())?;
        let ahead = states.iter().position(|s| s.load(Relaxed) == LIVE)?;
        Some(index + ahead)
    }

    /// Returns the entry of the one block of this slab.
    pub(in crate::heap) fn only(&self) -> Entry {
        Entry {
            block: self.start(),
            state: self.state(0),
        }
    }
}
