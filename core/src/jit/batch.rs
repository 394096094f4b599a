//! Many writes, published at once.

use super::{
    CodeProvider, JitAllocator, JitError, PatchWord, Span, SpanWriter, block::Block, write::note_in,
};
use crate::{
    arch,
    provider::PageProvider,
    sync::{RawMutex, Spin},
};
use core::{fmt, ptr, ptr::NonNull};

/// Ranges remembered between two passes of cache maintenance: what 64 small functions take, and a
/// kibibyte of stack.
const RANGES: usize = 64;

/// A scope of many writes with one pass of cache maintenance and one barrier for other cores, both
/// in [`Batch::finish`]. Until then nothing that was written may be executed.
///
/// Made by [`JitAllocator::batch`]. Dropped without an end, it publishes as `finish` does, and
/// keeps an error to itself.
///
/// ```
/// # use hostmem_core::jit::{CodeProvider, JitAllocator, JitError, Span};
/// # fn replace<P: CodeProvider>(
/// #     jit: &JitAllocator<P>, first: &mut Span, second: &mut Span,
/// # ) -> Result<(), JitError> {
/// let mut batch = jit.batch();
/// batch.write(first, 0, &[0xc3])?;
/// batch.write(second, 0, &[0xc3])?;
/// batch.finish()
/// # }
/// ```
///
/// A span that it still has to publish cannot be released:
///
/// ```compile_fail,E0505
/// # use hostmem_core::jit::{CodeProvider, JitAllocator, Span};
/// # fn wrong<P: CodeProvider>(jit: &JitAllocator<P>, mut span: Span) {
/// let mut batch = jit.batch();
/// batch.write(&mut span, 0, &[0xc3]).expect("it fits");
/// jit.release(span).expect("it is owned");
/// batch.finish().expect("cores can be synchronized");
/// # }
/// ```
#[must_use = "what was written can be executed after `finish` only"]
pub struct Batch<'a, P: CodeProvider, M: PageProvider + Copy = P, R: RawMutex = Spin> {
    jit: &'a JitAllocator<P, M, R>,
    /// Written, and not yet published: of one block each.
    ranges: [(*const u8, usize); RANGES],
    blocks: [Option<NonNull<Block>>; RANGES],
    len: usize,
    reused: bool,
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
    /// Begins a scope of many writes.
    pub const fn batch(&self) -> Batch<'_, P, M, R> {
        Batch {
            jit: self,
            ranges: [(ptr::null(), 0); RANGES],
            blocks: [None; RANGES],
            len: 0,
            reused: false,
        }
    }
}

impl<'a, P: CodeProvider, M: PageProvider + Copy, R: RawMutex> Batch<'a, P, M, R> {
    /// Writes `bytes` at `offset` in `span`, to be executed after the end of the batch, which
    /// borrows the span until then: for several pieces of one span there is
    /// [`Batch::write_with`]. `bytes` lies outside the allocator's memory.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::write`], but for [`JitError::SyncCores`].
    #[inline]
    pub fn write(
        &mut self,
        span: &'a mut Span,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), JitError> {
        let block = self.jit.block_of_span(span)?;
        // SAFETY: the token owns the span, and `&mut` makes this the only writer.
        unsafe { self.jit.put(block, &span.info(), offset, bytes)? };
        self.remember(block, span.rx().addr().get() + offset, bytes.len());
        Ok(())
    }

    /// Writes as [`Batch::write`] does, to the span that starts at `rx`, as often as it takes.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::write_at`], but for [`JitError::SyncCores`].
    ///
    /// # Safety
    ///
    /// The promises of [`JitAllocator::write_at`]; and the span is not released before the end of
    /// the batch.
    pub unsafe fn write_at(
        &mut self,
        rx: usize,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), JitError> {
        let (block, info) = self.jit.live_at(rx)?;
        // SAFETY: the caller owns the span, which is live in `block`, and no other code writes
        // those bytes: the `# Safety` of write_at.
        unsafe { self.jit.put(block, &info, offset, bytes)? };
        self.remember(block, rx + offset, bytes.len());
        Ok(())
    }

    /// Patches as [`JitAllocator::patch`] does, with the batch's barrier: old instructions may run
    /// on other cores until its end.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::patch`], but for [`JitError::SyncCores`].
    #[inline]
    pub fn patch<W: PatchWord>(
        &mut self,
        span: &'a Span,
        offset: usize,
        value: W,
    ) -> Result<(), JitError> {
        let block = self.jit.block_of_span(span)?;
        // SAFETY: the token says that the span is live, and is borrowed until the batch has ended.
        unsafe { self.jit.store(block, &span.info(), offset, value)? };
        self.remember(block, span.rx().addr().get() + offset, size_of::<W>());
        Ok(())
    }

    /// Patches as [`JitAllocator::patch_at`] does, with the batch's barrier.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::patch_at`], but for [`JitError::SyncCores`].
    ///
    /// # Safety
    ///
    /// The promises of [`JitAllocator::patch_at`]; and the span is not released before the end of
    /// the batch.
    pub unsafe fn patch_at<W: PatchWord>(&mut self, at: usize, value: W) -> Result<(), JitError> {
        let (block, info) = self.jit.live_around(at)?;
        // SAFETY: the span is not released before the end of the batch, and only patches write
        // those bytes: the `# Safety` of patch_at.
        unsafe {
            self.jit
                .store(block, &info, at - info.rx.addr().get(), value)?
        };
        self.remember(block, at, size_of::<W>());
        Ok(())
    }

    /// Lets `write` fill `span` in place, and shrinks it if asked to, as
    /// [`JitAllocator::write_with`] does; to be executed after the end of the batch.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::write_with`], but for [`JitError::SyncCores`].
    pub fn write_with<T>(
        &mut self,
        span: &'a mut Span,
        write: impl FnOnce(&mut SpanWriter<'_>) -> T,
    ) -> Result<T, JitError> {
        let (result, block) = self.jit.fill_in(span, write)?;
        self.remember(block, span.rx().addr().get(), span.len_bytes());
        Ok(result)
    }

    #[inline]
    fn remember(&mut self, block: NonNull<Block>, rx: usize, len: usize) {
        if len == 0 {
            return;
        }
        // SAFETY: the block lives as long as its allocator.
        let start = unsafe { block.as_ref() }.executable(rx);
        if let Some((last, last_len)) = self.ranges[..self.len].last_mut()
            && last.wrapping_add(*last_len) == start
            && self.blocks[self.len - 1] == Some(block)
        {
            *last_len += len;
            return;
        }
        if self.len == RANGES {
            self.publish();
        }
        self.ranges[self.len] = (start, len);
        self.blocks[self.len] = Some(block);
        self.len += 1;
    }

    /// Does the cache maintenance for everything that was written, and notes it.
    fn publish(&mut self) {
        let ranges = &self.ranges[..self.len];
        // SAFETY: every range lies in the executable view of a span that is live: its token has
        // been borrowed since, or the caller promised so.
        unsafe { arch::publish_ranges(ranges) };
        for (&(start, len), block) in ranges.iter().zip(&self.blocks) {
            if let Some(block) = *block {
                // SAFETY: the range lies in a live span of `block`, whose token has been borrowed
                // since, or whose owner promised so; ranges are not empty.
                self.reused |= unsafe { note_in(block, start, len) };
            }
        }
        self.len = 0;
    }

    /// Publishes everything that was written, so that it can be executed.
    ///
    /// # Errors
    ///
    /// [`JitError::SyncCores`]: other cores may still run what they had fetched.
    pub fn finish(mut self) -> Result<(), JitError> {
        self.end()
    }

    /// Publishes everything that was written to this core and to those that have not executed what
    /// was there before: for callers that synchronize their executors themselves.
    pub fn finish_without_sync(mut self) {
        self.publish();
        self.reused = false;
    }

    fn end(&mut self) -> Result<(), JitError> {
        self.publish();
        self.jit.sync_if(core::mem::take(&mut self.reused))
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> Drop for Batch<'_, P, M, R> {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> fmt::Debug for Batch<'_, P, M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("ranges", &self.len)
            .field("reused", &self.reused)
            .finish_non_exhaustive()
    }
}
