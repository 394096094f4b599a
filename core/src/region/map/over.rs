//! Mapping over pages that are in use.

use super::super::{
    PageState, RegionAllocator,
    fork::Undo,
    lock::Held,
    record::{Mark, Record},
};
use super::can_be_placed;
use crate::{
    page::PageRange,
    provider::{Commit, Error, ErrorKind, PageProvider, Place, Request},
    range_map::Pages,
    sync::RawMutex,
};

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> RegionAllocator<P, M, R> {
    /// Maps memory at exactly this range, in place of what the allocator has there, free or not.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutsideRange`] where some of it is not the allocator's, [`ErrorKind::Taken`]
    /// where a view of a dual mapping lies in it: nothing changes then. The error of the provider
    /// below: where something was there before, it may be gone, and its addresses free.
    ///
    /// # Safety
    ///
    /// No other code uses the memory that is replaced.
    pub unsafe fn map_over(&self, range: PageRange, how: Commit, tag: u16) -> Result<(), Error> {
        let pages = self.pages(range)?;
        loop {
            let mut held = self.lock();
            let parts = held.parts;
            if parts
                .entries(pages)
                .any(|(_, r)| r == Some(Record::Foreign))
            {
                return Err(ErrorKind::OutsideRange.into());
            }
            let committed = parts.committed_in(pages)?;
            parts.tree.prepare(&mut held.writer, &parts.arena, 2)?;
            if !self.begin(&held, Undo::Free, pages) {
                continue;
            }
            // SAFETY: none of the pages is foreign, and committed_in has seen no view among them;
            // no other code uses them, by this function's condition.
            let done = unsafe { self.replace(&mut held, pages, committed, how, tag) };
            if self.finish(&held, Undo::Free, pages) {
                return done;
            }
        }
    }

    /// Replaces pages, which are committed from where to where `committed` says.
    ///
    /// # Safety
    ///
    /// All of them are the allocator's, none is in a view of a dual mapping, and no other code uses
    /// them.
    unsafe fn replace(
        &self,
        held: &mut Held<'_, M, R>,
        pages: Pages,
        committed: Option<Pages>,
        how: Commit,
        tag: u16,
    ) -> Result<(), Error> {
        if let Some(committed) = committed {
            // SAFETY: the pages are the allocator's, in no view, and no other code uses them, by
            // this function's conditions.
            let result = unsafe { self.inner.decommit(self.range(committed)) };
            self.or_lost(held, committed, result)?;
            self.record(held, pages, None)?;
        }
        // SAFETY: all pages are reserved now, and not committed.
        let result = unsafe { self.inner.commit(self.range(pages), how) };
        let got = self.or_lost(held, pages, result)?;
        let state = PageState::Committed(how.access);
        let parts = held.parts;
        let colour = || parts.colour_beside(pages);
        let mark = Mark::of(tag).committed(how, (got, self.page), colour);
        self.record(held, pages, Some(Record::Ours(state, mark)))
    }

    /// Maps what `place` maps over exactly this range, in place of what the allocator has there,
    /// free or not: a file over memory, or over several mappings. The old contents stay until
    /// `place` takes it away, by a mapping over it (`MAP_FIXED`), so that there is no moment when
    /// another thread could get the addresses. State and mapping are as with
    /// [`RegionAllocator::map_with`].
    ///
    /// `place` runs under the allocator's lock, and must not call it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] and [`ErrorKind::OutsideRange`] as by
    /// [`RegionAllocator::map_with`] and [`RegionAllocator::map_over`], [`ErrorKind::Taken`] where
    /// a view of a dual mapping lies in the range; want of memory. `place` was not called then.
    ///
    /// What `place` returns, which then has changed nothing. Where its call took away all that was
    /// there before it failed, which hosts do, this says [`ErrorKind::RangeLost`]: the addresses
    /// are the allocator's still, and free. Where `place` says that itself, others have them.
    ///
    /// # Safety
    ///
    /// No other code uses the memory that is replaced.
    pub unsafe fn map_over_with(
        &self,
        range: PageRange,
        tag: u16,
        state: PageState,
        place: impl FnOnce(PageRange) -> Result<(), Error>,
    ) -> Result<(), Error> {
        can_be_placed(state)?;
        let pages = self.pages(range)?;
        let mut place = Some(place);
        loop {
            let mut held = self.lock();
            let parts = held.parts;
            if parts
                .entries(pages)
                .any(|(_, r)| r == Some(Record::Foreign))
            {
                return Err(ErrorKind::OutsideRange.into());
            }
            parts.committed_in(pages)?;
            parts.tree.prepare(&mut held.writer, &parts.arena, 1)?;
            if !self.begin(&held, Undo::Leave, pages) {
                continue;
            }
            // Undo::Leave: what was placed is left to this call, which asks once.
            let place = place.take().ok_or(ErrorKind::Other)?;
            let mut done = place(range);
            match done {
                Ok(()) => {
                    let mark = Mark::placed(tag, parts.colour_beside(pages)).known_as(state);
                    self.record(&mut held, pages, Some(Record::Ours(state, mark)))?;
                }
                Err(error) if error.kind() == ErrorKind::RangeLost => self.lose(&mut held, pages),
                Err(error) => {
                    // Whatever refuses this for another reason than that something is there has
                    // refused the other call before it took anything away.
                    let whole = Request::bytes(range.len_bytes());
                    let whole = whole.place(Place::Exact(range.addr()));
                    if self.inner.reserve(&whole).is_ok() {
                        self.record(&mut held, pages, None)?;
                        done = Err(error.with_kind(ErrorKind::RangeLost));
                    }
                }
            }
            if self.finish(&held, Undo::Leave, pages) {
                return done;
            }
        }
    }
}
