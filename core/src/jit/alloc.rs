//! Calls that give and take memory.

use super::{
    CodeProvider, JitAllocator, JitError, Refused, Span, SpanInfo,
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

/// Spans that are released under one lock.
const TOGETHER: usize = 16;

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
        if self.ordered {
            return self.alloc_lowest(size);
        }
        let (pool, need) = self.fit(size)?;
        let (n, mut guard) = self.shards.lock_any();
        if let Some((at, span)) = found(guard.pools[pool].allocate(need)) {
            return self.grant(&mut guard, at, span);
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
    ) -> Result<Span, JitError> {
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

    /// Makes the token of a span that was just taken from a block of the shard, which is locked.
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
    ) -> Result<Span, JitError> {
        // SAFETY: the arena outlives the borrow of self; the shard is locked, and no other Held is
        // alive.
        let held = unsafe { Block::held(at) };
        if held.guarded.purged != 0 || held.guarded.kept {
            self.make_ready(shard, at, &span)?;
        }
        // SAFETY: as above; the Held above is gone.
        let held = unsafe { Block::held(at) };
        shard.totals.spans += 1;
        shard.totals.used += span.len() << held.block.shift;
        if self.config.has_numbers() {
            let number = self.next_number(&mut shard.numbers);
            held.block.tags.set_number(span.start, number);
        }
        Ok(Span::new(describe(&held, &span), self.id()))
    }

    /// Makes sure that a span which was just taken has memory, of a block that was purged or kept
    /// empty.
    ///
    /// # Errors
    ///
    /// As of [`JitAllocator::grant`].
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
                // SAFETY: the mapping came from this provider.
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
    ) -> Option<Result<Span, JitError>> {
        let pools = &mut shard.pools;
        pools[pool].settle();
        if let Some((at, span)) = found(pools[pool].allocate(need)) {
            return Some(self.grant(shard, at, span));
        }
        let by_trial = |held: &mut Held<'_>| held.allocate_by_trial(need);
        let (at, span) = found(pools[pool].allocate_where(need, by_trial))?;
        Some(self.grant(shard, at, span))
    }

    /// Maps a block for a span that none of the shard's blocks serves; a block that serves nobody
    /// would stay.
    fn alloc_in_new_block(
        &self,
        n: usize,
        mut guard: Guard<'_, Shard, R>,
        size: usize,
    ) -> Result<Span, JitError> {
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
    ) -> Option<Result<Span, JitError>> {
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
    ) -> Option<Span> {
        for shard in self.shards.all() {
            let mut guard = shard.lock();
            for n in 0..self.config.pool_count() {
                let need = self.granules(size, n).ok()?;
                let pool = &mut guard.pools[n];
                pool.settle();
                if let Some((at, span)) = found(pool.allocate_where(need, choose(need)))
                    && let Ok(span) = self.grant(&mut guard, at, span)
                {
                    return Some(span);
                }
            }
        }
        None
    }

    /// Gives a span back.
    ///
    /// Nobody may execute it any more, which only its owner can know; releasing is safe because
    /// executing is not.
    ///
    /// # Errors
    ///
    /// [`JitError::NotOwned`], with the span, where it belongs to another allocator, to the time
    /// before a reset, or to a block that a fork took away.
    #[expect(
        clippy::result_large_err,
        reason = "the token comes back, and nothing here can box it"
    )]
    #[inline]
    pub fn release(&self, span: Span) -> Result<(), Refused> {
        let result = self.block_of_span(&span).and_then(|block| {
            // SAFETY: the token is this allocator's, and owns the span.
            unsafe { self.release_in(block, Which::Owned(span.info())) }
        });
        result.map_err(|error| Refused { span, error })
    }

    /// Gives the span that starts at `rx` back.
    ///
    /// # Errors
    ///
    /// [`JitError::NotOwned`], [`JitError::NotLive`] or [`JitError::Interior`] where no span starts
    /// at `rx`; nothing changes then.
    ///
    /// # Safety
    ///
    /// If a span starts at `rx`, the caller owns it, and no token of it is used again.
    pub unsafe fn release_at(&self, rx: usize) -> Result<(), JitError> {
        let block = self.block_of(rx)?;
        // SAFETY: the block is one of the index; the caller's promise.
        unsafe { self.release_in(block, Which::At(rx)) }
    }

    /// Gives a span in a block back.
    ///
    /// # Safety
    ///
    /// The promises of [`JitAllocator::release_at`]; the block is this allocator's.
    #[inline]
    pub(super) unsafe fn release_in(
        &self,
        block: NonNull<Block>,
        which: Which,
    ) -> Result<(), JitError> {
        // SAFETY: the caller's promise.
        let (mut guard, held) = unsafe { self.lock_block(block) };
        self.release_held(&mut guard, held, which)
    }

    /// Gives a span in a block back, whose owner asked for it; the shard is locked.
    #[inline]
    fn release_held(
        &self,
        shard: &mut Shard,
        mut held: Held<'_>,
        which: Which,
    ) -> Result<(), JitError> {
        let span = which.find(&held)?;
        shard.totals.spans -= 1;
        shard.totals.used -= span.len() << held.block.shift;
        held.block.tags.clear(span.start);
        self.fill_granules(&held, span.clone());
        shard.pools[held.block.pool].free(&mut held, span);
        if held.guarded.spans == 0 {
            self.retire_empty(shard, held);
        }
        Ok(())
    }

    /// Gives many spans back, and takes them out of `spans`. Those that [`JitAllocator::release`]
    /// would refuse stay there; returns how many those are.
    ///
    /// Takes a fraction of the time of as many single calls: what the next ones need is fetched
    /// while one is released, and a lock is taken for several.
    pub fn release_many(&self, spans: &mut [Option<Span>]) -> usize {
        let mut refused = 0;
        for part in spans.chunks_mut(TOGETHER) {
            let mut blocks = [None; TOGETHER];
            for (span, found) in part.iter().zip(&mut blocks) {
                let Some(span) = span else {
                    continue;
                };
                *found = self.block_of_span(span).ok();
                if let Some(block) = *found {
                    // SAFETY: the block lives as long as this allocator, whose index it is in.
                    unsafe { block.as_ref() }.prefetch(span.rx().addr().get());
                }
            }
            let mut locked: Option<(usize, Guard<'_, Shard, R>)> = None;
            for (token, block) in part.iter_mut().zip(blocks) {
                let Some(span) = token else {
                    continue;
                };
                let Some(block) = block else {
                    refused += 1;
                    continue;
                };
                // SAFETY: as above; its shard never changes.
                let shard = unsafe { block.as_ref() }.shard;
                let (_, guard) = match locked.take() {
                    Some(same) if same.0 == shard => locked.insert(same),
                    other => {
                        drop(other);
                        locked.insert((shard, self.shards.lock(shard)))
                    }
                };
                // SAFETY: the arena outlives the borrow of self; the shard is locked, and no other
                // Held is alive.
                let held = unsafe { Block::held(block) };
                match self.release_held(guard, held, Which::Owned(span.info())) {
                    Ok(()) => *token = None,
                    Err(_) => refused += 1,
                }
            }
        }
        refused
    }

    /// Shrinks `span` to `new_len` bytes, rounded up to granules, returning the tail to its block.
    ///
    /// # Errors
    ///
    /// [`JitError::InvalidSize`] for zero, [`JitError::Grow`] where `new_len` takes more granules
    /// than the span has, [`JitError::NotOwned`] for another allocator's span.
    #[inline]
    pub fn shrink(&self, span: &mut Span, new_len: usize) -> Result<(), JitError> {
        let block = self.block_of_span(span)?;
        // SAFETY: the token is this allocator's, and owns the span.
        let len = unsafe { self.shrink_in(block, Which::Owned(span.info()), new_len)? };
        span.set_len(len);
        Ok(())
    }

    /// Shrinks as [`JitAllocator::shrink`] does the span that starts at `rx`; returns its length.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::shrink`]; [`JitError::NotLive`] and [`JitError::Interior`]
    /// where no span starts at `rx`.
    ///
    /// # Safety
    ///
    /// If a span starts at `rx`, the caller owns it, and no other code uses its tail.
    pub unsafe fn shrink_at(&self, rx: usize, new_len: usize) -> Result<usize, JitError> {
        self.granules(new_len, 0)?;
        let block = self.block_of(rx)?;
        // SAFETY: the block is one of the index; the caller's promise.
        unsafe { self.shrink_in(block, Which::At(rx), new_len) }
    }

    /// Shrinks a span in a block.
    ///
    /// # Safety
    ///
    /// The promises of [`JitAllocator::shrink_at`]; the block is this allocator's.
    #[inline]
    pub(super) unsafe fn shrink_in(
        &self,
        block: NonNull<Block>,
        which: Which,
        new_len: usize,
    ) -> Result<usize, JitError> {
        self.granules(new_len, 0)?;
        // SAFETY: the caller's promise.
        let (mut guard, mut held) = unsafe { self.lock_block(block) };
        let (keep, pool) = (held.granules_for(round_len(new_len)), held.block.pool);
        let span = which.find(&held)?;
        let cut = span.len().checked_sub(keep).ok_or(JitError::Grow)?;
        if cut > 0 {
            guard.totals.used -= cut << held.block.shift;
            let tail = span.start + keep..span.end;
            self.fill_granules(&held, tail);
            if held.free_tail(span, keep) {
                guard.pools[pool].update(&mut held);
            }
        }
        Ok(keep << held.block.shift)
    }

    /// Locks a block's shard.
    ///
    /// # Safety
    ///
    /// The block is this allocator's, and the result is dropped before self. The guard is kept as
    /// long as the block is used, and no other [`Held`] of the shard's blocks lives meanwhile.
    #[inline]
    pub(super) unsafe fn lock_block<'a>(
        &'a self,
        block: NonNull<Block>,
    ) -> (Guard<'a, Shard, R>, Held<'a>) {
        // SAFETY: the block lives as long as this allocator, whose it is; its shard never changes.
        let guard = self.shards.lock(unsafe { block.as_ref() }.shard);
        // SAFETY: the arena outlives the borrow of self; the lock is held, as long as the caller
        // keeps the guard.
        (guard, unsafe { Block::held(block) })
    }

    /// Finds the block that `rx` lies in.
    pub(super) fn block_of(&self, rx: usize) -> Result<NonNull<Block>, JitError> {
        let block = self.index.block_at(rx);
        block.ok_or_else(|| self.why_not_found(rx))
    }

    /// Tells padding from foreign addresses.
    fn why_not_found(&self, addr: usize) -> JitError {
        let next = self.index.block_from(addr);
        let padding = next.is_some_and(|(first, block)| {
            // SAFETY: the block lives as long as this allocator, whose index it is in.
            let shift = unsafe { block.as_ref() }.shift;
            first - addr <= self.config.padding_bytes(shift)
        });
        if padding {
            JitError::NotLive
        } else {
            JitError::NotOwned
        }
    }
}

/// Names what a pool found by the block alone, which lets go of the pool.
#[inline]
pub(super) fn found(
    taken: Option<(Held<'_>, Range<usize>)>,
) -> Option<(NonNull<Block>, Range<usize>)> {
    taken.map(|(held, span)| (held.at, span))
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

/// Which live span of a block is meant.
#[derive(Clone, Copy)]
pub(super) enum Which {
    /// The one that a token of this allocator is for.
    Owned(SpanInfo),
    /// The one that starts at an address, if one does.
    At(usize),
    /// The one that starts at an address, if one does and has this number, which it loses.
    Numbered {
        /// The address.
        rx: usize,
        /// The number.
        number: u32,
    },
}

impl Which {
    /// Finds the span's granules.
    #[inline]
    pub(super) fn find(self, held: &Held<'_>) -> Result<Range<usize>, JitError> {
        match self {
            Self::Owned(info) => {
                // A fork may have taken the block away since.
                let found = held.granule_at(info.rx.addr().get());
                let (start, _) = found.ok_or(JitError::NotOwned)?;
                let span = start..start + (info.len >> held.block.shift);
                debug_assert!(
                    held.bits().span_from(start) == Some(Ok(span.clone())),
                    "a token says what is live"
                );
                Ok(span)
            }
            Self::At(rx) => Self::find_at(held, rx),
            Self::Numbered { rx, number } => {
                let span = Self::find_at(held, rx)?;
                if held.block.tags.take_number(span.start, number) {
                    Ok(span)
                } else {
                    Err(JitError::NotLive)
                }
            }
        }
    }
}

impl Which {
    /// Finds the granules of the span that starts at an address.
    fn find_at(held: &Held<'_>, rx: usize) -> Result<Range<usize>, JitError> {
        let (granule, starts) = held.granule_at(rx).ok_or(JitError::NotOwned)?;
        let span = held.bits().span_from(granule).ok_or(JitError::NotLive)?;
        span.ok().filter(|_| starts).ok_or(JitError::Interior)
    }
}

/// Says that a span may start where a free run does.
#[expect(clippy::unnecessary_wraps, reason = "others may not")]
const fn lowest(run: &Range<usize>) -> Option<usize> {
    Some(run.start)
}
