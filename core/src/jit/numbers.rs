//! Spans that are known by their address and a number of their own.

use super::{
    CodeProvider, JitAllocator, JitError, Span, alloc::describe, block::Block, find::Which,
};
use crate::{provider::PageProvider, sync::RawMutex};
use core::{ops::Range, ptr::NonNull, sync::atomic::Ordering};

/// Numbers that a shard takes at a time.
const NUMBERS: u32 = 256;

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
        if !self.config.has_numbers() {
            return Err(JitError::Untagged);
        }
        let (block, info) = self.live_at(rx)?;
        // SAFETY: the block lives as long as this allocator, whose it is.
        let block = unsafe { block.as_ref() };
        // Zero is what one has whose number was taken away.
        if number == 0 || block.tags.number(block.granule_of(rx)) != number {
            return Err(JitError::NotLive);
        }
        Ok(Span::new(info, self.id()))
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
    #[inline]
    fn numbered(&self, rx: usize, number: u32) -> Result<(NonNull<Block>, Which), JitError> {
        if !self.config.has_numbers() {
            return Err(JitError::Untagged);
        }
        Ok((self.block_of(rx)?, Which::Numbered { rx, number }))
    }
}
