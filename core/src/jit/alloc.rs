//! Calls that take memory.

use super::{
    CodeProvider, JitAllocator, JitError, Numbered, Span, SpanInfo,
    block::{Block, Held},
    shard::Shard,
    span::round_len,
    views::Views,
};
use crate::{
    provider::{Error, PageProvider, Placement},
    sync::{Guard, RawMutex},
};
use core::{ops::Range, ptr::NonNull, sync::atomic::Ordering};

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
    /// Allocates at least `size` bytes of executable memory, aligned to a granule. Its contents are
    /// undefined until it is written.
    ///
    /// # Errors
    ///
    /// [`JitError::InvalidSize`] for zero or an overflowing size; where a new block was needed,
    /// [`JitError::Map`] if the host gave none, [`JitError::Limit`] if the configuration allows
    /// none, [`JitError::Metadata`] without metadata. [`JitError::Map`] too where the memory was
    /// given back by [`JitAllocator::decommit_unused`], and the host has none left for it.
    #[inline]
    pub fn alloc(&self, size: usize) -> Result<Span, JitError> {
        Ok(self.token(self.alloc_numbered(size)?))
    }

    /// Makes the token of a span that was just allocated.
    #[inline]
    pub(super) fn token(&self, span: Numbered) -> Span {
        Span::new(span.info, self.id())
    }

    /// Allocates as [`JitAllocator::alloc`] does, and returns the span's number instead of a token:
    /// what is not released by that is mapped as long as the allocator.
    ///
    /// # Errors
    ///
    /// Those of [`JitAllocator::alloc`].
    #[inline]
    pub fn alloc_numbered(&self, size: usize) -> Result<Numbered, JitError> {
        if self.ordered {
            return self.alloc_lowest(size);
        }
        let (pool, need) = self.fit(size)?;
        let (n, mut guard) = self.shards.lock_any();
        if let Some((at, start)) = guard.pools[pool].allocate(need) {
            return self.grant(&mut guard, at, start..start + need);
        }
        self.alloc_below_limit(n, guard, size)
    }

    /// Allocates a span that none of the shard's blocks serves for certain. A shard that
    /// keeps an empty block saves mapping one; at the limit, blocks that are kept empty make room.
    #[cold]
    fn alloc_below_limit<'a>(
        &'a self,
        mut n: usize,
        mut guard: Guard<'a, Shard, R>,
        size: usize,
    ) -> Result<Numbered, JitError> {
        let (pool, need) = self.fit(size)?;
        if let Some(result) = self.alloc_settled(&mut guard, pool, need) {
            return result;
        }
        if let Some(block) = NonNull::new(self.kept[pool].load(Ordering::Acquire)) {
            drop(guard);
            // SAFETY: a block that was kept is this allocator's, and lives as long; its shard never
            // changes.
            let mut keeper = self.shards.lock(unsafe { block.as_ref() }.shard);
            if let Some(result) = self.alloc_settled(&mut keeper, pool, need) {
                return result;
            }
            drop(keeper);
            (n, guard) = self.shards.lock_any();
            if let Some(result) = self.alloc_settled(&mut guard, pool, need) {
                return result;
            }
        }
        match self.alloc_in_new_block(n, guard, size) {
            Err(JitError::Limit) if self.give_up_empty_blocks(size) => {
                let (n, mut guard) = self.shards.lock_any();
                match self.alloc_settled(&mut guard, pool, need) {
                    Some(result) => result,
                    None => self.alloc_in_new_block(n, guard, size),
                }
            }
            result => result,
        }
    }

    /// Unmaps the blocks that are kept empty, if that lets a block for `size` bytes be mapped; says
    /// whether it does.
    pub(super) fn give_up_empty_blocks(&self, size: usize) -> bool {
        let Ok((pool, need)) = self.fit(size) else {
            return false;
        };
        let shift = self.config.shift(pool);
        // Where the limit is that tight a block goes without padding.
        let bytes = need << shift;
        let mut kept = 0;
        self.for_each_empty(|_, held| kept += held.len_bytes());
        let others = self.statistics().reserved.saturating_sub(kept);
        let room = self.config.limit_bytes().saturating_sub(others);
        let enough = self.page.round_up(bytes).is_some_and(|least| least <= room);
        if kept != 0 && enough {
            self.for_each_empty(|shard, held| self.unmap_block(shard, held));
        }
        kept != 0 && enough
    }

    /// Returns the pool that serves a size, and the granules of that pool that it takes.
    #[inline]
    pub(super) fn fit(&self, size: usize) -> Result<(usize, usize), JitError> {
        let granules = self.granules(size, 0)?;
        let last = self.config.pool_count() - 1;
        let pool = last.min(granules.trailing_zeros() as usize);
        Ok((pool, granules >> pool))
    }

    /// Returns the granules of a pool that `size` bytes take.
    #[inline]
    pub(super) fn granules(&self, size: usize, pool: usize) -> Result<usize, JitError> {
        /// Twice as much is no object that a pointer can span.
        const MOST: usize = isize::MAX.unsigned_abs() / 4;
        if size == 0 || size > MOST {
            return Err(JitError::InvalidSize);
        }
        Ok(((round_len(size) - 1) >> self.config.shift(pool)) + 1)
    }

    /// Describes a span that was just taken from a block of the shard, which is locked, and gives
    /// it a number where spans have them.
    ///
    /// # Errors
    ///
    /// [`JitError::Map`] where pages of the span were given back to the host, which has no memory
    /// for them now; the span is free again then.
    #[inline]
    pub(super) fn grant(
        &self,
        shard: &mut Shard,
        at: NonNull<Block>,
        span: Range<usize>,
    ) -> Result<Numbered, JitError> {
        // SAFETY: the arena outlives the borrow of self; the shard is locked, and no other Held is
        // alive.
        let held = unsafe { Block::held(at) };
        if held.guarded.purged != 0 || held.guarded.kept {
            self.make_ready(shard, at, &span)?;
        }
        Ok(self.granted(shard, at, &span))
    }

    /// Counts and describes a span that is ready for its owner.
    #[inline]
    fn granted(&self, shard: &mut Shard, at: NonNull<Block>, span: &Range<usize>) -> Numbered {
        // SAFETY: the arena outlives the borrow of self; the shard is locked, and callers use no
        // Held meanwhile.
        let held = unsafe { Block::held(at) };
        shard.totals.spans += 1;
        shard.totals.used += span.len() << held.block.shift;
        let mut number = 0;
        if self.config.has_numbers() {
            number = self.next_number(&mut shard.numbers);
            held.block.tags.set_number(span.start, number);
        }
        let info = describe(&held, span);
        Numbered { info, number }
    }

    /// Makes sure that a span which was just taken has memory, of a block that was purged or kept
    /// empty.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::grant`].
    #[cold]
    fn make_ready(
        &self,
        shard: &mut Shard,
        at: NonNull<Block>,
        span: &Range<usize>,
    ) -> Result<(), JitError> {
        // SAFETY: the arena outlives the borrow of self; the shard is locked, and no other Held is
        // used meanwhile.
        let mut held = unsafe { Block::held(at) };
        if held.guarded.purged != 0
            && let Err(error) = self.refill(&mut held, span)
        {
            shard.pools[held.block.pool].free(&mut held, span.clone());
            return Err(JitError::Map(error.into()));
        }
        if held.guarded.kept {
            self.no_longer_kept(&mut held);
        }
        Ok(())
    }

    /// Asks the host for memory for the pages of a span that were given back to it.
    fn refill(&self, held: &mut Held<'_>, span: &Range<usize>) -> Result<(), Error> {
        let Some(page) = held.views().map(Views::page_size) else {
            return Ok(());
        };
        let Range { start, end } = held.bytes_of(span);
        // Pages of the provider are what is noted, pages of the mapping what can be asked for.
        let (start, end) = (page.round_down(start), page.round_up(end).unwrap_or(end));
        let (unit, all) = (self.page.bytes(), start..end);
        while let Some(pages) = held.purged_among(all.start / unit..all.end / unit) {
            let (at, len) = (pages.start * unit, pages.len() * unit);
            if let Some(Views::Dual(mapping)) = held.views() {
                // SAFETY: the mapping came from this provider, which map_block asked for it.
                unsafe { self.provider.refill_dual(mapping, at, len)? };
            }
            held.note_purged(pages, false);
        }
        Ok(())
    }

    /// Allocates from a shard whose free runs are all joined first: what was joined may be long
    /// enough, and what no class promises to fit may fit. `None` where nothing fits.
    pub(super) fn alloc_settled(
        &self,
        shard: &mut Shard,
        pool: usize,
        need: usize,
    ) -> Option<Result<Numbered, JitError>> {
        let pools = &mut shard.pools;
        pools[pool].settle();
        if let Some((at, start)) = pools[pool].allocate(need) {
            return Some(self.grant(shard, at, start..start + need));
        }
        let by_trial = |held: &mut Held<'_>| held.allocate_by_trial(need);
        let (at, span) = pools[pool].allocate_where(need, by_trial)?;
        Some(self.grant(shard, at, span))
    }

    /// Maps a block for a span that none of the shard's blocks serves; a block without a span
    /// would stay.
    fn alloc_in_new_block(
        &self,
        n: usize,
        mut guard: Guard<'_, Shard, R>,
        size: usize,
    ) -> Result<Numbered, JitError> {
        let (pool, need) = self.fit(size)?;
        let mapped = self.map_block(n, &mut guard, pool, (size, 1), Placement::ANYWHERE);
        let error = match mapped {
            Ok(block) => {
                let shard = &mut *guard;
                let first = |held: &mut Held<'_>, need| held.allocate_where(need, 1, lowest);
                let result = self.alloc_settled(shard, pool, need);
                if let Some(result) = result.or_else(|| self.alloc_in(shard, block, size, first)) {
                    return result;
                }
                JitError::InvalidSize // A new block has room for what it was made for.
            }
            Err(error) => error,
        };
        drop(guard);
        // With no more blocks to be had, every run is worth a look.
        let any = |need| move |held: &mut Held<'_>| held.allocate_where(need, usize::MAX, lowest);
        self.alloc_elsewhere(size, any).ok_or(error)
    }

    /// Allocates in one block of a locked shard, whatever its granules.
    pub(super) fn alloc_in(
        &self,
        shard: &mut Shard,
        block: NonNull<Block>,
        size: usize,
        choose: impl FnOnce(&mut Held<'_>, usize) -> Option<Range<usize>>,
    ) -> Option<Result<Numbered, JitError>> {
        // SAFETY: the arena outlives the borrow of self; the shard is locked, and no other Held is
        // alive.
        let mut held = unsafe { Block::held(block) };
        let need = held.granules_for(size);
        let span = choose(&mut held, need)?;
        shard.pools[held.block.pool].update(&mut held);
        Some(self.grant(shard, block, span))
    }

    /// Looks through the blocks of all shards and pools, when there are no more to be had.
    fn alloc_elsewhere<F: FnMut(&mut Held<'_>) -> Option<Range<usize>>>(
        &self,
        size: usize,
        choose: impl Fn(usize) -> F,
    ) -> Option<Numbered> {
        for shard in self.shards.all() {
            let mut guard = shard.lock();
            for n in 0..self.config.pool_count() {
                let need = self.granules(size, n).ok()?;
                let pool = &mut guard.pools[n];
                pool.settle();
                if let Some((at, span)) = pool.allocate_where(need, choose(need))
                    && let Ok(span) = self.grant(&mut guard, at, span)
                {
                    return Some(span);
                }
            }
        }
        None
    }
}

/// Describes a span of a block.
#[inline]
pub(super) fn describe(held: &Held<'_>, span: &Range<usize>) -> SpanInfo {
    SpanInfo {
        rx: held.rx(span.start),
        rw: held.rw(span.start),
        len: span.len() << held.block.shift,
    }
}

/// Says that a span may start where a free run does.
#[expect(clippy::unnecessary_wraps, reason = "others may not")]
const fn lowest(run: &Range<usize>) -> Option<usize> {
    Some(run.start)
}
