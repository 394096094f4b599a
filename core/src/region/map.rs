//! The calls of `mmap` and its kin.

use super::{PageState, RegionAllocator, allocator::State, record::Record};
use crate::{
    page::{Access, PageRange, PageSize},
    provider::{Commit, Error, ErrorKind, PageProvider, Request},
    range_map::{Pages, Path, Value},
    sync::RawMutex,
};

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> RegionAllocator<P, M, R> {
    /// Maps memory: finds addresses and commits all of them but the guards, which lie within what is
    /// returned. The owner's `tag` is what [`RegionAllocator::query`] tells.
    ///
    /// One call of the provider below; two while the allocator is a pass-through.
    ///
    /// # Errors
    ///
    /// As of [`PageProvider::reserve`] and [`PageProvider::commit`]: [`ErrorKind::InvalidArgument`],
    /// [`ErrorKind::Taken`] where an exact place is in use, [`ErrorKind::OutsideRange`] where it is
    /// not the allocator's or not within the range asked for, [`ErrorKind::Exhausted`] where nothing
    /// is free or there is no memory. Nothing changes then.
    pub fn map(&self, request: &Request<'_>, how: Commit, tag: u16) -> Result<PageRange, Error> {
        self.map_with(request, tag, PageState::Committed(how.access), |body| {
            // SAFETY: the pages are reserved, by this call alone.
            unsafe { self.inner.commit(body, how) }.map(drop)
        })
    }

    /// Maps what `place` maps: finds addresses, and lets it map a file, say, over all of them but the
    /// guards. They are known as `state` afterwards, and taken away by [`RegionAllocator::unmap`].
    ///
    /// `place` runs under the allocator's lock, and must not call it.
    ///
    /// # Errors
    ///
    /// As of [`RegionAllocator::map`], and what `place` returns, which then has changed nothing, or
    /// says [`ErrorKind::RangeLost`].
    pub fn map_with(
        &self,
        request: &Request<'_>,
        tag: u16,
        state: PageState,
        place: impl FnOnce(PageRange) -> Result<(), Error>,
    ) -> Result<PageRange, Error> {
        let plan = request.plan(self.page)?;
        if !self.is_active() {
            let whole = self.inner.reserve(request)?;
            let body = whole.part(plan.before(), plan.body(), self.page);
            let placed = body.ok_or(ErrorKind::Other.into()).and_then(place);
            return match placed {
                Ok(()) => Ok(whole),
                Err(error) => {
                    if error.kind() != ErrorKind::RangeLost {
                        // SAFETY: reserved just now, known to nobody. A failure wastes addresses.
                        let _ = unsafe { self.inner.release(whole) };
                    }
                    Err(error)
                }
            };
        }
        let mut guard = self.lock();
        let (whole, path) = self.choose(&guard, &plan)?;
        self.tree.prepare(&mut guard.writer, &self.arena, 2)?;
        let start = whole.0 + self.page_of(plan.before());
        let body = (start, start + self.page_of(plan.body()));
        if let Err(error) = place(self.range(body)) {
            if error.kind() == ErrorKind::RangeLost {
                self.lose(&mut guard, body);
            }
            return Err(error);
        }
        let record = Some(Record::Ours(state, tag));
        if body == whole {
            self.record_at(&mut guard, body, record, path.as_ref())?;
        } else {
            let guards = Record::Ours(PageState::Reserved, tag);
            self.record_at(&mut guard, whole, Some(guards), path.as_ref())?;
            self.record(&mut guard, body, record)?;
        }
        Ok(self.range(whole))
    }

    /// Maps memory at exactly this range, in place of what the allocator has there, free or not.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutsideRange`] where some of it is not the allocator's, [`ErrorKind::Taken`]
    /// where a view of a dual mapping lies in it: nothing changes then. What the provider below
    /// says: where something was there before, it may be gone, and its addresses free.
    ///
    /// # Safety
    ///
    /// Nobody uses the memory that is replaced.
    pub unsafe fn map_over(&self, range: PageRange, how: Commit, tag: u16) -> Result<(), Error> {
        let pages = self.pages(range)?;
        let mut guard = self.lock();
        if self.entries(pages).any(|(_, r)| r == Some(Record::Foreign)) {
            return Err(ErrorKind::OutsideRange.into());
        }
        let committed = self.committed_in(pages)?;
        self.tree.prepare(&mut guard.writer, &self.arena, 2)?;
        if let Some(committed) = committed {
            // SAFETY: all of it is this allocator's; the caller vouches for who uses it.
            let result = unsafe { self.inner.decommit(self.range(committed)) };
            self.or_lost(&mut guard, committed, result)?;
            self.record(&mut guard, pages, None)?;
        }
        // SAFETY: all pages are reserved now, and not committed.
        let result = unsafe { self.inner.commit(range, how) }.map(drop);
        self.or_lost(&mut guard, pages, result)?;
        let state = PageState::Committed(how.access);
        self.record(&mut guard, pages, Some(Record::Ours(state, tag)))
    }

    /// Takes pages away, whatever parts of however many mappings they are: their memory is gone, and
    /// their addresses are free for the allocator again, never for others. What is free already, and
    /// what is not the allocator's, is left alone.
    ///
    /// A range that is nowhere the allocator's goes to the provider below, where what was mapped
    /// before the allocator became active came from.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Taken`] where a view of a dual mapping lies in it, and want of memory: nothing
    /// changes then. What the provider below says of a piece between two mappings of others: the
    /// pieces before it are gone.
    ///
    /// # Safety
    ///
    /// Nobody uses the memory. Where a range is nowhere the allocator's, it is the provider's below,
    /// as its own `release` asks.
    pub unsafe fn unmap(&self, range: PageRange) -> Result<(), Error> {
        let pages = self.pages(range)?;
        let mut guard = self.lock();
        if let Some((entry, path)) = self.tree.look(pages.0)
            && entry.end() >= pages.1
            && let Record::Ours(state, _) = Record::from_bits(entry.bits)
            && state != PageState::Dual
        {
            let committed = matches!(state, PageState::Committed(_)).then_some(pages);
            // SAFETY: the caller's promise; the path was just looked up.
            return unsafe { self.free_piece(&mut guard, pages, committed, Some(&path)) };
        }
        let mut is_ours = false;
        for (_, record) in self.entries(pages) {
            match record {
                Some(Record::Foreign) => {}
                Some(Record::Ours(PageState::Dual, _)) => return Err(ErrorKind::Taken.into()),
                None | Some(Record::Ours(..)) => is_ours = true,
            }
        }
        if !is_ours {
            drop(guard);
            // SAFETY: the caller's promise.
            return unsafe { self.inner.release(range) };
        }
        let mut from = pages.0;
        while let Some(piece) = self.own_piece(from, pages.1) {
            from = piece.1;
            let committed = self.committed_in(piece)?;
            // SAFETY: all of the piece is the allocator's, and committed as was just looked up under the
            // lock; the caller's promise: nobody uses it.
            unsafe { self.free_piece(&mut guard, piece, committed, None)? };
        }
        Ok(())
    }

    /// Frees pages that are all the allocator's, and committed from where to where `committed` says.
    ///
    /// # Safety
    ///
    /// Nobody uses the memory.
    unsafe fn free_piece(
        &self,
        state: &mut State,
        piece: Pages,
        committed: Option<Pages>,
        path: Option<&Path>,
    ) -> Result<(), Error> {
        self.tree.prepare(&mut state.writer, &self.arena, 1)?;
        if let Some(committed) = committed {
            // SAFETY: all of it was adopted, and is reserved or committed; the caller's promise.
            let result = unsafe { self.inner.decommit(self.range(committed)) };
            self.or_lost(state, committed, result)?;
        }
        self.record_at(state, piece, None, path)
    }

    /// Returns the first piece of a range of pages that is the allocator's, as long as it goes.
    fn own_piece(&self, from: u64, end: u64) -> Option<Pages> {
        let mut own = self
            .entries((from, end))
            .skip_while(|(_, r)| *r == Some(Record::Foreign));
        let ((start, mut last), _) = own.next()?;
        for ((_, end), _) in own.take_while(|(_, r)| *r != Some(Record::Foreign)) {
            last = end;
        }
        Some((start, last))
    }

    /// Returns from where to where pages are committed; [`ErrorKind::Taken`] where one is a view.
    fn committed_in(&self, pages: Pages) -> Result<Option<Pages>, Error> {
        let mut all: Option<Pages> = None;
        for (piece, record) in self.entries(pages) {
            match record {
                Some(Record::Ours(PageState::Dual, _)) => return Err(ErrorKind::Taken.into()),
                Some(Record::Ours(PageState::Committed(_), _)) => {
                    all = Some((all.map_or(piece.0, |all| all.0), piece.1));
                }
                _ => {}
            }
        }
        Ok(all)
    }

    /// Passes a result of the provider below on, and forgets pages that it lost.
    fn or_lost<T>(
        &self,
        state: &mut State,
        pages: Pages,
        result: Result<T, Error>,
    ) -> Result<T, Error> {
        if let Err(error) = &result
            && error.kind() == ErrorKind::RangeLost
        {
            self.lose(state, pages);
        }
        result
    }

    /// Changes pages from one state into another by a call of the provider below.
    fn change<T>(
        &self,
        range: PageRange,
        is: impl Fn(PageState) -> bool,
        becomes: PageState,
        call: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let pages = self.pages(range)?;
        let mut guard = self.lock();
        for (_, record) in self.entries(pages) {
            match record {
                Some(Record::Ours(state, _)) if is(state) => {}
                Some(Record::Ours(..)) => return Err(ErrorKind::InvalidArgument.into()),
                Some(Record::Foreign) | None => return Err(ErrorKind::OutsideRange.into()),
            }
        }
        // Of all that it takes: where the call was made, noting it must not fail.
        self.tree
            .prepare_update(&mut guard.writer, &self.arena, pages)?;
        let done = self.or_lost(&mut guard, pages, call())?;
        self.tree
            .update(&mut guard.writer, &self.arena, pages, |old| match old {
                Record::Ours(_, tag) => Record::Ours(becomes, tag),
                Record::Foreign => old,
            })?;
        Ok(done)
    }

    /// Gives reserved pages memory; see [`PageProvider::commit`].
    ///
    /// # Safety
    ///
    /// As of [`PageProvider::commit`].
    pub(super) unsafe fn commit_pages(
        &self,
        range: PageRange,
        how: Commit,
    ) -> Result<PageSize, Error> {
        if self.is_foreign(range)? {
            // SAFETY: the caller's promise: reserved from the provider below, as a pass-through.
            return unsafe { self.inner.commit(range, how) };
        }
        self.change(
            range,
            |state| state == PageState::Reserved,
            PageState::Committed(how.access),
            // SAFETY: the pages are reserved, as was just looked up under the lock.
            || unsafe { self.inner.commit(range, how) },
        )
    }

    /// Changes the access of committed pages; see [`PageProvider::protect`].
    ///
    /// # Safety
    ///
    /// As of [`PageProvider::protect`].
    pub(super) unsafe fn protect_pages(
        &self,
        range: PageRange,
        access: Access,
    ) -> Result<(), Error> {
        if self.is_foreign(range)? {
            // SAFETY: the caller's promise, as of a pass-through.
            return unsafe { self.inner.protect(range, access) };
        }
        self.change(
            range,
            |state| matches!(state, PageState::Committed(_)),
            PageState::Committed(access),
            // SAFETY: the pages are committed, as was just looked up under the lock.
            || unsafe { self.inner.protect(range, access) },
        )
    }

    /// Takes memory back; see [`PageProvider::decommit`].
    ///
    /// # Safety
    ///
    /// As of [`PageProvider::decommit`].
    pub(super) unsafe fn decommit_pages(&self, range: PageRange) -> Result<(), Error> {
        if self.is_foreign(range)? {
            // SAFETY: the caller's promise, as of a pass-through.
            return unsafe { self.inner.decommit(range) };
        }
        self.change(
            range,
            |state| state != PageState::Dual,
            PageState::Reserved,
            // SAFETY: the pages are reserved or committed, as was just looked up under the lock.
            || unsafe { self.inner.decommit(range) },
        )
    }

    /// Says whether a range is nowhere the allocator's.
    fn is_foreign(&self, range: PageRange) -> Result<bool, Error> {
        let pages = self.pages(range)?;
        Ok(!self.is_active() || self.entries(pages).all(|(_, r)| r == Some(Record::Foreign)))
    }

    /// Reserves addresses; see [`PageProvider::reserve`].
    pub(super) fn reserve_pages(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        if !self.is_active() {
            return self.inner.reserve(request);
        }
        let plan = request.plan(self.page)?;
        let mut guard = self.lock();
        let (pages, path) =
            self.choose_longest(&guard, &plan)
                .map_err(|error| match error.kind() {
                    // Not the allocator's: for a provider it is in use.
                    ErrorKind::OutsideRange => ErrorKind::Taken.into(),
                    _ => error,
                })?;
        let reserved = Record::Ours(PageState::Reserved, 0);
        self.record_at(&mut guard, pages, Some(reserved), path.as_ref())?;
        Ok(self.range(pages))
    }
}
