//! Changes from one state into another: commit, protect, decommit.

use super::super::{
    PageState, RegionAllocator,
    fork::Undo,
    lock::Held,
    record::{Colour, Mark, Notes, Record},
};
use crate::{
    page::{Access, PageRange, PageSize},
    provider::{Commit, Error, ErrorKind, PageProvider},
    range_map::Pages,
    sync::RawMutex,
};
use core::cell::Cell;

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> RegionAllocator<P, M, R> {
    /// Changes pages from one state into another by a call of the provider below.
    fn change<T>(
        &self,
        range: PageRange,
        is: impl Fn(PageState, Mark) -> bool,
        (becomes, remark): (PageState, impl Fn(&T, Mark, &dyn Fn() -> Colour) -> Mark),
        undo: Undo,
        call: impl Fn() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let pages = self.pages(range)?;
        loop {
            let mut held = self.lock();
            let parts = held.parts;
            for (_, record) in parts.entries(pages) {
                match record {
                    Some(Record::Ours(state, mark)) if is(state, mark) => {}
                    Some(Record::Ours(..)) => return Err(ErrorKind::InvalidArgument.into()),
                    Some(Record::Foreign) | None => return Err(ErrorKind::OutsideRange.into()),
                }
            }
            // Of all that it takes: where the call was made, noting it must not fail.
            parts
                .tree
                .prepare_update(&mut held.writer, &parts.arena, pages, false)?;
            if !self.begin(&held, undo, pages) {
                continue;
            }
            let called = call();
            let done = self.or_lost(&mut held, pages, called);
            if let Ok(done) = &done {
                // One mapping, whatever the pages were before.
                let colour = Cell::new(None);
                let one = || {
                    let one = colour.get().unwrap_or_else(|| parts.colour_beside(pages));
                    colour.set(Some(one));
                    one
                };
                parts
                    .tree
                    .update(&mut held.writer, &parts.arena, pages, |old| match old {
                        Record::Ours(_, mark) => Record::Ours(becomes, remark(done, mark, &one)),
                        Record::Foreign => old,
                    })?;
            } else if undo == Undo::Restore {
                self.restore(&mut held, pages, becomes);
            }
            if self.finish(&held, undo, pages) {
                return done;
            }
        }
    }

    /// Gives pages the access that is on record, after a call failed that may have changed a part
    /// of them to `becomes`; notes what is there where that fails, too.
    #[cold]
    fn restore(&self, held: &mut Held<'_, M, R>, pages: Pages, becomes: PageState) {
        let mut at = pages.0;
        while at < pages.1
            && let Some((piece, record)) = held.parts.entries((at, pages.1)).next()
        {
            at = piece.1;
            if let Some(Record::Ours(PageState::Committed(access), mark)) = record {
                self.restore_piece(held, piece, (access, mark), becomes);
            }
        }
    }

    /// Restores pages that are alike on record: by one call, or else by halves, so that in the end
    /// it is known of each page what it is.
    fn restore_piece(
        &self,
        held: &mut Held<'_, M, R>,
        piece: Pages,
        (access, mark): (Access, Mark),
        becomes: PageState,
    ) {
        // SAFETY: committed, and it gets the access that it had before the call.
        if unsafe { self.inner.protect(self.range(piece), access) }.is_ok() {
            return;
        }
        let middle = piece.0 + (piece.1 - piece.0) / 2;
        if middle > piece.0 {
            self.restore_piece(held, (piece.0, middle), (access, mark), becomes);
            self.restore_piece(held, (middle, piece.1), (access, mark), becomes);
            return;
        }
        let PageState::Committed(new) = becomes else {
            return;
        };
        // A page that has an access already can be given it: it costs no mapping.
        // SAFETY: committed; the caller asked for that access.
        if unsafe { self.inner.protect(self.range(piece), new) }.is_ok() {
            // Without memory the record says what it said, which is what was.
            let mark = mark.known_as(becomes);
            let _ = self.record(held, piece, Some(Record::Ours(becomes, mark)));
        }
    }

    /// Gives reserved pages memory; see [`PageProvider::commit`].
    ///
    /// # Safety
    ///
    /// The range is the caller's, reserved and not committed.
    pub(in crate::region) unsafe fn commit_pages(
        &self,
        range: PageRange,
        how: Commit,
    ) -> Result<PageSize, Error> {
        if self.is_foreign(range)? {
            // SAFETY: no part is the allocator's, so that it passed the reservation on from the
            // provider below; the range is reserved and not committed, by this function's
            // condition.
            return unsafe { self.inner.commit(range, how) };
        }
        self.change(
            range,
            |state, mark| state == PageState::Reserved && !mark.notes.contains(Notes::PLACED),
            (PageState::Committed(how.access), |got, mark, colour| {
                mark.committed(how, (*got, self.page), colour)
            }),
            Undo::Reserve,
            // SAFETY: the pages are reserved, as was just looked up under the lock.
            || unsafe { self.inner.commit(range, how) },
        )
    }

    /// Changes the access of committed pages; see [`PageProvider::protect`].
    ///
    /// # Safety
    ///
    /// The range is the caller's, and committed.
    pub(in crate::region) unsafe fn protect_pages(
        &self,
        range: PageRange,
        access: Access,
    ) -> Result<(), Error> {
        if self.is_foreign(range)? {
            // SAFETY: no part is the allocator's, so that the range came from the provider below;
            // it is committed, by this function's condition.
            return unsafe { self.inner.protect(range, access) };
        }
        self.change(
            range,
            |state, _| matches!(state, PageState::Committed(_)),
            (PageState::Committed(access), |(), mark, _| {
                mark.known_as(PageState::Committed(access))
            }),
            Undo::Restore,
            // SAFETY: the pages are committed, as was just looked up under the lock.
            || unsafe { self.inner.protect(range, access) },
        )
    }

    /// Takes memory back; see [`PageProvider::decommit`].
    ///
    /// # Safety
    ///
    /// The range is the caller's, and its contents are not used any more.
    pub(in crate::region) unsafe fn decommit_pages(&self, range: PageRange) -> Result<(), Error> {
        if self.is_foreign(range)? {
            // SAFETY: no part is the allocator's, so that the range came from the provider below;
            // it is the caller's, by this function's condition.
            return unsafe { self.inner.decommit(range) };
        }
        self.change(
            range,
            |state, _| state != PageState::Dual,
            (PageState::Reserved, |(), mark, _| mark.replaced()),
            Undo::Reserve,
            // SAFETY: the pages are reserved or committed, as was just looked up under the lock.
            || unsafe { self.inner.decommit(range) },
        )
    }
}
