//! An array that knows every page, and what an allocator must tell of them.

mod compare;

use super::{NEIGHBOUR, ensure, ops::Setup};
use alloc::{string::String, vec, vec::Vec};
use core::ops::Range;
use hostmem_core::{
    page::{PageRange, PageSize},
    provider::{Commit, ErrorKind, PageProvider, Request},
    region::{Order, PageState},
};

/// What is known of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// Somebody else's, with contents.
    Foreign,
    /// Given back to the provider below.
    Gone,
    Free,
    Ours(Ours),
}

/// What is known of a page that was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ours {
    pub(super) state: PageState,
    pub(super) tag: u16,
    /// What its first and its last word hold, where it is committed.
    mark: u64,
    /// Whether it may have been moved, so that its mapping does not join its neighbours.
    apart: bool,
}

impl Page {
    const fn is_apart(self) -> bool {
        matches!(self, Self::Ours(ours) if ours.apart)
    }

    pub(super) const fn is_foreign(self) -> bool {
        matches!(self, Self::Foreign | Self::Gone)
    }

    /// Returns what the allocator tells of it.
    fn told(self) -> Option<(PageState, u16)> {
        match self {
            Self::Ours(ours) => Some((ours.state, ours.tag)),
            _ => None,
        }
    }
}

/// What a call asks for, in pages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) before: usize,
    pub(super) len: usize,
    pub(super) after: usize,
    pub(super) align: usize,
}

impl Wanted {
    pub(super) const fn total(&self) -> usize {
        self.before + self.len + self.after
    }
}

/// The pages.
pub(super) struct Array<P: PageProvider + Copy> {
    provider: P,
    page: PageSize,
    whole: PageRange,
    pages: Vec<Page>,
    order: Order,
    /// The page behind what was taken last, counted from address 0.
    pub(super) recent: usize,
    adopted: usize,
    used: usize,
    marks: u64,
}

/// Two words of a page.
const WORD: usize = size_of::<u64>();

impl<P: PageProvider + Copy> Array<P> {
    /// Reserves the pages; the first, the last and two in between are somebody else's.
    pub(super) fn new(provider: P, setup: &Setup) -> Self {
        let (page, count) = (provider.page_size(), setup.pages);
        let request = Request::bytes(count * page.bytes());
        let whole = provider.reserve(&request).expect("addresses for a region");
        let mut array = Self {
            provider,
            page,
            whole,
            pages: vec![Page::Gone; count],
            order: setup.order,
            recent: 0,
            adopted: 0,
            used: 0,
            marks: 0,
        };
        for n in [0, count / 3, count / 3 + 1, count - 1] {
            let part = array.part(n..n + 1);
            // SAFETY: reserved above, and no other code's.
            unsafe { provider.commit(part, Commit::READ_WRITE) }.expect("a page for a neighbour");
            // SAFETY: committed just now.
            unsafe { part.start().write_bytes(NEIGHBOUR, part.len_bytes()) };
            array.pages[n] = Page::Foreign;
        }
        array
    }

    pub(super) const fn len(&self) -> usize {
        self.pages.len()
    }

    pub(super) const fn bytes(&self, pages: usize) -> usize {
        pages * self.page.bytes()
    }

    /// Describes pages by number.
    pub(super) fn part(&self, pages: Range<usize>) -> PageRange {
        let (first, len) = (self.bytes(pages.start), self.bytes(pages.len()));
        self.whole.part(first, len, self.page).expect("some pages")
    }

    pub(super) fn all(&self) -> Range<usize> {
        0..self.len()
    }

    /// Returns the address of a page, or of one behind the last.
    pub(super) fn at(&self, page: usize) -> usize {
        self.whole.addr() + self.bytes(page)
    }

    /// Returns the number of the page that holds `addr`.
    fn page_of(&self, addr: usize) -> usize {
        addr.wrapping_sub(self.whole.addr()) / self.page.bytes()
    }

    /// Returns the number of a page counted from address 0.
    pub(super) fn absolute(&self, page: usize) -> usize {
        self.at(page) / self.page.bytes()
    }

    /// Returns the page with this number; others' where there is none.
    pub(super) fn page(&self, n: usize) -> Page {
        self.pages.get(n).copied().unwrap_or(Page::Foreign)
    }

    pub(super) fn slice(&self, pages: Range<usize>) -> &[Page] {
        &self.pages[pages]
    }

    /// Yields maximal runs of pages for which `is` holds, cut off at a window's ends.
    pub(super) fn runs(
        &self,
        window: Range<usize>,
        is: impl Fn(Page) -> bool,
    ) -> impl Iterator<Item = Range<usize>> {
        let mut at = window.start;
        core::iter::from_fn(move || {
            while at < window.end && !is(self.pages[at]) {
                at += 1;
            }
            let start = at;
            while at < window.end && is(self.pages[at]) {
                at += 1;
            }
            (start < at).then_some(start..at)
        })
    }

    pub(super) fn free_runs(&self, window: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        self.runs(window, |page| page == Page::Free)
    }

    /// Says why pages are not all free, if so.
    pub(super) fn free_at(&self, start: usize, len: usize) -> Result<(), ErrorKind> {
        for n in start..start + len {
            match self.page(n) {
                Page::Free => {}
                Page::Ours(_) => return Err(ErrorKind::Taken),
                Page::Foreign | Page::Gone => return Err(ErrorKind::OutsideRange),
            }
        }
        Ok(())
    }

    /// Says whether what is wanted is aligned at this page.
    pub(super) fn aligned(&self, start: usize, wanted: &Wanted) -> bool {
        (self.absolute(start) + wanted.before).is_multiple_of(wanted.align)
    }

    /// Yields the first and the last start in each free run where what is wanted fits.
    fn fits(&self, wanted: Wanted) -> impl Iterator<Item = (usize, usize)> {
        self.free_runs(self.all()).filter_map(move |run| {
            let first = run.clone().find(|&n| self.aligned(n, &wanted))?;
            let last = run.end.checked_sub(wanted.total())?;
            (first <= last).then(|| (first, last - (last - first) % wanted.align))
        })
    }

    /// Returns where the allocator's order puts it.
    pub(super) fn choose(&self, wanted: Wanted) -> Option<usize> {
        match self.order {
            Order::Lowest => self.fits(wanted).next().map(|(first, _)| first),
            Order::Highest => self.fits(wanted).last().map(|(_, last)| last),
            _ => self.nearest(wanted, self.recent),
        }
    }

    /// Returns the start that is nearest to a page counted from address 0; the lower one of two.
    pub(super) fn nearest(&self, wanted: Wanted, page: usize) -> Option<usize> {
        let in_one = |(first, last)| {
            let (low, high) = (self.absolute(first), self.absolute(last));
            let below = first + (page.clamp(low, high) - low) / wanted.align * wanted.align;
            [below, (below + wanted.align).min(last)]
        };
        let starts = self.fits(wanted).flat_map(in_one);
        starts.min_by_key(|&start| (self.absolute(start).abs_diff(page), start))
    }

    /// Says that pages belong to the allocator, or do not any more.
    pub(super) fn belong(&mut self, pages: Range<usize>, becomes: Page) {
        if becomes == Page::Free {
            self.adopted += pages.len();
        } else {
            self.adopted -= pages.len();
        }
        self.pages[pages].fill(becomes);
    }

    /// Frees what is the allocator's.
    pub(super) fn free(&mut self, pages: Range<usize>) {
        for page in &mut self.pages[pages] {
            if let Page::Ours(_) = page {
                *page = Page::Free;
                self.used -= 1;
            }
        }
    }

    /// Gives pages another state, and a tag if there is one; what they hold stays.
    pub(super) fn set(&mut self, pages: Range<usize>, state: PageState, tag: Option<u16>) {
        for page in &mut self.pages[pages] {
            let old = match *page {
                Page::Ours(ours) => ours,
                _ => {
                    self.used += 1;
                    Ours {
                        state,
                        tag: 0,
                        mark: 0,
                        apart: false,
                    }
                }
            };
            // Changes of the access alone leave a mapping what it is.
            let apart = old.apart && tag.is_none() && state != PageState::Reserved;
            let tag = tag.unwrap_or(old.tag);
            *page = Page::Ours(Ours {
                state,
                tag,
                apart,
                ..old
            });
        }
    }

    fn words(&self, page: usize) -> [*mut u64; 2] {
        let start = self.part(page..page + 1).start().as_ptr();
        [start, start.wrapping_add(self.bytes(1) - WORD)].map(<*mut u8>::cast)
    }

    /// Checks that pages that were committed just now read zero, and marks them.
    pub(super) fn fresh(&mut self, pages: Range<usize>) -> Result<(), String> {
        for n in pages {
            self.marks += 1;
            for word in self.words(n) {
                // SAFETY: committed by the allocator for this run alone; aligned, within a page.
                let held = unsafe { word.read() };
                ensure!(held == 0, "page {n} is not fresh, {held:#x}");
                // SAFETY: committed by the allocator for this run alone; aligned, within a page,
                // writable.
                unsafe { word.write(self.marks) };
            }
            if let Page::Ours(ours) = &mut self.pages[n] {
                ours.mark = self.marks;
            }
        }
        Ok(())
    }

    /// Takes note that pages from `to` on hold what others hold, which were copied or moved there.
    pub(super) fn copied(&mut self, from: Range<usize>, to: usize) {
        for (n, to) in from.zip(to..) {
            if let Page::Ours(Ours { mark, .. }) = self.pages[n]
                && let Page::Ours(ours) = &mut self.pages[to]
            {
                ours.mark = mark;
                ours.apart = true;
            }
        }
    }

    /// Checks what a page holds, where that can be read.
    fn holds(&self, n: usize) -> Result<(), String> {
        let mark = match self.pages[n] {
            Page::Foreign => u64::from_ne_bytes([NEIGHBOUR; WORD]),
            Page::Ours(Ours {
                state: PageState::Committed(access),
                mark,
                ..
            }) if access.readable() => mark,
            _ => return Ok(()),
        };
        for word in self.words(n) {
            // SAFETY: committed and readable, and this run's alone; aligned, within a page.
            let held = unsafe { word.read() };
            ensure!(held == mark, "page {n} holds {held:#x}, not {mark:#x}");
        }
        Ok(())
    }

    /// Gives everything back that is not gone already.
    pub(super) fn release(self) {
        for run in self.runs(self.all(), |page| page != Page::Gone) {
            // SAFETY: reserved when this was made or later; nothing in it is used any more.
            let released = unsafe { self.provider.release(self.part(run)) };
            released.expect("what was reserved can be released");
        }
    }

    /// Reserves pages that are gone; says whether they could be had.
    pub(super) fn reserve_again(&self, pages: Range<usize>) -> Option<PageRange> {
        let part = self.part(pages);
        let exact = hostmem_core::provider::Place::Exact(part.addr());
        let request = Request::bytes(part.len_bytes()).place(exact);
        self.provider.reserve(&request).ok()
    }

    /// Releases pages that were reserved by [`Array::reserve_again`].
    pub(super) fn release_again(&self, part: PageRange) {
        // SAFETY: reserved just now, and no other code's.
        unsafe { self.provider.release(part) }.expect("what was reserved can be released");
    }
}
