//! What spans carry for the program: a word and a group, and a number of their own; in tables
//! (`table`) by the granule where a span starts. The file `numbers` has the calls by number.
//!
//! All are zero in every granule where no span starts: they are cleared before a span goes, so
//! that a new one appears without those of an older one. Readers take no lock.

mod table;

pub(super) use table::{Carried, Tags};

use super::{CodeProvider, JitAllocator, JitError, Span, SpanInfo, block::Block};
use crate::{provider::PageProvider, sync::RawMutex};

/// Whether spans carry a word for the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Words {
    /// They do not.
    #[default]
    None,
    /// 32 bits: an index.
    Bits32,
    /// 64 bits: a pointer.
    Bits64,
}

/// A live span, with what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveSpan {
    /// Where it is.
    pub span: SpanInfo,
    /// Its word; zero until one is set.
    pub word: u64,
    /// Its group; zero until one is set.
    pub group: u32,
    /// Its number; zero where spans have [none](super::JitConfig::numbers).
    pub number: u32,
}

impl Block {
    /// Returns what a span of this block carries.
    #[inline]
    pub(super) fn tagged(&self, span: SpanInfo) -> LiveSpan {
        self.tagged_at(self.granule_of(span.rx.addr().get()), span)
    }

    /// Returns what the span carries that starts at a granule of this block.
    #[inline]
    pub(super) fn tagged_at(&self, granule: usize, span: SpanInfo) -> LiveSpan {
        LiveSpan {
            span,
            word: self.tags.word(granule),
            group: self.tags.group(granule),
            number: self.tags.number(granule),
        }
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
    /// Finds the live span around `addr` as [`JitAllocator::query`] does, with its word and group.
    #[inline]
    pub fn query_tagged(&self, addr: usize) -> Option<LiveSpan> {
        let block = self.index.block_at(addr)?;
        // Meanwhile the bits are looked at, which tell where the span starts: few start far away.
        // SAFETY: the block lives as long as this allocator, whose index it is in.
        unsafe { block.as_ref() }.prefetch_tags(addr);
        let found = self.index.query(addr)?;
        // SAFETY: the block lives as long as this allocator, whose index it is in.
        Some(unsafe { found.block.as_ref() }.tagged(found.info))
    }

    /// Sets the word of a span: see [`JitConfig::words`](super::JitConfig::words). It goes with the
    /// span.
    ///
    /// # Errors
    ///
    /// [`JitError::Untagged`] where spans carry no word, or one of 32 bits and `word` is longer;
    /// [`JitError::NotOwned`].
    pub fn set_word(&self, span: &Span, word: u64) -> Result<(), JitError> {
        let block = self.block_of_span(span)?;
        // SAFETY: the block lives as long as this allocator, whose it is.
        let block = unsafe { block.as_ref() };
        let granule = block.granule_of(span.rx().addr().get());
        block.tags.set_word(granule, word)
    }

    /// Sets the group of a span: see [`JitConfig::groups`](super::JitConfig::groups). It goes with
    /// the span.
    ///
    /// # Errors
    ///
    /// [`JitError::Untagged`] where spans have no groups; [`JitError::NotOwned`].
    pub fn set_group(&self, span: &Span, group: u32) -> Result<(), JitError> {
        let block = self.block_of_span(span)?;
        // SAFETY: the block lives as long as this allocator, whose it is.
        let block = unsafe { block.as_ref() };
        let granule = block.granule_of(span.rx().addr().get());
        block.tags.set_group(granule, group)
    }

    /// Sets the word of the span that starts at `rx`.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::set_word`]; [`JitError::NotLive`] and [`JitError::Interior`]
    /// where no span starts at `rx`.
    ///
    /// # Safety
    ///
    /// If a span starts at `rx`, it is not released before the call returns.
    pub unsafe fn set_word_at(&self, rx: usize, word: u64) -> Result<(), JitError> {
        let (block, _) = self.live_at(rx)?;
        // SAFETY: the block lives as long as this allocator, whose it is.
        let block = unsafe { block.as_ref() };
        block.tags.set_word(block.granule_of(rx), word)
    }

    /// Sets the group of the span that starts at `rx`.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::set_group`]; [`JitError::NotLive`] and [`JitError::Interior`]
    /// where no span starts at `rx`.
    ///
    /// # Safety
    ///
    /// The promises of [`JitAllocator::set_word_at`].
    pub unsafe fn set_group_at(&self, rx: usize, group: u32) -> Result<(), JitError> {
        let (block, _) = self.live_at(rx)?;
        // SAFETY: the block lives as long as this allocator, whose it is.
        let block = unsafe { block.as_ref() };
        block.tags.set_group(block.granule_of(rx), group)
    }

    /// Releases all spans of a group; returns how many those were.
    ///
    /// Looks at every live span, but locks as a release does: other threads go on meanwhile. A span
    /// that joins the group during the call may stay.
    ///
    /// # Errors
    ///
    /// [`JitError::Untagged`] where spans have no groups.
    ///
    /// # Safety
    ///
    /// From now on no thread executes a span of the group, or uses its token or address in another
    /// call.
    pub unsafe fn release_group(&self, group: u32) -> Result<usize, JitError> {
        if !self.config.has_groups() {
            return Err(JitError::Untagged);
        }
        let mut count = 0;
        for live in self.spans().of_group(group) {
            // SAFETY: the caller uses no token or address of the group's spans any more: this
            // function's `# Safety`.
            let released = unsafe { self.release_at(live.span.rx.addr().get()) };
            count += usize::from(released.is_ok());
        }
        Ok(count)
    }
}
