//! Blocks without a class: *large* ones are granules of a segment, *huge* ones a reservation of the
//! provider each: see `huge`.

use super::{
    Heap,
    class::{GRANULE, HUGE, LARGE},
    error::HeapError,
    slab::{self, CLAIMED, FREED, Handle, LIVE},
    space::Space,
};
use crate::{
    provider::{ErrorKind, PageProvider},
    sync::RawMutex,
};
use core::{
    alloc::Layout,
    ptr::NonNull,
    sync::atomic::Ordering::{Relaxed, Release},
};

/// The largest block that lies in a segment: larger ones would leave much of it unused.
pub(super) const LARGE_MAX: usize = 1 << 20;

/// A block without a class, and whether it reads zero.
pub(super) type Big = (NonNull<u8>, bool);

/// Whether a block without a class is one that grows, and is given addresses to grow into.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    Fixed,
    Growing,
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Allocates a block that no class serves.
    pub(super) fn alloc_big(&self, layout: Layout) -> Result<Big, HeapError> {
        self.again_if_replaced(|| {
            let mut space = self.lock_space();
            if layout.size() <= LARGE_MAX && layout.align() <= GRANULE {
                return self.alloc_large(&mut space, layout.size(), Growth::Fixed);
            }
            let (block, zero) = self.alloc_huge(&mut space, layout)?;
            self.carry_over(space, block)?;
            Ok((block, zero))
        })
    }

    /// Allocates granules of a segment; for a block that grows, lowest where as many are free
    /// behind it.
    pub(super) fn alloc_large(
        &self,
        space: &mut Space,
        size: usize,
        growth: Growth,
    ) -> Result<Big, HeapError> {
        let slab = match space.spare_large {
            Some(slab) => slab,
            None => slab::make(self.arena(), LARGE, CHUNK, self.notes())?,
        };
        space.spare_large = Some(slab);
        let count = size.div_ceil(GRANULE).max(1);
        let room = match growth {
            Growth::Fixed => 0,
            Growth::Growing => count.min(LARGE_MAX / GRANULE - count),
        };
        let mut guards = self.guard_now(space) / GRANULE;
        let (start, zero) = match self.take_with_room(space, count, room)? {
            Some(taken) => taken,
            None => self.take_guarded(space, count, &mut guards)?,
        };
        space.spare_large = slab.next.get();
        space.gauges.large += count * GRANULE;
        space.gauges.large_blocks += 1;
        let len = count * GRANULE;
        let block = self.open(slab, start, len, guards);
        self.count_guards(space, slab, true);
        Ok((block, zero))
    }

    /// Takes granules between guards, or without where the host cannot have more of those.
    fn take_guarded(
        &self,
        space: &mut Space,
        count: usize,
        guards: &mut usize,
    ) -> Result<Big, HeapError> {
        match self.take_granules(space, count, *guards) {
            Err(HeapError::Memory(error))
                if *guards != 0 && error.kind() == ErrorKind::Exhausted =>
            {
                *guards = 0;
                self.take_granules(space, count, 0)
            }
            taken => taken,
        }
    }

    /// Makes a live block of a descriptor, which has `guards` granules of guards on either side.
    fn open(&self, slab: Handle, start: NonNull<u8>, len: usize, guards: usize) -> NonNull<u8> {
        slab.open(start, len, false, u8::try_from(guards).unwrap_or(0));
        slab.resize(len, len);
        slab.only().state().store(LIVE, Release);
        self.map.set(slab.addr(), len, Some(slab));
        start
    }

    /// Allocates a block that no class serves from what is free and has memory.
    pub(super) fn alloc_committed(
        &self,
        space: &mut Space,
        layout: Layout,
    ) -> Result<Big, HeapError> {
        // Guards may need calls of the provider.
        if self.is_hardened() {
            return Err(HeapError::Busy);
        }
        if layout.size() > LARGE_MAX || layout.align() > GRANULE {
            let block = self.alloc_kept(space, layout).ok_or(HeapError::Busy)?;
            return Ok((block, false));
        }
        let count = layout.size().div_ceil(GRANULE).max(1);
        let slab = space.spare_large.ok_or(HeapError::Busy)?;
        let (segment, part) = space.writable_run(count).ok_or(HeapError::Busy)?;
        let start = self.part_start(segment, &part)?;
        let zero = space.take(segment, part);
        space.spare_large = slab.next.get();
        space.gauges.large += count * GRANULE;
        space.gauges.large_blocks += 1;
        let len = count * GRANULE;
        Ok((self.open(slab, start, len, 0), zero))
    }

    /// Frees the block without a class that starts at `addr`, whose state said that it is live.
    ///
    /// # Errors
    ///
    /// [`HeapError::NotLive`] where another call has freed it since.
    pub(super) fn free_big(&self, slab: Handle, addr: usize) -> Result<(), HeapError> {
        let mut space = self.lock_space();
        if !self.take_live(&space, slab, addr, FREED) {
            return Err(HeapError::NotLive);
        }
        self.drop_big(&mut space, slab);
        Ok(())
    }

    /// Takes the live block without a class that starts at `addr` away from its user, so that no
    /// other call frees it, nor is its descriptor used again; says whether it was still live.
    pub(super) fn claim_big(&self, slab: Handle, addr: usize) -> bool {
        self.take_live(&self.lock_space(), slab, addr, CLAIMED)
    }

    /// Changes the state of a live block; says whether it was live. The lock keeps its descriptor
    /// from becoming that of another block meanwhile, which may have happened before.
    fn take_live(&self, _space: &Space, slab: Handle, addr: usize, to: u8) -> bool {
        let same = slab.addr() == addr && self.slab_at(addr) == Some(slab);
        same && slab.only().take_live(to).is_ok()
    }

    /// Frees a block without a class that the calling thread has for itself.
    pub(super) fn free_claimed(&self, slab: Handle) {
        let mut space = self.lock_space();
        slab.only().state().store(FREED, Relaxed);
        self.drop_big(&mut space, slab);
    }

    /// Takes the granules or the reservation of a block that is free.
    fn drop_big(&self, space: &mut Space, slab: Handle) {
        if slab.is(HUGE) {
            self.free_huge(space, slab);
            return;
        }
        space.gauges.large = space.gauges.large.saturating_sub(slab.len_bytes());
        space.gauges.large_blocks = space.gauges.large_blocks.saturating_sub(1);
        self.count_guards(space, slab, false);
        self.wait_big(space, slab);
    }
}

/// Descriptors that are made at once.
pub(super) const CHUNK: usize = 8;
