//! Many writes, published at once.

use super::{CodeProvider, JitAllocator, JitError, Span, SpanWriter};
use crate::{
    arch,
    provider::PageProvider,
    sync::{RawMutex, Spin},
};
use core::{fmt, ptr};

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
    /// Written, and not yet published.
    ranges: [(*const u8, usize); RANGES],
    len: usize,
    reused: bool,
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
    /// Begins a scope of many writes.
    pub const fn batch(&self) -> Batch<'_, P, M, R> {
        Batch {
            jit: self,
            ranges: [(ptr::null(), 0); RANGES],
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
    pub fn write(
        &mut self,
        span: &'a mut Span,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), JitError> {
        self.jit.check_owner(span)?;
        // SAFETY: the token owns the span, and `&mut` makes this the only writer.
        let reused = unsafe { self.jit.put(span.block(), &span.info(), offset, bytes)? };
        self.reused |= reused;
        // SAFETY: the bytes lie in the span, since put returned.
        let start = unsafe { span.rx().as_ptr().add(offset) };
        self.remember(start, bytes.len());
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
        let (result, reused) = self.jit.fill_in(span, write)?;
        self.reused |= reused;
        self.remember(span.rx().as_ptr(), span.len_bytes());
        Ok(result)
    }

    fn remember(&mut self, start: *const u8, len: usize) {
        if let Some((last, last_len)) = self.ranges[..self.len].last_mut()
            && last.wrapping_add(*last_len) == start
        {
            *last_len += len;
            return;
        }
        if self.len == RANGES {
            self.publish();
        }
        self.ranges[self.len] = (start, len);
        self.len += 1;
    }

    /// Does the cache maintenance for everything that was written.
    fn publish(&mut self) {
        // SAFETY: every range lies in the executable view of a span whose token has been borrowed
        // since, so that it is live.
        unsafe { arch::publish_ranges(&self.ranges[..self.len]) };
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
        self.reused = false;
        self.publish();
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
