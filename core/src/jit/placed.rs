//! Allocations that say where: in reach of an anchor, aligned, lowest first, at one address.

use super::{
    CodeProvider, JitAllocator, JitError, Numbered, Span,
    block::{Block, Held, Placed, Spot},
    pool::SETTLED,
};
use crate::{
    page::AddressRange,
    provider::{DualError, ErrorKind, PageProvider, Place, Placement},
    sync::RawMutex,
};
use core::ptr::NonNull;

/// Words of 64 granules whose runs are looked at before the lock is released to others: some
/// microseconds.
const TRIES: usize = 256;

/// Which blocks are looked through.
#[derive(Clone, Copy)]
enum Among {
    /// Those of one pool of a shard.
    Pool(usize, usize),
    /// All.
    All,
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
    /// Allocates as [`JitAllocator::alloc`] does, with the executable view where `placement` says:
    /// aligned, with every byte within its range, and near its anchor if a new block is needed.
    ///
    /// Where all blocks lie within the range, and no alignment beyond a granule's is asked for,
    /// this costs as much as a plain allocation. Otherwise holes are looked through one after
    /// another; no lock is held for all of that.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::alloc`]; [`JitError::InvalidPlacement`] for an alignment that
    /// is not a power of two, and for a place other than [`Place::Anywhere`] and [`Place::Near`].
    ///
    /// ```no_run
    /// # use hostmem_core::jit::{CodeProvider, JitAllocator, JitError, Span};
    /// # use hostmem_core::provider::Placement;
    /// # fn near<P: CodeProvider>(jit: &JitAllocator<P>, caller: usize) -> Result<Span, JitError> {
    /// // Within reach of a branch of AArch64.
    /// jit.alloc_with(100, Placement::near(caller, 128 << 20))
    /// # }
    /// ```
    #[inline]
    pub fn alloc_with(&self, size: usize, placement: Placement) -> Result<Span, JitError> {
        Ok(self.token(self.alloc_numbered_with(size, placement)?))
    }

    /// Allocates as [`JitAllocator::alloc_with`] does, and returns the span's number instead of a
    /// token.
    ///
    /// # Errors
    ///
    /// Those of [`JitAllocator::alloc_with`].
    #[inline]
    pub fn alloc_numbered_with(
        &self,
        size: usize,
        placement: Placement,
    ) -> Result<Numbered, JitError> {
        let Placement {
            align,
            within,
            place,
        } = placement;
        if !align.is_power_of_two() || !matches!(place, Place::Anywhere | Place::Near(_)) {
            return Err(JitError::InvalidPlacement);
        }
        let (pool, need) = self.fit(size)?;
        if self.ordered {
            return self.alloc_searching(size, placement);
        }
        let (_, mut guard) = self.shards.lock_any();
        // Blocks of the shard come under its lock.
        let anywhere = align <= 1 << self.config.shift(pool) && self.index.lies_within(within);
        let taken = if anywhere {
            guard.pools[pool].allocate(need)
        } else {
            guard.pools[pool].allocate_recent(
                need,
                &Spot {
                    need,
                    align,
                    within,
                },
            )
        };
        if let Some((at, start)) = taken {
            return self.grant(&mut guard, at, start..start + need);
        }
        drop(guard);
        self.alloc_searching(size, placement)
    }

    /// Looks through the holes of the shard's blocks, maps one, and looks through those of all.
    #[cold]
    fn alloc_searching(&self, size: usize, placement: Placement) -> Result<Numbered, JitError> {
        let Placement { align, within, .. } = placement;
        let (pool, _) = self.fit(size)?;
        let (n, guard) = self.shards.lock_any();
        drop(guard);
        let spot = |need| Spot {
            need,
            align,
            within,
        };
        let own = Among::Pool(n, pool);
        if let Some(result) = self.search(size, own, &spot) {
            return result;
        }
        if self.settle_among(own)
            && let Some(result) = self.search(size, own, &spot)
        {
            return result;
        }
        let mut guard = self.shards.lock(n);
        // Room for the span wherever the alignment falls: blocks are aligned for their granules.
        let mapped = self.map_block(n, &mut guard, pool, (size, align), placement);
        let error = match mapped {
            Ok(block) => {
                let choose = |held: &mut Held<'_>, need| held.allocate_at_spot(&spot(need));
                match self.alloc_in(&mut guard, block, size, choose) {
                    Some(result) => return result,
                    None => JitError::InvalidPlacement, // A new block has room for its first span.
                }
            }
            Err(error) => error,
        };
        drop(guard);
        self.settle_among(Among::All);
        let found = self.search(size, Among::All, &spot);
        found.unwrap_or(Err(error))
    }

    /// Joins what was released just now with what lies beside it; says whether there was anything.
    fn settle_among(&self, among: Among) -> bool {
        let mut settled = false;
        for (n, shard) in self.shards.all().enumerate() {
            for pool in 0..self.config.pool_count() {
                if among.has(n, pool) {
                    loop {
                        let joined = shard.lock().pools[pool].settle_some();
                        settled |= joined != 0;
                        if joined < SETTLED {
                            break;
                        }
                    }
                }
            }
        }
        settled
    }

    /// Looks through the holes of blocks by address, a part of each under the lock of its shard.
    fn search(
        &self,
        size: usize,
        among: Among,
        spot: &dyn Fn(usize) -> Spot,
    ) -> Option<Result<Numbered, JitError>> {
        let within = spot(0).within;
        let mut block = self.index.block_at(within.start());
        let mut from = within.start();
        loop {
            let at = match block.take() {
                Some(at) => at,
                None => {
                    let (start, at) = self.index.block_from(from)?;
                    if start > within.last() {
                        return None;
                    }
                    from = start + 1;
                    at
                }
            };
            // SAFETY: the block lives as long as this allocator, whose index it is in.
            let home = unsafe { at.as_ref() }.home();
            if among.has(home.shard, home.pool)
                && let Some(result) = self.search_in(at, size, spot)
            {
                return Some(result);
            }
        }
    }

    /// Looks through the holes of one block.
    fn search_in(
        &self,
        at: NonNull<Block>,
        size: usize,
        spot: &dyn Fn(usize) -> Spot,
    ) -> Option<Result<Numbered, JitError>> {
        let mut word = 0;
        // SAFETY: the block lives as long as this allocator, whose index it was in.
        if unsafe { at.as_ref() }.home().lone {
            return None; // It serves the span alone that it was made for.
        }
        loop {
            // SAFETY: the block is this allocator's, and the guard lives until the end of this
            // turn.
            let (mut guard, mut held) = unsafe { self.lock_block(at) };
            let need = held.granules_for(size);
            match held.allocate_from(word, TRIES, &spot(need)) {
                Placed::Here(span) => {
                    guard.pools[held.block.pool].update(&mut held);
                    return Some(self.grant(&mut guard, at, span));
                }
                Placed::Behind(next) => word = next,
                Placed::Nowhere => return None,
            }
        }
    }

    /// Allocates from the lowest free run of the blocks that has room.
    pub(super) fn alloc_lowest(&self, size: usize) -> Result<Numbered, JitError> {
        match self.alloc_searching(size, Placement::ANYWHERE) {
            Err(JitError::Limit) if self.give_up_empty_blocks(size) => {
                self.alloc_searching(size, Placement::ANYWHERE)
            }
            result => result,
        }
    }

    /// Allocates `size` bytes that are executed `offset` bytes behind the start of the window:
    /// where a code cache that was kept in a file has them. For allocators whose configuration
    /// places code by [`Placement::lowest`].
    ///
    /// The spans of a cache can be had again at their offsets by another allocator with the same
    /// configuration, in the order of their offsets: blocks begin at multiples of the [first
    /// block's size](super::JitConfig::block_size) there, counted from the start of the window.
    /// Some are refused: those that took the place of longer ones and lie across such a multiple,
    /// those that were shrunk to a length of another [pool](super::JitConfig::pools), and those
    /// longer than the [longest block](super::JitConfig::block_size).
    ///
    /// # Errors
    ///
    /// [`JitError::InvalidPlacement`] where code is not placed by [`Placement::lowest`], and for an
    /// offset that is no multiple of the granule or lies in a block's
    /// [padding](super::JitConfig::padding); [`JitError::Map`] with
    /// [`ErrorKind::Taken`] where something is there, another span or a foreign mapping, and with
    /// [`ErrorKind::OutsideRange`] where the window ends before; and the errors of
    /// [`JitAllocator::alloc`].
    pub fn alloc_at(&self, offset: usize, size: usize) -> Result<Span, JitError> {
        Ok(self.token(self.alloc_numbered_at(offset, size)?))
    }

    /// Allocates as [`JitAllocator::alloc_at`] does, and returns the span's number instead of a
    /// token.
    ///
    /// # Errors
    ///
    /// Those of [`JitAllocator::alloc_at`].
    pub fn alloc_numbered_at(&self, offset: usize, size: usize) -> Result<Numbered, JitError> {
        let (pool, need) = self.fit(size)?;
        let window = self.config.rx_placement().within;
        let outside = || JitError::Map(DualError::of(ErrorKind::OutsideRange));
        let start = window.start().checked_add(offset).ok_or_else(outside)?;
        let end = (need << self.config.shift(pool)).checked_add(start);
        let last = end.ok_or_else(outside)? - 1;
        if !self.ordered {
            return Err(JitError::InvalidPlacement);
        }
        if last > window.last() {
            return Err(outside());
        }
        for _ in 0..2 {
            if let Some(block) = self.index.block_at(start) {
                return self.alloc_exactly(block, start, size);
            }
            // Another thread may map a block meanwhile, there or elsewhere.
            self.map_block_around(start, last, pool)?;
        }
        Err(JitError::Map(DualError::of(ErrorKind::Taken)))
    }

    /// Allocates at one address of a block.
    fn alloc_exactly(
        &self,
        block: NonNull<Block>,
        start: usize,
        size: usize,
    ) -> Result<Numbered, JitError> {
        // SAFETY: the block is one of the index, and the guard lives as long as it is used.
        let (mut guard, mut held) = unsafe { self.lock_block(block) };
        // All free runs are joined, so that one is found by the granule.
        guard.pools[held.block.pool].settle();
        let (granule, exact) = held.granule_at(start).ok_or(JitError::InvalidPlacement)?;
        let need = held.granules_for(size);
        if !exact || held.block.home().lone {
            return Err(JitError::InvalidPlacement);
        }
        let span = held.allocate_granules(granule..granule + need);
        let span = span.ok_or(JitError::Map(DualError::of(ErrorKind::Taken)))?;
        guard.pools[held.block.pool].update(&mut held);
        self.grant(&mut guard, block, span)
    }

    /// Maps the block of the window's grid that a span of some addresses lies in.
    fn map_block_around(&self, start: usize, last: usize, pool: usize) -> Result<(), JitError> {
        let window = self.config.rx_placement().within;
        let shift = self.config.shift(pool);
        let unit = self.config.block_size_bytes().max(self.page.bytes());
        // Windows may begin anywhere, blocks at pages only.
        let origin = self.page.round_up(window.start());
        let offset = origin.and_then(|origin| start.checked_sub(origin));
        let base = start - offset.ok_or(JitError::InvalidPlacement)? % unit;
        let first = base + self.config.padding_bytes(shift);
        if start < first || !(start - first).is_multiple_of(1 << shift) {
            return Err(JitError::InvalidPlacement);
        }
        let placement = Placement {
            align: 1,
            within: AddressRange::new(base, window.last()).ok_or(JitError::InvalidPlacement)?,
            place: Place::Exact(base),
        };
        let (n, mut guard) = self.shards.lock_any();
        let bytes = last + 1 - first;
        let mapped = self.map_block(n, &mut guard, pool, (bytes, 1), placement);
        mapped.map(|_| ())
    }
}

impl Among {
    const fn has(self, shard: usize, pool: usize) -> bool {
        match self {
            Self::Pool(n, p) => n == shard && p == pool,
            Self::All => true,
        }
    }
}
