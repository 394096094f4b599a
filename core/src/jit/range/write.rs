//! Pages that are made writable, and get memory ahead of the writes.

use super::CodeRange;
use crate::{
    atomic::Ordering,
    jit::{Barrier, CodeProvider, JitError, mapping::Way, views::Views},
    page::Access,
};
use core::{ops::Range, ptr::NonNull};

/// Bytes that are given memory ahead of the writes, by one call instead of a fault for each page.
const AHEAD: usize = 64 << 10;

impl<P: CodeProvider> CodeRange<P> {
    /// Makes `part`, given by offsets, writable, and returns where it is written. Costs nothing
    /// where the range is mapped twice, or writable and executable at once, and the part was not
    /// purged.
    ///
    /// A writer may be left by `longjmp` or a panic: where the range is toggled its pages stay
    /// writable until the next `begin_write` or `end_write`.
    ///
    /// # Errors
    ///
    /// [`JitError::OutOfBounds`]; [`JitError::ReadOnly`] in a forked child that lost the view;
    /// [`JitError::Protect`] where the pages could not be made writable, or got no memory.
    ///
    /// # Safety
    ///
    /// Where the range is toggled, no other thread is between this call and its
    /// [`CodeRange::end_write`], and no thread executes code in the pages of `part`, or in those
    /// that the last writer left, until then.
    #[inline]
    pub unsafe fn begin_write(&self, part: Range<usize>) -> Result<NonNull<u8>, JitError> {
        self.check(&part)?;
        if self.lost.load(Ordering::Relaxed) {
            return Err(JitError::ReadOnly);
        }
        if !self.is_writable(&part) {
            self.make_writable(&part)?;
        }
        // SAFETY: check found that the start lies in the view, or at its end.
        Ok(unsafe { self.rw().add(part.start) })
    }

    /// Makes what [`CodeRange::begin_write`] made writable executable again. Publishes nothing.
    ///
    /// # Errors
    ///
    /// [`JitError::OutOfBounds`], with nothing changed; [`JitError::Protect`], with pages that are
    /// writable still: the call may be made again.
    ///
    /// # Safety
    ///
    /// Where the range is toggled, the calling thread alone is after a `begin_write`.
    #[inline]
    pub unsafe fn end_write(&self, part: Range<usize>) -> Result<(), JitError> {
        self.check(&part)?;
        if self.way == Way::Toggle {
            return self.make_executable();
        }
        Ok(())
    }

    /// Writes `bytes` at an offset and publishes them, with a barrier where one is needed.
    ///
    /// # Errors
    ///
    /// The errors of [`CodeRange::write_at`].
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), JitError> {
        // SAFETY: `&mut` makes this the only writer. Code in pages that are toggled is only
        // executed by callers who promised to whoever wrote it that it can be. A shared slice does
        // not lie in memory that is written.
        unsafe { self.write_at(offset, bytes, Barrier::Now) }
    }

    /// Writes `bytes` at an offset and publishes them with a barrier of this kind: begin, copy, end
    /// and publish in one call.
    ///
    /// # Errors
    ///
    /// Those of [`CodeRange::begin_write`], with nothing written; those of
    /// [`CodeRange::end_write`] and [`CodeRange::publish`], with everything written.
    ///
    /// # Safety
    ///
    /// The promises of [`CodeRange::begin_write`]; `bytes` do not lie in the range, and no other
    /// thread writes to the same offsets.
    pub unsafe fn write_at(
        &self,
        offset: usize,
        bytes: &[u8],
        barrier: Barrier,
    ) -> Result<(), JitError> {
        let end = offset
            .checked_add(bytes.len())
            .ok_or(JitError::OutOfBounds)?;
        // SAFETY: the caller is the only writer where the range is toggled, and no thread executes
        // code in those pages.
        let rw = unsafe { self.begin_write(offset..end)? };
        // SAFETY: begin_write returned where as many bytes can be written, and the caller says that
        // the source lies elsewhere.
        unsafe { rw.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        // SAFETY: the caller is the only writer, and is after its begin_write.
        unsafe { self.end_write(offset..end)? };
        self.publish(offset..end, barrier)
    }

    /// Returns the whole pages around a part.
    fn pages_around(&self, part: &Range<usize>) -> Range<usize> {
        let size = self.page_size();
        // The range ends with a page, so that this rounds no further than to its end.
        let end = size.round_up(part.end).unwrap_or(part.end);
        size.round_down(part.start)..end
    }

    /// Says whether a part can be written without a call of the provider.
    #[inline]
    fn is_writable(&self, part: &Range<usize>) -> bool {
        let ready = self.ready.get();
        let is_ready = ready.start <= part.start && part.end <= ready.end;
        is_ready && self.way != Way::Toggle && self.purged.is_empty()
    }

    #[cold]
    fn make_writable(&self, part: &Range<usize>) -> Result<(), JitError> {
        let pages = self.pages_around(part);
        if let Some(Views::Dual(mapping)) = &self.views {
            let ahead = self.pages_ahead(&pages);
            // SAFETY: the mapping came from this provider.
            let given = |part: &Range<usize>| unsafe {
                self.provider.refill_dual(mapping, part.start, part.len())
            };
            let (got, result) = match given(&ahead) {
                Ok(()) => (ahead, Ok(())),
                Err(_) => (pages.clone(), given(&pages)),
            };
            result.map_err(JitError::Protect)?;
            self.purged.cut(&got);
            self.ready.add(&got);
        }
        if self.way == Way::Toggle {
            self.make_executable()?;
            self.protect(&pages, Access::ReadWrite)?;
            self.open.set(pages);
        }
        Ok(())
    }

    /// Returns pages to write to and those that come next, upwards or downwards, as the writes go.
    fn pages_ahead(&self, pages: &Range<usize>) -> Range<usize> {
        let (ready, len) = (self.ready.get(), self.len_bytes());
        let middle = len / 2;
        let goes_down = if ready.is_empty() {
            pages.start >= middle
        } else {
            pages.start < ready.start
        };
        // Whole pages, since AHEAD is, and both ends of the range are.
        let size = self.page_size();
        let ahead = size.round_up(AHEAD).unwrap_or(AHEAD);
        if goes_down {
            pages.start.saturating_sub(ahead)..pages.end
        } else {
            pages.start..pages.end.saturating_add(ahead).min(len)
        }
    }

    /// Makes what is writable executable again, where the range is toggled.
    #[cold]
    fn make_executable(&self) -> Result<(), JitError> {
        if !self.open.is_empty() {
            self.protect(&self.open.get(), Access::ReadExec)?;
            self.open.set(0..0);
        }
        Ok(())
    }

    fn protect(&self, pages: &Range<usize>, access: Access) -> Result<(), JitError> {
        let Some(Views::Single(range, _)) = &self.views else {
            return Ok(());
        };
        match range.part(pages.start, pages.len(), self.page) {
            // SAFETY: committed pages of this range, with a ceiling of both accesses; the callers
            // of begin_write promise that no thread executes code there.
            Some(part) => unsafe { self.provider.protect(part, access) }.map_err(JitError::Protect),
            None => Ok(()), // Of no length.
        }
    }
}
