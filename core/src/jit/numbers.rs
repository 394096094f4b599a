//! Spans that are known by their address and a number of their own.

use super::{
    Barrier, CodeProvider, JitAllocator, JitError, PatchWord, Span, SpanInfo, alloc::describe,
    block::Block, find::Which, write::publish_in,
};
use crate::{provider::PageProvider, sync::RawMutex};
use core::{ops::Range, ptr::NonNull, sync::atomic::Ordering};

/// Numbers that a shard takes at a time.
const NUMBERS: u32 = 256;

/// A span that was just allocated, by its number: what a program has of it that cannot keep tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Numbered {
    /// Where it is.
    pub info: SpanInfo,
    /// Its number; zero where spans have [none](super::JitConfig::numbers).
    pub number: u32,
}

/// Spans that are known by their address and number, for programs that copy what names a span.
impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
    /// Returns the next number of a span, which is never zero, from those that its shard has.
    #[inline]
    pub(super) fn next_number(&self, own: &mut Range<u32>) -> u32 {
        loop {
            match own.next() {
                Some(0) => {}
                Some(number) => return number,
                None => {
                    let start = self.numbers.fetch_add(NUMBERS, Ordering::Relaxed);
                    // The last one is not used where numbers begin again.
                    *own = start..start.saturating_add(NUMBERS);
                }
            }
        }
    }

    /// Makes a token of the live span that starts at `rx` and has this number, as a program keeps
    /// them that cannot keep tokens: one in C.
    ///
    /// # Errors
    ///
    /// [`JitError::NotOwned`], [`JitError::NotLive`] or [`JitError::Interior`] where no span starts
    /// at `rx`; [`JitError::NotLive`] where one does that has another number, since the one meant
    /// was released; [`JitError::Untagged`] where spans have no
    /// [numbers](super::JitConfig::numbers).
    ///
    /// # Safety
    ///
    /// If the span is live, the caller owns it; no other token of it is used as long as this one
    /// is, and no other code releases the span meanwhile, by its address or number.
    #[inline]
    pub unsafe fn span_at(&self, rx: usize, number: u32) -> Result<Span, JitError> {
        let (_, info) = self.live_numbered(rx, number)?;
        Ok(Span::new(info, self.id()))
    }

    /// Finds the live span that starts at `rx` and has this number, which is the caller's, and its
    /// block. Always compiled into its caller, which then returns no error through memory.
    #[inline(always)]
    fn live_numbered(
        &self,
        rx: usize,
        number: u32,
    ) -> Result<(NonNull<Block>, SpanInfo), JitError> {
        let found = self.index.block_at(rx).and_then(|block| {
            // SAFETY: the block lives as long as this allocator, whose index it is in.
            let info = unsafe { block.as_ref() }.span_numbered(rx, number)?;
            Some((block, info))
        });
        found.ok_or_else(|| self.why_not_numbered(rx))
    }

    /// Says why no span of a certain number starts at an address.
    #[cold]
    fn why_not_numbered(&self, rx: usize) -> JitError {
        if !self.config.has_numbers() {
            return JitError::Untagged;
        }
        self.live_at(rx).err().unwrap_or(JitError::NotLive)
    }

    /// Writes as [`JitAllocator::write`] does, to the span that starts at `rx` and has this number.
    ///
    /// # Errors
    ///
    /// Those of [`JitAllocator::write`] and [`JitAllocator::span_at`].
    ///
    /// # Safety
    ///
    /// If the span is live, the caller owns it, and no other code writes to it, or releases it,
    /// before the call returns. No thread executes those bytes unless any mix of old and new ones
    /// does no harm.
    #[inline]
    pub unsafe fn write_numbered(
        &self,
        (rx, number): (usize, u32),
        offset: usize,
        bytes: &[u8],
        barrier: Option<Barrier>,
    ) -> Result<(), JitError> {
        let (block, info) = self.live_numbered(rx, number)?;
        // SAFETY: the caller owns the span, which is live in the block, and no other code writes to
        // it: this function's `# Safety`.
        unsafe { self.put(block, &info, offset, bytes)? };
        // SAFETY: the caller owns the span, and the bytes lie in it, since put returned.
        let reused = unsafe { publish_in(block, rx + offset, bytes.len()) };
        self.sync_by(barrier.unwrap_or(self.config.barrier()), reused)
    }

    /// Patches as [`JitAllocator::patch`] does, in the span that starts at `rx` and has this
    /// number.
    ///
    /// # Errors
    ///
    /// Those of [`JitAllocator::patch`] and [`JitAllocator::span_at`].
    ///
    /// # Safety
    ///
    /// If the span is live, the caller owns it, it is not released before the call returns, and no
    /// other code writes those bytes but by patches.
    #[inline]
    pub unsafe fn patch_numbered<W: PatchWord>(
        &self,
        (rx, number): (usize, u32),
        offset: usize,
        value: W,
        barrier: Barrier,
    ) -> Result<(), JitError> {
        let (block, info) = self.live_numbered(rx, number)?;
        // SAFETY: the span is live and is not released meanwhile, and only patches write those
        // bytes: this function's `# Safety`.
        unsafe { self.store(block, &info, offset, value)? };
        // SAFETY: the span stays live, by this function's `# Safety`, and the bytes lie in it,
        // since store returned.
        let reused = unsafe { publish_in(block, rx + offset, size_of::<W>()) };
        self.sync_by(barrier, reused)
    }

    /// Returns the number of a span; zero where spans have [none](super::JitConfig::numbers), and
    /// where it was [taken](JitAllocator::take_numbered) away.
    ///
    /// # Errors
    ///
    /// [`JitError::NotOwned`].
    #[inline]
    pub fn number(&self, span: &Span) -> Result<u32, JitError> {
        let block = self.block_of_span(span)?;
        // SAFETY: the block lives as long as this allocator, whose it is.
        let block = unsafe { block.as_ref() };
        Ok(block.tags.number(block.granule_of(span.rx().addr().get())))
    }

    /// Gives the span back that starts at `rx` and has this number. Of several calls for one span,
    /// at the same time or one after the other, one succeeds.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::span_at`]; nothing changes then.
    ///
    /// # Safety
    ///
    /// If the span is live, the caller owns it, and no token of it is used again.
    #[inline]
    pub unsafe fn release_numbered(&self, rx: usize, number: u32) -> Result<(), JitError> {
        let (block, which) = self.numbered(rx, number)?;
        // SAFETY: the block is one of the index; if the span is live, the caller owns it and uses
        // no token of it again, by this function's `# Safety`.
        unsafe { self.release_in(block, which) }
    }

    /// Takes the span that starts at `rx` and has this number: makes its token, and takes the
    /// number away, so that copies of what named the span are refused from now on. Of several
    /// calls for one span one succeeds.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::span_at`]; nothing changes then.
    ///
    /// # Safety
    ///
    /// If the span is live, the caller owns it, and no other token of it is used again.
    pub unsafe fn take_numbered(&self, rx: usize, number: u32) -> Result<Span, JitError> {
        let (block, which) = self.numbered(rx, number)?;
        // SAFETY: the block is one of the index, and the guard is kept until the span is described.
        let (_guard, held) = unsafe { self.lock_block(block) };
        let span = which.find(&held)?;
        Ok(Span::new(describe(&held, &span), self.id()))
    }

    /// Gives a span a number that was [taken](JitAllocator::take_numbered) away from it.
    ///
    /// # Errors
    ///
    /// [`JitError::NotOwned`]; [`JitError::Untagged`] where spans have no numbers.
    pub fn set_number(&self, span: &Span, number: u32) -> Result<(), JitError> {
        if !self.config.has_numbers() {
            return Err(JitError::Untagged);
        }
        let block = self.block_of_span(span)?;
        // SAFETY: the block lives as long as this allocator, whose it is.
        let block = unsafe { block.as_ref() };
        block
            .tags
            .set_number(block.granule_of(span.rx().addr().get()), number);
        Ok(())
    }

    /// Finds the block that a numbered span would lie in.
    #[inline(always)]
    fn numbered(&self, rx: usize, number: u32) -> Result<(NonNull<Block>, Which), JitError> {
        if !self.config.has_numbers() {
            return Err(JitError::Untagged);
        }
        Ok((self.block_of(rx)?, Which::Numbered { rx, number }))
    }
}
