//! Calls that write code.

use super::{
    Barrier, CodeProvider, JitAllocator, JitError, Span, SpanInfo,
    block::{Block, Held},
};
use crate::{arch, provider::PageProvider, sync::RawMutex};
use core::{marker::PhantomData, ops::Range, ptr::NonNull, slice};

/// A span that is being written: what [`JitAllocator::write_with`] hands to its closure.
#[derive(Debug)]
pub struct SpanWriter<'a> {
    info: SpanInfo,
    keep: usize,
    bytes: PhantomData<&'a mut [u8]>,
}

impl SpanWriter<'_> {
    /// Returns the span's bytes: what it held before, all of it writable.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: a slice needs initialised memory that no other code touches meanwhile.
        // - the writable view of a live span is mapped, and pages read zero at first;
        // - the writer stands for the exclusive borrow of the span's token.
        unsafe { slice::from_raw_parts_mut(self.info.rw.as_ptr(), self.info.len) }
    }

    /// Returns where the span will be executed.
    #[must_use]
    pub const fn rx(&self) -> NonNull<u8> {
        self.info.rx
    }

    /// Shrinks the span to its first `new_len` bytes, rounded up to granules, once the closure
    /// returns. The call after the last counts.
    pub const fn shrink_to(&mut self, new_len: usize) {
        self.keep = new_len;
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
    /// Writes `bytes` at `offset` in `span` through the writable view and publishes them, so that
    /// they can be executed. `bytes` lies outside this allocator's memory.
    ///
    /// Takes no lock, unless blocks are mapped once; makes a system call only where code was
    /// published before, in this span or in one that had its memory. [`SyncCores`] says more.
    ///
    /// [`SyncCores`]: super::SyncCores
    ///
    /// # Errors
    ///
    /// [`JitError::OutOfBounds`] and [`JitError::NotOwned`] with nothing written;
    /// [`JitError::SyncCores`] with everything written, but another core may still run what it
    /// had fetched; [`JitError::Protect`].
    #[inline]
    pub fn write(&self, span: &mut Span, offset: usize, bytes: &[u8]) -> Result<(), JitError> {
        self.write_by(self.config.barrier(), span, offset, bytes)
    }

    /// Writes as [`JitAllocator::write`] does, and leaves the barrier to the next
    /// [`JitAllocator::publish`], or to the end of a batch: until then the code is not to be
    /// executed by another thread, which may have fetched what was there before.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::write`], but for [`JitError::SyncCores`].
    #[inline]
    pub fn write_deferred(
        &self,
        span: &mut Span,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), JitError> {
        self.write_by(Barrier::Deferred, span, offset, bytes)
    }

    #[inline]
    fn write_by(
        &self,
        barrier: Barrier,
        span: &mut Span,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), JitError> {
        let block = self.block_of_span(span)?;
        // SAFETY: the token owns the span, and `&mut` makes this the only writer.
        unsafe { self.put(block, &span.info(), offset, bytes)? };
        // SAFETY: the token owns the span, which is live, and the bytes lie in it, since put
        // returned.
        let reused = unsafe { publish_in(block, span.rx().addr().get() + offset, bytes.len()) };
        self.sync_by(barrier, reused)
    }

    /// Writes as [`JitAllocator::write`] does, to the span that starts at `rx`.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::write`]; [`JitError::NotLive`] and [`JitError::Interior`]
    /// where no span starts at `rx`.
    ///
    /// # Safety
    ///
    /// If a span starts at `rx`, the caller owns it, no other code writes those bytes now, and
    /// no thread executes them unless any mix of old and new bytes does no harm.
    pub unsafe fn write_at(&self, rx: usize, offset: usize, bytes: &[u8]) -> Result<(), JitError> {
        let (block, info) = self.live_at(rx)?;
        // SAFETY: the caller owns the span, which is live in `block`, and no other code writes
        // those bytes: this function's `# Safety`.
        unsafe { self.put(block, &info, offset, bytes)? };
        // SAFETY: the caller owns the span, by this function's `# Safety`, and the bytes lie in it,
        // since put returned.
        let reused = unsafe { publish_in(block, rx + offset, bytes.len()) };
        self.sync_by(self.config.barrier(), reused)
    }

    /// Lets `write` fill `span` in place, publishes all of it, and shrinks it if asked to.
    ///
    /// `write` may call the allocator, and write, shrink and release other spans. Where blocks are
    /// mapped once it must not fork and go on writing in the child, where the memory is executable
    /// and not writable.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::write`]; with everything written and nothing published, those
    /// of [`JitAllocator::shrink`].
    pub fn write_with<T>(
        &self,
        span: &mut Span,
        write: impl FnOnce(&mut SpanWriter<'_>) -> T,
    ) -> Result<T, JitError> {
        let (result, block) = self.fill_in(span, write)?;
        // SAFETY: the token owns the span, which is live in the block.
        let reused = unsafe { publish_in(block, span.rx().addr().get(), span.len_bytes()) };
        self.sync_by(self.config.barrier(), reused)?;
        Ok(result)
    }

    /// Lets `write` fill `span`, and shrinks it if asked to; returns its block too.
    pub(super) fn fill_in<T>(
        &self,
        span: &mut Span,
        write: impl FnOnce(&mut SpanWriter<'_>) -> T,
    ) -> Result<(T, NonNull<Block>), JitError> {
        let block = self.block_of_span(span)?;
        // SAFETY: the token owns the span, and `&mut` makes this the only writer.
        let (result, keep) = unsafe { self.put_with(block, span.info(), write)? };
        if keep != span.len_bytes() {
            self.shrink(span, keep)?;
        }
        Ok((result, block))
    }

    /// Finds the block of a live span of this allocator. A fork may have taken it away. Always
    /// compiled into its caller, which then returns no error through memory.
    #[inline(always)]
    pub(super) fn block_of_span(&self, span: &Span) -> Result<NonNull<Block>, JitError> {
        let block = if span.owner() == self.id() {
            self.index.block_at(span.rx().addr().get())
        } else {
            None
        };
        block.ok_or(JitError::NotOwned)
    }

    /// Runs `write` on a span's bytes; returns how much of the span is to be kept too.
    ///
    /// # Safety
    ///
    /// The caller owns the span, which is live in `block`, and no other code writes to it.
    unsafe fn put_with<T>(
        &self,
        block: NonNull<Block>,
        info: SpanInfo,
        write: impl FnOnce(&mut SpanWriter<'_>) -> T,
    ) -> Result<(T, usize), JitError> {
        // SAFETY: the block lives as long as this allocator, whose it is.
        check_writable(unsafe { block.as_ref() })?;
        let mut writer = SpanWriter {
            info,
            keep: info.len,
            bytes: PhantomData,
        };
        // SAFETY: the span is live, so its block stays mapped.
        let result = unsafe { self.while_writable(info.rw, info.len, || write(&mut writer))? };
        Ok((result, writer.keep))
    }

    /// Finds the live span that starts at `rx`, and its block.
    pub(super) fn live_at(&self, rx: usize) -> Result<(NonNull<Block>, SpanInfo), JitError> {
        let (block, info) = self.live_around(rx)?;
        if info.rx.addr().get() == rx {
            Ok((block, info))
        } else {
            Err(JitError::Interior)
        }
    }

    /// Copies bytes into a span, to be published.
    ///
    /// # Safety
    ///
    /// The caller owns the span, which is live in `block`, and no other code writes those bytes.
    #[inline]
    pub(super) unsafe fn put(
        &self,
        block: NonNull<Block>,
        info: &SpanInfo,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), JitError> {
        let end = offset.checked_add(bytes.len());
        if end.is_none_or(|end| end > info.len) {
            return Err(JitError::OutOfBounds);
        }
        // SAFETY: the block lives as long as this allocator, whose it is.
        check_writable(unsafe { block.as_ref() })?;
        if bytes.is_empty() {
            return Ok(());
        }
        // SAFETY: offset lies within the span, as just checked.
        let rw = unsafe { info.rw.add(offset) };
        let copy = || {
            // SAFETY: copying needs a source and a destination that do not overlap.
            // - bytes is a live slice outside the views, by write's contract;
            // - the span's bytes behind rw are writable now, and the caller's alone.
            unsafe { rw.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) }
        };
        // SAFETY: the span is live, so its block stays mapped.
        unsafe { self.while_writable(rw, bytes.len(), copy) }
    }

    /// Writes the fill pattern, if there is one, to granules that belong to no span. The block's
    /// shard is locked.
    #[inline]
    pub(super) fn fill_granules(&self, held: &Held<'_>, granules: Range<usize>) {
        if let Some(pattern) = self.config.fill_kind().pattern() {
            self.fill_granules_with(pattern, held, granules);
        }
    }

    /// Writes the fill pattern, if there is one, to all of a block, padding too. Its shard is
    /// locked, and no thread uses a span of it.
    pub(super) fn fill_block(&self, held: &Held<'_>) {
        if let Some(pattern) = self.config.fill_kind().pattern()
            && let Some(views) = held.views()
        {
            let (rw, rx) = (views.rw().start(), views.rx().start());
            self.fill_bytes(pattern, held, (rw, rx), views.len_bytes());
        }
    }

    #[cold]
    fn fill_granules_with(&self, pattern: u32, held: &Held<'_>, granules: Range<usize>) {
        if !granules.is_empty() {
            let views = (held.rw(granules.start), held.rx(granules.start));
            self.fill_bytes(pattern, held, views, granules.len() << held.block.shift);
        }
    }

    /// Fills bytes of the block that belong to no span, given where they are written and executed.
    fn fill_bytes(
        &self,
        pattern: u32,
        held: &Held<'_>,
        (rw, rx): (NonNull<u8>, NonNull<u8>),
        len: usize,
    ) {
        if !held.block.writable() {
            return;
        }
        let fill = || {
            // SAFETY: granules and pages are multiples of four bytes at multiples of four, they lie
            // in the writable view, and belong to no span, so they are this allocator's alone.
            let words = unsafe { slice::from_raw_parts_mut(rw.as_ptr().cast::<u32>(), len / 4) };
            words.fill(pattern);
        };
        // SAFETY: the shard is locked, so the block stays mapped.
        let filled = unsafe { self.while_writable(rw, len, fill) };
        // Where pages cannot be made writable, the error has no receiver: the old code stays.
        if filled.is_ok() {
            // SAFETY: the same bytes, through the executable view.
            unsafe { arch::publish_code(rx.as_ptr(), len) };
            arch::discard_translations(rx.as_ptr(), len);
        }
    }
}

/// Says why a block's spans cannot be written, if so: a fork took the writable view away.
#[inline]
pub(super) fn check_writable(block: &Block) -> Result<(), JitError> {
    if block.writable() {
        Ok(())
    } else {
        Err(JitError::ReadOnly)
    }
}

/// Makes bytes of a span visible to instruction fetches, and notes it; says whether a barrier is
/// needed, since other cores may have fetched what was there before.
///
/// # Safety
///
/// The bytes lie in a live span of the block, which the caller owns.
#[inline]
pub(super) unsafe fn publish_in(block: NonNull<Block>, rx: usize, len: usize) -> bool {
    if len == 0 {
        return false;
    }
    // SAFETY: the caller's block lives as long as its allocator.
    let block = unsafe { block.as_ref() };
    let code = block.executable(rx);
    // SAFETY: the bytes lie in a live span, whose executable view is mapped and readable.
    unsafe { arch::publish_code(code, len) };
    note(block, code, len)
}

/// Notes that bytes of a span were published; says what [`publish_in`] does.
///
/// # Safety
///
/// The promises of [`publish_in`]; there is at least one byte.
#[inline]
pub(super) unsafe fn note_in(block: NonNull<Block>, code: *const u8, len: usize) -> bool {
    // SAFETY: the caller's block lives as long as its allocator.
    note(unsafe { block.as_ref() }, code, len)
}

#[inline]
fn note(block: &Block, code: *const u8, len: usize) -> bool {
    let reused = block.note_published(code.addr(), len);
    if reused {
        arch::discard_translations(code, len);
    }
    reused || arch::FETCHES_AHEAD
}
