//! The calls of `mmap` and its kin, under the allocator's lock. Mapping is here; the other
//! calls, in the order in which a caller may make them:
//!
//! | file | what it has |
//! |---|---|
//! | `over` | mapping over pages that are in use |
//! | `change` | commit, protect, decommit |
//! | `advise` | names, core files, large pages |
//! | `purge` | giving memory back and keeping the pages |
//! | `relocate` | moving memory to other pages |
//! | `unmap` | taking pages away |

mod advise;
mod change;
mod over;
mod purge;
mod relocate;
mod unmap;

use super::{
    PageState, RegionAllocator,
    fork::{Parts, Undo},
    lock::Held,
    record::{Colour, Mark, Record},
};
use crate::{
    page::PageRange,
    provider::{Commit, Dump, Error, ErrorKind, PageProvider, Request},
    range_map::{Pages, Path},
    sync::RawMutex,
};

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
            Ok(Mark::placed(tag, colour()).known_as(state))
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
                        // SAFETY: reserved above, and no other code has its address yet. A failure
                        // wastes addresses.
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

/// Says whether pages that a caller maps can be in a state.
fn can_be_placed(state: PageState) -> Result<(), Error> {
    match state {
        PageState::Committed(_) | PageState::Reserved => Ok(()),
        PageState::Dual | PageState::Interrupted => Err(ErrorKind::InvalidArgument.into()),
    }
}

/// Colours of neighbours.
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

/// Committed pages of a range.
impl<M: PageProvider + Copy, R: RawMutex> Parts<M, R> {
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
