//! Calls that give memory back: releases, and spans that become shorter.

use super::{
    CodeProvider, JitAllocator, JitError, Refused, Span,
    block::{Block, Held},
    find::Which,
    shard::Shard,
    span::round_len,
};
use crate::{
    provider::PageProvider,
    sync::{Guard, RawMutex},
};
use core::ptr::NonNull;

/// Spans that are released under one lock.
const TOGETHER: usize = 16;

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
    /// Gives a span back.
    ///
    /// No thread may execute it any more, which only its owner can know; releasing is safe because
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
        // SAFETY: the block is one of the index; the caller owns the span that starts at `rx`, by
        // this function's `# Safety`.
        unsafe { self.release_in(block, Which::At(rx)) }
    }

    /// Gives a span in a block back. Always compiled into its caller, which knows what is meant.
    ///
    /// # Safety
    ///
    /// The promises of [`JitAllocator::release_at`]; the block is this allocator's.
    #[inline(always)]
    pub(super) unsafe fn release_in(
        &self,
        block: NonNull<Block>,
        which: Which,
    ) -> Result<(), JitError> {
        // SAFETY: the block is this allocator's, by this function's `# Safety`, and the guard is
        // kept until the span is released.
        let (mut guard, held) = unsafe { self.lock_block(block) };
        self.release_held(&mut guard, held, which)
    }

    /// Gives a span in a block back, whose owner asked for it; the shard is locked. Always compiled
    /// into its caller, as [`JitAllocator::release_in`] is.
    #[inline(always)]
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
                // SAFETY: the block lives as long as this allocator, whose index it is in; its
                // shard never changes.
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
        // SAFETY: the block is one of the index; the caller owns the span that starts at `rx`, and
        // no other code uses its tail: this function's `# Safety`.
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
        // SAFETY: the block is this allocator's, by this function's `# Safety`, and the guard is
        // kept to the end of this function.
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
}
