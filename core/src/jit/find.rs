//! Which block and which span of it a call means.

use super::{
    CodeProvider, JitAllocator, JitError, SpanInfo,
    block::{Block, Held},
    shard::Shard,
};
use crate::{
    provider::PageProvider,
    sync::{Guard, RawMutex},
};
use core::{ops::Range, ptr::NonNull};

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
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
    #[inline]
    pub(super) fn block_of(&self, rx: usize) -> Result<NonNull<Block>, JitError> {
        let block = self.index.block_at(rx);
        block.ok_or_else(|| self.why_not_found(rx))
    }

    /// Tells padding from foreign addresses.
    #[cold]
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
    /// Finds the span's granules. Always compiled into its caller, which knows what is meant.
    #[inline(always)]
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
                // Numbers are where live spans start, and nowhere else.
                if let Some((granule, true)) = held.granule_at(rx)
                    && held.block.tags.take_number(granule, number)
                {
                    return Ok(granule..held.bits().end_of(granule));
                }
                Err(Self::why_not_numbered(held, rx))
            }
        }
    }

    /// Says why no span with a certain number starts at an address.
    #[cold]
    fn why_not_numbered(held: &Held<'_>, rx: usize) -> JitError {
        Self::find_at(held, rx).err().unwrap_or(JitError::NotLive)
    }

    /// Finds the granules of the span that starts at an address.
    #[inline]
    fn find_at(held: &Held<'_>, rx: usize) -> Result<Range<usize>, JitError> {
        let (granule, starts) = held.granule_at(rx).ok_or(JitError::NotOwned)?;
        let span = held.bits().span_from(granule).ok_or(JitError::NotLive)?;
        span.ok().filter(|_| starts).ok_or(JitError::Interior)
    }
}
