//! A reservation that knows the state of each of its pages.

use super::{fill, first_difference, first_nonzero};
use alloc::{vec, vec::Vec};
use core::{ops::Range, ptr::NonNull};
use hostmem_core::{
    page::{Access, PageRange, PageSize},
    provider::{Commit, Error, ErrorKind, PageProvider, Purged, Request},
};

/// The state of a page, as the provider promised it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not this region's: released, or handed to a dual mapping.
    Gone,
    Reserved,
    Committed(Access),
}

/// A reservation, by pages. Ranges of pages are numbered from its start, guards included. What is
/// left of it when it is dropped is released.
#[derive(Debug)]
pub(crate) struct Region<P: PageProvider + Copy> {
    provider: P,
    range: PageRange,
    page: PageSize,
    states: Vec<State>,
}

impl<P: PageProvider + Copy> Region<P> {
    /// Reserves, and holds the provider to what every reservation promises.
    #[track_caller]
    pub(crate) fn reserve(provider: P, request: &Request<'_>) -> Result<Self, Error> {
        let page = provider.page_size();
        let range = provider.reserve(request)?;
        let region = Self::own(provider, range);
        let plan = request
            .plan(page)
            .expect("a reservation succeeded, so the request is valid");
        assert_eq!(
            range.len_bytes(),
            plan.total(),
            "{request:?}: another length than planned"
        );
        assert!(
            plan.within().contains_range(range.addresses()),
            "{request:?}: {range:?} lies outside the range asked for"
        );
        assert!(
            plan.aligned(range.addr()),
            "{request:?}: the body in {range:?} is misaligned"
        );
        Ok(region)
    }

    /// Reserves `pages` pages anywhere.
    #[track_caller]
    pub(crate) fn pages(provider: P, pages: usize) -> Self {
        let request = Request::bytes(pages * provider.page_size().bytes());
        Self::reserve(provider, &request).expect("a small reservation anywhere succeeds")
    }

    /// Reserves `pages` pages anywhere and commits them all.
    #[track_caller]
    pub(crate) fn committed(provider: P, pages: usize) -> Self {
        let mut region = Self::pages(provider, pages);
        region
            .commit(0..pages, Commit::READ_WRITE)
            .expect("a small commit succeeds");
        region
    }

    /// Owns a range that the provider just reserved, or left reserved, for the caller.
    pub(super) fn own(provider: P, range: PageRange) -> Self {
        let page = provider.page_size();
        let states = vec![State::Reserved; range.len_bytes() / page.bytes()];
        Self {
            provider,
            range,
            page,
            states,
        }
    }

    pub(crate) fn range(&self) -> PageRange {
        self.range
    }

    pub(crate) fn addr(&self) -> usize {
        self.range.addr()
    }

    pub(crate) fn len(&self) -> usize {
        self.states.len()
    }

    /// Returns the bytes of a page.
    pub(crate) fn page(&self) -> usize {
        self.page.bytes()
    }

    /// Returns the address of a page.
    pub(crate) fn at(&self, page: usize) -> usize {
        self.addr() + page * self.page()
    }

    #[track_caller]
    pub(crate) fn part(&self, pages: &Range<usize>) -> PageRange {
        let (offset, len) = (pages.start * self.page(), pages.len() * self.page());
        self.range
            .part(offset, len, self.page)
            .expect("the pages lie in the region")
    }

    /// Says whether every page of a range is reserved and not committed.
    pub(crate) fn is_reserved(&self, pages: Range<usize>) -> bool {
        self.states[pages].iter().all(|&s| s == State::Reserved)
    }

    /// Says whether every page of a range is committed.
    pub(crate) fn is_committed(&self, pages: Range<usize>) -> bool {
        self.states[pages]
            .iter()
            .all(|s| matches!(s, State::Committed(_)))
    }

    /// Says whether every page of a range is this region's.
    pub(crate) fn is_owned(&self, pages: Range<usize>) -> bool {
        self.states[pages].iter().all(|&s| s != State::Gone)
    }

    /// Counts the pages that are this region's, and those of them that are committed.
    pub(crate) fn count(&self) -> (usize, usize) {
        let owned = self.states.iter().filter(|&&s| s != State::Gone).count();
        let committed = self
            .states
            .iter()
            .filter(|s| matches!(s, State::Committed(_)))
            .count();
        (owned, committed)
    }

    /// Books the result of a call that changes the state of `pages`.
    fn book<T>(
        &mut self,
        pages: Range<usize>,
        after: State,
        result: Result<T, Error>,
    ) -> Result<T, Error> {
        match &result {
            Ok(_) => self.states[pages].fill(after),
            Err(e) if e.kind() == ErrorKind::RangeLost => self.states[pages].fill(State::Gone),
            Err(_) => {}
        }
        result
    }

    #[track_caller]
    pub(crate) fn commit(&mut self, pages: Range<usize>, how: Commit) -> Result<PageSize, Error> {
        assert!(
            self.is_reserved(pages.clone()),
            "the case commits reserved pages"
        );
        // SAFETY: the range is this region's and reserved, by the states.
        let result = unsafe { self.provider.commit(self.part(&pages), how) };
        self.book(pages, State::Committed(how.access), result)
    }

    #[track_caller]
    pub(crate) fn protect(&mut self, pages: Range<usize>, access: Access) -> Result<(), Error> {
        assert!(
            self.is_committed(pages.clone()),
            "the case protects committed pages"
        );
        // SAFETY: the range is this region's and committed, by the states; no reference to it is
        // alive.
        let result = unsafe { self.provider.protect(self.part(&pages), access) };
        self.book(pages, State::Committed(access), result)
    }

    #[track_caller]
    pub(crate) fn decommit(&mut self, pages: Range<usize>) -> Result<(), Error> {
        assert!(
            self.is_owned(pages.clone()),
            "the case decommits pages of the region"
        );
        // SAFETY: the range is this region's, by the states; no reference to it is alive.
        let result = unsafe { self.provider.decommit(self.part(&pages)) };
        self.book(pages, State::Reserved, result)
    }

    #[track_caller]
    pub(crate) fn release(&mut self, pages: Range<usize>) -> Result<(), Error> {
        assert!(
            self.is_owned(pages.clone()),
            "the case releases pages of the region"
        );
        // SAFETY: the range is this region's, by the states; no reference to it is alive.
        let result = unsafe { self.provider.release(self.part(&pages)) };
        self.book(pages, State::Gone, result)
    }

    #[track_caller]
    pub(crate) fn purge(&mut self, pages: Range<usize>) -> Result<Purged, Error> {
        assert!(
            self.is_committed(pages.clone()),
            "the case purges committed pages"
        );
        // SAFETY: the range is this region's and committed, by the states; no reference to it is
        // alive, and the case wants no contents of it.
        unsafe { self.provider.purge(self.part(&pages)) }
    }

    /// Moves all pages, which are committed, to another region, which is reserved.
    #[track_caller]
    pub(crate) fn move_to(&mut self, to: &mut Self) -> Result<(), Error> {
        let (all, target) = (0..self.states.len(), 0..to.states.len());
        assert!(
            self.is_committed(all) && to.is_reserved(target),
            "the case moves committed pages to reserved ones"
        );
        // SAFETY: the ranges are the regions', the one committed and the other reserved, by the
        // states; no reference to them is alive.
        unsafe { self.provider.move_pages(self.range, to.range) }?;
        to.states.clone_from(&self.states);
        self.states.fill(State::Reserved);
        Ok(())
    }

    /// Hands reserved pages to a dual mapping, which was made there.
    pub(super) fn hand_over(&mut self, pages: Range<usize>) {
        self.states[pages].fill(State::Gone);
    }

    #[track_caller]
    fn assert_access(&self, pages: Range<usize>, allows: fn(Access) -> bool) {
        let allowed = |s: &State| matches!(s, State::Committed(access) if allows(*access));
        assert!(
            self.states[pages].iter().all(allowed),
            "the case uses pages as their access allows"
        );
    }

    /// Fills pages with the pattern of `seed`.
    #[track_caller]
    pub(crate) fn fill(&mut self, pages: Range<usize>, seed: u64) {
        self.assert_access(pages.clone(), Access::writable);
        let part = self.part(&pages);
        // SAFETY: the pages are this region's and writable, by the states.
        unsafe { fill(part.start(), part.len_bytes(), seed) };
    }

    /// Asserts that pages are as `fill` of the same range left them.
    #[track_caller]
    pub(crate) fn expect_pattern(&self, pages: Range<usize>, seed: u64) {
        self.assert_access(pages.clone(), Access::readable);
        let part = self.part(&pages);
        // SAFETY: the pages are this region's and readable, by the states.
        let wrong = unsafe { first_difference(part.start(), part.len_bytes(), seed) };
        assert_eq!(wrong, None, "{part:?}: contents changed at this offset");
    }

    /// Asserts that pages read zero.
    #[track_caller]
    pub(crate) fn expect_zero(&self, pages: Range<usize>) {
        self.assert_access(pages.clone(), Access::readable);
        let part = self.part(&pages);
        // SAFETY: the pages are this region's and readable, by the states.
        let wrong = unsafe { first_nonzero(part.start(), part.len_bytes()) };
        assert_eq!(
            wrong, None,
            "{part:?}: pages do not read zero at this offset"
        );
    }

    /// Asserts that pages read zero, or are as `fill` of the same range left them.
    #[track_caller]
    pub(crate) fn expect_zero_or_pattern(&self, pages: Range<usize>, seed: u64) {
        self.assert_access(pages.clone(), Access::readable);
        let part = self.part(&pages);
        // SAFETY: the pages are this region's and readable, by the states.
        let wrong = unsafe { first_nonzero(part.start(), part.len_bytes()) };
        if wrong.is_some() {
            self.expect_pattern(pages, seed);
        }
    }

    /// Writes bytes and returns where they begin.
    #[track_caller]
    pub(crate) fn write(&mut self, page: usize, bytes: &[u8]) -> NonNull<u8> {
        assert!(bytes.len() <= self.page(), "the bytes fit in the page");
        self.assert_access(page..page + 1, Access::writable);
        let start = self.part(&(page..page + 1)).start();
        // SAFETY: the page is this region's and writable, the bytes fit, and no slice that the
        // caller can have lies in it.
        unsafe { start.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        start
    }
}

impl<P: PageProvider + Copy> Drop for Region<P> {
    fn drop(&mut self) {
        let mut at = 0;
        while at < self.len() {
            let gone = self.states[at] == State::Gone;
            let run = self.states[at..]
                .iter()
                .take_while(|&&s| (s == State::Gone) == gone)
                .count();
            if !gone {
                // The case has its verdict already; what cannot be released is leaked.
                let _ = self.release(at..at + run);
            }
            at += run;
        }
    }
}
