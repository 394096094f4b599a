//! The calls of `mmap` and its kin.

use super::{
    PageState, RegionAllocator,
    fork::{Parts, Undo},
    lock::Held,
    record::{Colour, Mark, Notes, Record},
};
use crate::{
    page::{Access, PageRange, PageSize},
    provider::{Commit, Dump, Error, ErrorKind, PageProvider, PageWish, Place, Purged, Request},
    range_map::{Pages, Path},
    sync::RawMutex,
};
use core::{cell::Cell, ffi::CStr};

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> RegionAllocator<P, M, R> {
    /// Maps memory: finds addresses and commits all of them but the guards, which lie within what
    /// is returned. The owner's `tag` is what [`RegionAllocator::query`] tells.
    ///
    /// One call of the provider below; two while the allocator is a pass-through.
    ///
    /// # Errors
    ///
    /// The errors of [`PageProvider::reserve`] and [`PageProvider::commit`]:
    /// [`ErrorKind::InvalidArgument`], [`ErrorKind::Taken`] where an exact place is in use,
    /// [`ErrorKind::OutsideRange`] where it is not the allocator's or not within the range asked
    /// for, [`ErrorKind::Exhausted`] where nothing is free or there is no memory. Nothing changes
    /// then.
    pub fn map(&self, request: &Request<'_>, how: Commit, tag: u16) -> Result<PageRange, Error> {
        let state = PageState::Committed(how.access);
        self.map_placed(request, state, Undo::Free, |body, colour| {
            // SAFETY: the pages are reserved, by this call alone.
            let got = unsafe { self.inner.commit(body, how) }?;
            Ok(Mark::of(tag).committed(how, (got, self.page), colour))
        })
    }

    /// Maps what `place` maps: finds addresses, and lets it map a file, say, over all of them but
    /// the guards. They are known as `state` afterwards, `Committed` or `Reserved`, and taken away
    /// by [`RegionAllocator::unmap`].
    ///
    /// The mapping is the caller's own: it counts as one mapping of the host, whatever lies beside
    /// it. [`protect`](PageProvider::protect) and [`move_pages`](PageProvider::move_pages) serve as
    /// far as the host does that with such a mapping; [`RegionAllocator::purge`] leaves its memory
    /// alone, `commit` is refused, and [`RegionAllocator::resize`] makes it shorter, never longer.
    /// It is `place` that vouches for the state: the region reads no memory because of it.
    ///
    /// `place` runs under the allocator's lock, and must not call it.
    ///
    /// # Errors
    ///
    /// The errors of [`RegionAllocator::map`]; [`ErrorKind::InvalidArgument`] for any other state;
    /// what `place` returns, which then has changed nothing, or says [`ErrorKind::RangeLost`].
    pub fn map_with(
        &self,
        request: &Request<'_>,
        tag: u16,
        state: PageState,
        place: impl FnOnce(PageRange) -> Result<(), Error>,
    ) -> Result<PageRange, Error> {
        can_be_placed(state)?;
        let mut place = Some(place);
        self.map_placed(request, state, Undo::Leave, |body, colour| {
            // Undo::Leave: what was placed is left to this call, which asks once.
            place.take().ok_or(ErrorKind::Other)?(body)?;
            Ok(Mark::placed(tag, colour()))
        })
    }

    /// Maps what `place` maps, which returns what to note of it; `undo` is what a child does about
    /// it that finds it under way.
    #[inline]
    fn map_placed(
        &self,
        request: &Request<'_>,
        state: PageState,
        undo: Undo,
        mut place: impl FnMut(PageRange, &dyn Fn() -> Colour) -> Result<Mark, Error>,
    ) -> Result<PageRange, Error> {
        let plan = request.plan(self.page)?;
        if !self.is_active() {
            let whole = self.inner.reserve(request)?;
            let body = whole.part(plan.before(), plan.body(), self.page);
            let body = body.ok_or(ErrorKind::Other.into());
            return match body.and_then(|body| place(body, &|| Colour::NONE)) {
                Ok(_) => Ok(whole),
                Err(error) => {
                    if error.kind() != ErrorKind::RangeLost {
                        // SAFETY: reserved just now, known to nobody. A failure wastes addresses.
                        let _ = unsafe { self.inner.release(whole) };
                    }
                    Err(error)
                }
            };
        }
        loop {
            let mut held = self.lock();
            let parts = held.parts;
            let mut way = Path::unknown();
            let whole = self.choose(&held, &plan, &mut way)?;
            parts.tree.prepare(&mut held.writer, &parts.arena, 2)?;
            let start = whole.0 + self.page_of(plan.before());
            let body = (start, start + self.page_of(plan.body()));
            if !self.begin(&held, undo, whole) {
                continue;
            }
            let placed = place(self.range(body), &|| parts.colour_beside(whole));
            match placed {
                Ok(mark) => {
                    let mark = self.describe_as(whole, request, mark);
                    let record = Some(Record::Ours(state, mark));
                    if body == whole {
                        self.record_at(&mut held, body, record, way.known())?;
                    } else {
                        let guards = Record::Ours(PageState::Reserved, mark.of_guards());
                        self.record_at(&mut held, whole, Some(guards), way.known())?;
                        self.record(&mut held, body, record)?;
                    }
                }
                Err(error) if error.kind() == ErrorKind::RangeLost => self.lose(&mut held, body),
                Err(_) => {}
            }
            if self.finish(&held, undo, whole) {
                return placed.map(|_| self.range(whole));
            }
        }
    }

    /// Passes on what a request says of pages beside their place, and adds to their mark what to
    /// note of it.
    pub(super) fn describe_as(&self, pages: Pages, request: &Request<'_>, mark: Mark) -> Mark {
        if request.name.is_none() && request.dump == Dump::Default {
            return mark;
        }
        // SAFETY: the pages are the allocator's, and about to be given out.
        unsafe {
            self.inner
                .describe(self.range(pages), request.name, request.dump);
        };
        let number = request.name.map(|name| self.names.number(name));
        let parts = self.parts.current();
        mark.described(number, request.dump, || parts.colour_beside(pages))
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
            // SAFETY: all of it is this allocator's; the caller vouches for who uses it.
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
            // SAFETY: the caller's promise.
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
    /// free or not: a file over memory, or over several mappings. What was there stays until
    /// `place` takes it away, by a mapping over it (`MAP_FIXED`), so that there is no moment when
    /// another thread could get the addresses. State and mapping are as with
    /// [`RegionAllocator::map_with`].
    ///
    /// `place` runs under the allocator's lock, and must not call it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] and [`ErrorKind::OutsideRange`] as of
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
                    let mark = Mark::placed(tag, parts.colour_beside(pages));
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

    /// Takes pages away, whatever parts of however many mappings they are: their memory is gone,
    /// and their addresses are free for the allocator again, never for others. What is free
    /// already, and what is not the allocator's, is left alone.
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
    /// No other code uses the memory. Where a range is nowhere the allocator's, it is the
    /// provider's below, as its own `release` asks.
    pub unsafe fn unmap(&self, range: PageRange) -> Result<(), Error> {
        let pages = self.pages(range)?;
        let mut held = self.lock();
        let mut way = Path::unknown();
        if let Some(entry) = held.parts.tree.look(pages.0, &mut way)
            && entry.end() >= pages.1
            && let Record::Ours(state, mark) = entry.value::<Record>()
            && state != PageState::Dual
        {
            // A name or the like goes with what is mapped over it.
            let plain = state == PageState::Reserved && mark.is_plain();
            let committed = (!plain).then_some(pages);
            // SAFETY: the caller's promise; the path was just looked up.
            let freed = unsafe { self.free_piece(&mut held, pages, committed, way.known()) };
            if let Some(result) = freed {
                return result;
            }
            drop(held);
            held = self.lock();
        }
        let mut is_ours = false;
        for (_, record) in held.parts.entries(pages) {
            match record {
                Some(Record::Foreign) => {}
                Some(Record::Ours(PageState::Dual, _)) => return Err(ErrorKind::Taken.into()),
                None | Some(Record::Ours(..)) => is_ours = true,
            }
        }
        if !is_ours {
            drop(held);
            // SAFETY: the caller's promise.
            return unsafe { self.inner.release(range) };
        }
        let mut from = pages.0;
        while let Some(piece) = held.parts.own_piece(from, pages.1) {
            let committed = held.parts.committed_in(piece)?;
            // SAFETY: all of the piece is the allocator's, and committed as was just looked up
            // under the lock; the caller's promise: no other code uses it.
            match unsafe { self.free_piece(&mut held, piece, committed, None) } {
                Some(result) => result?,
                None => {
                    drop(held);
                    held = self.lock();
                    continue;
                }
            }
            from = piece.1;
        }
        Ok(())
    }

    /// Frees pages that are all the allocator's, and committed from where to where `committed`
    /// says. `None` says that this is a child which was forked meanwhile, and to look again.
    ///
    /// # Safety
    ///
    /// No other code uses the memory.
    unsafe fn free_piece(
        &self,
        held: &mut Held<'_, M, R>,
        piece: Pages,
        committed: Option<Pages>,
        path: Option<&Path>,
    ) -> Option<Result<(), Error>> {
        let parts = held.parts;
        if let Err(error) = parts.tree.prepare(&mut held.writer, &parts.arena, 1) {
            return Some(Err(error));
        }
        if !self.begin(held, Undo::Free, piece) {
            return None;
        }
        let mut done = Ok(());
        if let Some(committed) = committed {
            // SAFETY: all of it was adopted, and is reserved or committed; the caller's promise.
            let result = unsafe { self.inner.decommit(self.range(committed)) };
            done = self.or_lost(held, committed, result);
        }
        let done = done.and_then(|()| self.record_at(held, piece, None, path));
        self.finish(held, Undo::Free, piece).then_some(done)
    }

    /// Passes a result of the provider below on, and forgets pages that it lost.
    fn or_lost<T>(
        &self,
        held: &mut Held<'_, M, R>,
        pages: Pages,
        result: Result<T, Error>,
    ) -> Result<T, Error> {
        if let Err(error) = &result
            && error.kind() == ErrorKind::RangeLost
        {
            self.lose(held, pages);
        }
        result
    }

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
                .prepare_update(&mut held.writer, &parts.arena, pages)?;
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
            let _ = self.record(held, piece, Some(Record::Ours(becomes, mark)));
        }
    }

    /// Gives reserved pages memory; see [`PageProvider::commit`].
    ///
    /// # Safety
    ///
    /// The promises of [`PageProvider::commit`].
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
    /// The promises of [`PageProvider::protect`].
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
            |state, _| matches!(state, PageState::Committed(_)),
            (PageState::Committed(access), |(), mark, _| mark),
            Undo::Restore,
            // SAFETY: the pages are committed, as was just looked up under the lock.
            || unsafe { self.inner.protect(range, access) },
        )
    }

    /// Takes memory back; see [`PageProvider::decommit`].
    ///
    /// # Safety
    ///
    /// The promises of [`PageProvider::decommit`].
    pub(super) unsafe fn decommit_pages(&self, range: PageRange) -> Result<(), Error> {
        if self.is_foreign(range)? {
            // SAFETY: the caller's promise, as of a pass-through.
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

    /// Gives the memory of committed pages back and keeps the pages; see [`PageProvider::purge`].
    /// Where large pages were wished for, whole ones are given back only: what is left at the ends
    /// of a range keeps its contents, which [`Purged::ZeroOrOld`] says. As a provider the region
    /// gives back what its user says.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] and [`ErrorKind::OutsideRange`] where a page is not committed
    /// or not the region's; what the provider below says.
    ///
    /// # Safety
    ///
    /// Those of [`PageProvider::purge`].
    pub unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        // SAFETY: the caller's promise.
        unsafe { self.purge_pages(range, true) }
    }

    /// Gives the memory of committed pages back, of large ones as a whole only where that is asked
    /// for.
    ///
    /// # Safety
    ///
    /// Those of [`PageProvider::purge`].
    pub(super) unsafe fn purge_pages(
        &self,
        range: PageRange,
        whole: bool,
    ) -> Result<Purged, Error> {
        if self.is_foreign(range)? {
            // SAFETY: the caller's promise, as of a pass-through.
            return unsafe { self.inner.purge(range) };
        }
        let pages = self.pages(range)?;
        let held = self.lock();
        let mut pieces = false;
        for (_, record) in held.parts.entries(pages) {
            match record {
                Some(Record::Ours(PageState::Committed(_), mark)) => {
                    pieces |= mark.notes.contains(Notes::PLACED)
                        || whole && mark.notes.contains(Notes::LARGE);
                }
                Some(Record::Ours(..)) => return Err(ErrorKind::InvalidArgument.into()),
                Some(Record::Foreign) | None => return Err(ErrorKind::OutsideRange.into()),
            }
        }
        if !pieces {
            // SAFETY: committed, as was just looked up under the lock; the caller's promise: the
            // contents are not needed.
            return unsafe { self.inner.purge(range) };
        }
        let mut shown = None;
        for (piece, record) in held.parts.entries(pages) {
            let mut part = piece;
            if let Some(Record::Ours(_, mark)) = record {
                if mark.notes.contains(Notes::PLACED) {
                    // Whoever mapped it knows what giving its memory back would show.
                    part = (piece.0, piece.0);
                } else if whole && mark.notes.contains(Notes::LARGE) {
                    let unit = self.page_of(LARGE).max(1);
                    part = (piece.0.next_multiple_of(unit), piece.1 / unit * unit);
                }
            }
            let mut one = Purged::Kept;
            if part.0 < part.1 {
                // SAFETY: as above, a part of it.
                one = unsafe { self.inner.purge(self.range(part))? };
            }
            if part != piece {
                shown = Some(shown.map_or(Purged::Kept, |all| weaker(all, Purged::Kept)));
            }
            shown = Some(shown.map_or(one, |all| weaker(all, one)));
        }
        Ok(shown.unwrap_or(Purged::Kept))
    }

    /// Names pages in the process map, and says whether they belong in core files; see
    /// [`PageProvider::describe`]. What is free or not the allocator's is passed by, and so are
    /// views of dual mappings. A name goes with the mapping; what was left out of core files stays
    /// so.
    ///
    /// # Safety
    ///
    /// The range is the caller's.
    pub unsafe fn describe(&self, range: PageRange, name: Option<&CStr>, dump: Dump) {
        let number = name.map(|name| self.names.number(name));
        let remark = |mark: Mark, colour: &dyn Fn() -> Colour| mark.described(number, dump, colour);
        self.advise(range, remark, |part| {
            // SAFETY: the caller's promise, of a part.
            unsafe { self.inner.describe(part, name, dump) }
        });
    }

    /// Changes whether large pages are welcome in committed memory: [`PageWish::Never`] says that
    /// they are not, [`PageWish::Transparent`] that they are. It is advice, and others change
    /// nothing; see [`PageProvider::avoid_large_pages`] and [`PageProvider::wish_large_pages`].
    /// What is not committed is passed by, and so is what the caller mapped itself.
    ///
    /// # Safety
    ///
    /// The range is the caller's.
    pub unsafe fn wish_pages(&self, range: PageRange, wish: PageWish) {
        match wish {
            PageWish::Never => self.advise(
                range,
                |mark, _| mark.wished(Notes::NEVER),
                // SAFETY: the caller's promise, of a part.
                |part| unsafe { self.inner.avoid_large_pages(part) },
            ),
            PageWish::Transparent => self.advise(
                range,
                |mark, _| mark.wished(Notes::LARGE),
                // SAFETY: the caller's promise, of a part.
                |part| unsafe { self.inner.wish_large_pages(part) },
            ),
            PageWish::Base | PageWish::Large { .. } => {}
        }
    }

    /// Gives advice of pages, and notes what it leaves, where `remark` changes their mark.
    fn advise(
        &self,
        range: PageRange,
        remark: impl Fn(Mark, &dyn Fn() -> Colour) -> Mark,
        call: impl Fn(PageRange),
    ) {
        let Ok(pages) = self.pages(range) else {
            return;
        };
        if self.is_foreign(range).unwrap_or(true) {
            return call(range);
        }
        let mut held = self.lock();
        let mut at = pages.0;
        while at < pages.1 {
            let parts = held.parts;
            let Some((piece, record)) = parts.entries((at, pages.1)).next() else {
                return;
            };
            at = piece.1;
            let Some(Record::Ours(state, mark)) = record else {
                continue;
            };
            let becomes = remark(mark, &|| parts.colour_beside(piece));
            let takes = match state {
                PageState::Committed(_) => true,
                PageState::Reserved => becomes.notes & Notes::WISHES == mark.notes & Notes::WISHES,
                _ => false,
            };
            let wishes = becomes.notes & Notes::WISHES != mark.notes & Notes::WISHES;
            if !takes || wishes && mark.notes.contains(Notes::PLACED) {
                continue;
            }
            // Advice that could not be noted is not given.
            if parts
                .tree
                .prepare(&mut held.writer, &parts.arena, 1)
                .is_err()
            {
                return;
            }
            call(self.range(piece));
            if becomes != mark {
                let (recent, record) = (held.recent, Record::Ours(state, becomes));
                let _ = self.record(&mut held, piece, Some(record));
                held.recent = recent;
            }
            if !self.parts.is_current(parts) {
                // A child that was forked meanwhile, and may not have it.
                drop(held);
                held = self.lock();
                at = piece.0;
            }
        }
    }

    /// Moves memory to pages that are reserved; see [`PageProvider::move_pages`].
    ///
    /// # Safety
    ///
    /// The promises of [`PageProvider::move_pages`].
    pub(super) unsafe fn move_committed(
        &self,
        from: PageRange,
        to: PageRange,
    ) -> Result<(), Error> {
        if from.len_bytes() != to.len_bytes() || from.overlaps(to) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        if self.is_foreign(from)? && self.is_foreign(to)? {
            // SAFETY: the caller's promise, as of a pass-through.
            return unsafe { self.inner.move_pages(from, to) };
        }
        let (source, target) = (self.pages(from)?, self.pages(to)?);
        let undo = Undo::Move(target.0);
        loop {
            let mut held = self.lock();
            let parts = held.parts;
            let mut alike = parts.entries(source);
            let Some((whole, Some(Record::Ours(state, mark)))) = alike.next() else {
                return Err(ErrorKind::OutsideRange.into());
            };
            if !matches!(state, PageState::Committed(_)) {
                return Err(ErrorKind::InvalidArgument.into());
            }
            let reserved = |r| matches!(r, Some(Record::Ours(PageState::Reserved, _)));
            if !parts.entries(target).all(|(_, r)| reserved(r)) {
                return Err(ErrorKind::InvalidArgument.into());
            }
            if whole != source {
                // Several mappings of the host, probably, and more than this can note.
                return Err(ErrorKind::Unsupported.into());
            }
            parts.tree.prepare(&mut held.writer, &parts.arena, 2)?;
            if !self.begin(&held, undo, source) {
                continue;
            }
            // SAFETY: the one is committed, the other reserved, as was just looked up under the
            // lock.
            let moved = unsafe { self.inner.move_pages(from, to) };
            let mut done = self.or_lost(&mut held, target, moved);
            if done.is_ok() {
                // Nothing was taken.
                let recent = held.recent;
                // The host tells what was moved from its neighbours by where it was.
                let colour = parts.colour_beside(target);
                let there = Record::Ours(state, Mark { colour, ..mark });
                let here = Record::Ours(PageState::Reserved, Mark::of(mark.tag));
                done = self.record(&mut held, target, Some(there));
                done = done.and(self.record(&mut held, source, Some(here)));
                held.recent = recent;
            }
            if self.finish(&held, undo, source) {
                return done;
            }
        }
    }

    /// Says whether a range is nowhere the allocator's.
    fn is_foreign(&self, range: PageRange) -> Result<bool, Error> {
        let pages = self.pages(range)?;
        let mut entries = self.parts.current().entries(pages);
        Ok(!self.is_active() || entries.all(|(_, r)| r == Some(Record::Foreign)))
    }

    /// Reserves addresses; see [`PageProvider::reserve`].
    pub(super) fn reserve_pages(
        &self,
        request: &Request<'_>,
        tag: u16,
    ) -> Result<PageRange, Error> {
        if !self.is_active() {
            return self.inner.reserve(request);
        }
        let plan = request.plan(self.page)?;
        loop {
            let mut held = self.lock();
            let mut way = Path::unknown();
            let chosen = self.choose_longest(&held, &plan, &mut way);
            let pages = chosen.map_err(|error| match error.kind() {
                // Not the allocator's: for a provider it is in use.
                ErrorKind::OutsideRange => ErrorKind::Taken.into(),
                _ => error,
            })?;
            if !self.begin(&held, Undo::Free, pages) {
                continue;
            }
            let mark = self.describe_as(pages, request, Mark::of(tag));
            let reserved = Record::Ours(PageState::Reserved, mark);
            let done = self.record_at(&mut held, pages, Some(reserved), way.known());
            if self.finish(&held, Undo::Free, pages) {
                return done.map(|()| self.range(pages));
            }
        }
    }
}

/// Usual large pages: what is given back as a whole where they were wished for.
const LARGE: usize = 2 << 20;

/// Returns what pages show of which some show one thing, and some another.
const fn weaker(a: Purged, b: Purged) -> Purged {
    match (a, b) {
        (Purged::Zero, Purged::Zero) => Purged::Zero,
        (Purged::Kept, Purged::Kept) => Purged::Kept,
        _ => Purged::ZeroOrOld,
    }
}

/// Says whether pages that a caller maps can be in a state.
fn can_be_placed(state: PageState) -> Result<(), Error> {
    match state {
        PageState::Committed(_) | PageState::Reserved => Ok(()),
        PageState::Dual | PageState::Interrupted => Err(ErrorKind::InvalidArgument.into()),
    }
}

/// What is looked up for the calls.
impl<M: PageProvider + Copy, R> Parts<M, R> {
    /// Returns a colour for a mapping that what lies beside it does not have.
    #[cold]
    pub(super) fn colour_beside(&self, (start, end): Pages) -> Colour {
        let of = |page: Option<u64>| {
            let entry = page.and_then(|page| self.tree.query(page));
            match entry.map(|entry| entry.value::<Record>()) {
                Some(Record::Ours(_, mark)) => mark.colour,
                _ => Colour::NONE,
            }
        };
        Colour::other_than([of(start.checked_sub(1)), of(Some(end))])
    }
}

/// What is looked up for the calls.
impl<M: PageProvider + Copy, R: RawMutex> Parts<M, R> {
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
                Some(Record::Ours(PageState::Reserved, mark)) if mark.is_plain() => {}
                Some(Record::Ours(_, _)) => {
                    all = Some((all.map_or(piece.0, |all| all.0), piece.1));
                }
                _ => {}
            }
        }
        Ok(all)
    }
}
