//! Calls as data, and the one function that makes them beside an array that knows every page.

use super::{
    array::{Array, Page, Wanted},
    ensure,
};
use crate::SplitMix64;
use alloc::{format, string::String, vec::Vec};
use core::{fmt::Debug, iter, ops::Range};
use hostmem_core::{
    page::{Access, PageRange},
    provider::{Commit, Error, ErrorKind, PageProvider, Place, Request},
    region::{PageState, RegionAllocator, RegionConfig},
    sim::{Calls, Faulty},
};

pub use hostmem_core::region::Order;

/// Where a call wants its pages. Numbers of pages are taken modulo a few more than there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// Where the allocator's order says.
    Anywhere,
    /// There or nowhere.
    Exact(usize),
    /// There if it is free.
    Hint(usize),
    /// As near as can be.
    Near(usize),
}

/// A call. Numbers that choose pages are taken modulo what there is, so that every sequence means
/// something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Maps pages.
    Map {
        /// How many, modulo [`LONGEST`].
        pages: usize,
        /// Where.
        spot: Spot,
        /// Whether a page before them and two behind stay inaccessible.
        guarded: bool,
        /// Whose they are.
        tag: u16,
    },
    /// Reserves pages.
    Reserve {
        /// How many, modulo [`LONGEST`].
        pages: usize,
        /// Where.
        spot: Spot,
        /// The alignment in pages, as a power of two modulo 6; page-aligned at exact places.
        align: usize,
    },
    /// Maps pages in place of what is there.
    MapOver {
        /// The first one.
        first: usize,
        /// How many.
        pages: usize,
        /// Whose they are.
        tag: u16,
    },
    /// Commits what was reserved.
    Commit {
        /// The first one.
        first: usize,
        /// How many.
        pages: usize,
    },
    /// Changes the access.
    Protect {
        /// The first one.
        first: usize,
        /// How many.
        pages: usize,
        /// One of three.
        access: usize,
    },
    /// Takes the memory away.
    Decommit {
        /// The first one.
        first: usize,
        /// How many.
        pages: usize,
    },
    /// Frees pages.
    Unmap {
        /// The first one.
        first: usize,
        /// How many.
        pages: usize,
    },
    /// Makes pages more or fewer.
    Resize {
        /// The first one.
        first: usize,
        /// How many.
        pages: usize,
        /// How many there are to be.
        new_pages: usize,
        /// Whether they may be moved.
        moves: bool,
    },
    /// Gives free pages back to the provider below, in pieces of so many or more.
    ReleaseUnused(usize),
    /// Adopts a piece again that was given back.
    Adopt(usize),
    /// Compares all that is told of a window.
    Look {
        /// The first page.
        first: usize,
        /// How many.
        pages: usize,
    },
    /// Fails the provider's call after the next few, of pages or of metadata.
    Fail {
        /// Whose call.
        metadata: bool,
        /// How many calls come first, modulo 3.
        after: usize,
    },
}

/// One more than the pages of the longest call but for those that go through everything.
pub const LONGEST: usize = 13;

/// An allocator and what it is given.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// What is free is taken in this order.
    pub order: Order,
    /// Pages; of which four belong to somebody else.
    pub pages: usize,
    /// The bound of the metadata in bytes. A change that finds no memory within it must have
    /// changed nothing, as after any other failure.
    pub metadata: usize,
    /// Steps from one comparison of everything to the next, apart from those after errors.
    pub stride: usize,
}

impl Setup {
    /// An allocator of few pages that has all the memory it wants.
    pub const SMALL: Self = Self {
        order: Order::Lowest,
        pages: 98,
        metadata: 1 << 20,
        stride: 16,
    };
}

/// What came of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that the allocator refused, or that failed, as they should.
    pub errors: u64,
    /// Calls of the pages' provider that failed on demand.
    pub pages: u64,
    /// Calls of the metadata's provider that did.
    pub metadata: u64,
    /// Calls that found the metadata used up.
    pub used_up: u64,
}

/// Makes an endless sequence of calls from `seed`: short ones, in `pages` pages; with faults if so.
pub fn random_ops(seed: u64, pages: usize, faults: bool) -> impl Iterator<Item = Op> {
    let mut random = SplitMix64::new(seed);
    iter::repeat_with(move || {
        let first = random.below(pages);
        let most = [3, LONGEST - 1][random.below(2)];
        let len = random.between(1, most);
        let tag = u16::try_from(random.below(5)).expect("below 5");
        match random.below(1000) {
            0..300 => Op::Map {
                pages: len,
                spot: random_spot(&mut random, first),
                guarded: random.below(8) == 0,
                tag,
            },
            300..400 => Op::Reserve {
                pages: len,
                spot: random_spot(&mut random, first),
                align: random.below(6),
            },
            400..480 => Op::MapOver {
                first,
                pages: len,
                tag,
            },
            480..530 => Op::Commit { first, pages: len },
            530..600 => Op::Protect {
                first,
                pages: len,
                access: random.below(3),
            },
            600..660 => Op::Decommit { first, pages: len },
            660..900 => Op::Unmap { first, pages: len },
            900..940 => Op::Resize {
                first,
                pages: len,
                new_pages: random.below(LONGEST),
                moves: random.below(2) == 0,
            },
            940..943 => Op::ReleaseUnused(len),
            943..946 => Op::Adopt(first),
            946..976 => Op::Look { first, pages: len },
            976..996 if faults => Op::Fail {
                metadata: random.below(2) == 0,
                after: random.below(3),
            },
            998 => Op::Unmap {
                first,
                pages: random.below(pages),
            },
            _ => Op::Look { first, pages },
        }
    })
}

fn random_spot(random: &mut SplitMix64, first: usize) -> Spot {
    match random.below(6) {
        0..3 => Spot::Anywhere,
        3 => Spot::Exact(first),
        4 => Spot::Hint(first),
        _ => Spot::Near(first),
    }
}

/// Makes the calls on an allocator of pages and metadata from `provider`, beside an array that
/// knows every page: results and places exact, states, tags, contents and gaps as they must be,
/// neighbours untouched, and nothing changed by an error but what is said to be lost by it. `what`
/// names the run.
///
/// # Panics
///
/// On a violation, and where `provider` cannot give the least that an allocator needs.
pub fn check<P: PageProvider + Copy>(
    provider: P,
    setup: &Setup,
    ops: impl IntoIterator<Item = Op>,
    what: &str,
) -> Tally {
    let (pages, metadata) = (Faulty::new(provider), Faulty::new(provider));
    metadata.only(Calls::COMMIT);
    let config = RegionConfig::new()
        .order(setup.order)
        .metadata(setup.metadata);
    let region = RegionAllocator::on(&pages, &metadata, config);
    let mut run = Run {
        region: region.unwrap_or_else(|e| panic!("{what}: no allocator: {e}")),
        array: Array::new(provider, setup),
        bounded: setup.metadata < Setup::SMALL.metadata,
        pages: &pages,
        metadata: &metadata,
        tally: Tally::default(),
    };
    run.adopt_all();
    for (step, op) in ops.into_iter().enumerate() {
        let done = run.step(op).and_then(|()| {
            if step % setup.stride == 0 {
                run.array.compare(&run.region)
            } else {
                run.array.compare_counts(&run.region)
            }
        });
        done.unwrap_or_else(|problem| panic!("{what}: step {step}: {op:?}: {problem}"));
    }
    let done = run.finish();
    done.unwrap_or_else(|problem| panic!("{what}: {problem}"))
}

/// What a call of the allocator came to.
type Outcome<T = ()> = Result<T, Error>;

struct Run<'a, P: PageProvider + Copy> {
    region: RegionAllocator<&'a Faulty<P>, &'a Faulty<P>>,
    array: Array<P>,
    /// Whether metadata may be used up.
    bounded: bool,
    pages: &'a Faulty<P>,
    metadata: &'a Faulty<P>,
    tally: Tally,
}

/// Steps.
impl<P: PageProvider + Copy> Run<'_, P> {
    fn adopt_all(&mut self) {
        let runs: Vec<_> = self
            .array
            .runs(self.array.all(), |p| p == Page::Gone)
            .collect();
        for run in runs {
            // SAFETY: reserved by the array, and the allocator's from now on.
            let adopted = unsafe { self.region.adopt(self.array.part(run.clone())) };
            // Memory for so little may be missing already, which leaves less to be adopted.
            match adopted {
                Ok(()) => self.array.belong(run, Page::Free),
                Err(error) => {
                    assert!(self.bounded, "fresh addresses cannot be adopted: {error}");
                    self.array.release_again(self.array.part(run));
                }
            }
        }
    }

    fn failures(&self) -> u64 {
        self.pages.failures() + self.metadata.failures()
    }

    /// Returns the pages from `first` on, at least one.
    fn range(&self, first: usize, pages: usize) -> Range<usize> {
        let first = first % self.array.len();
        first..first + pages.clamp(1, self.array.len() - first)
    }

    fn is_foreign(&self, range: &Range<usize>) -> bool {
        self.array
            .slice(range.clone())
            .iter()
            .all(|p| p.is_foreign())
    }

    fn step(&mut self, op: Op) -> Result<(), String> {
        let failures = self.failures();
        match op {
            Op::Map {
                pages,
                spot,
                guarded,
                tag,
            } => self.map(pages, spot, guarded, tag, failures),
            Op::Reserve { pages, spot, align } => self.reserve(pages, spot, align, failures),
            Op::MapOver { first, pages, tag } => {
                let range = self.range(first, pages);
                self.map_over(range, tag, failures)
            }
            Op::Commit { first, pages } => {
                let range = self.range(first, pages);
                let state = PageState::Committed(Access::ReadWrite);
                self.change(range, state, |old| old == PageState::Reserved, failures)
            }
            Op::Protect {
                first,
                pages,
                access,
            } => {
                let range = self.range(first, pages);
                let access = [Access::None, Access::Read, Access::ReadWrite][access % 3];
                let committed = |old| matches!(old, PageState::Committed(_));
                self.change(range, PageState::Committed(access), committed, failures)
            }
            Op::Decommit { first, pages } => {
                let range = self.range(first, pages);
                self.change(range, PageState::Reserved, |_| true, failures)
            }
            Op::Unmap { first, pages } => {
                let range = self.range(first, pages);
                self.unmap(range, failures)
            }
            Op::Resize {
                first,
                pages,
                new_pages,
                moves,
            } => {
                let range = self.range(first, pages);
                self.resize(range, new_pages % LONGEST, moves, failures)
            }
            Op::ReleaseUnused(least) => self.release_unused(least % LONGEST, failures),
            Op::Adopt(n) => self.adopt(n % self.array.len()),
            Op::Look { first, pages } => {
                let range = self.range(first, pages);
                self.array.compare_window(&self.region, range)
            }
            Op::Fail { metadata, after } => {
                let whose = if metadata { self.metadata } else { self.pages };
                whose.fail_nth(after as u64 % 3);
                Ok(())
            }
        }
    }

    /// Says whether a call succeeded where `expected` says that it does. Where it did not, nothing
    /// has changed around `range`.
    fn succeeded<T: Debug + Copy>(
        &mut self,
        got: Result<T, Error>,
        expected: Result<(), ErrorKind>,
        range: Range<usize>,
        failures: u64,
    ) -> Result<Option<T>, String> {
        let error = match (got, expected) {
            (Ok(got), Ok(())) => return Ok(Some(got)),
            (Err(error), _) => error,
            (got, expected) => return Err(format!("{got:?} where {expected:?} was expected")),
        };
        let injected = self.failures() != failures;
        let used_up = self.bounded && error.kind() == ErrorKind::Exhausted;
        ensure!(
            injected || used_up || expected == Err(error.kind()),
            "{error:?} where {expected:?} was expected"
        );
        self.tally.errors += 1;
        self.tally.used_up += u64::from(!injected && expected.is_ok());
        self.nothing_changed(range)?;
        Ok(None)
    }

    fn nothing_changed(&self, range: Range<usize>) -> Result<(), String> {
        self.array.compare_counts(&self.region)?;
        let around = range.start.saturating_sub(LONGEST)..range.end + LONGEST;
        let around = around.start.min(self.array.len() - 1)..around.end.min(self.array.len());
        self.array.compare_window(&self.region, around)
    }

    /// Returns a request, and where it must be served.
    fn request(&self, wanted: Wanted, spot: Spot) -> (Request<'static>, Result<usize, ErrorKind>) {
        let bytes = |pages| self.array.bytes(pages);
        let request = Request::bytes(bytes(wanted.len))
            .guards(bytes(wanted.before), bytes(wanted.after))
            .align(bytes(wanted.align));
        let number = |n: usize| n % (self.array.len() + 3);
        let at = |n| self.array.at(number(n));
        let anywhere = || self.array.choose(wanted).ok_or(ErrorKind::Exhausted);
        let free = |n| self.array.free_at(number(n), wanted.total());
        match spot {
            Spot::Anywhere => (request, anywhere()),
            Spot::Exact(n) => {
                let expected = free(n).map(|()| number(n));
                (request.place(Place::Exact(at(n))), expected)
            }
            Spot::Hint(n) => {
                let there = self.array.aligned(number(n), &wanted) && free(n).is_ok();
                let expected = if there { Ok(number(n)) } else { anywhere() };
                (request.place(Place::Hint(at(n))), expected)
            }
            Spot::Near(n) => {
                let page = self.array.absolute(number(n));
                let nearest = self.array.nearest(wanted, page);
                let expected = nearest.ok_or(ErrorKind::Exhausted);
                (request.place(Place::Near(at(n))), expected)
            }
        }
    }

    /// Takes note of a place, if it is the right one.
    fn placed(
        &mut self,
        got: Outcome<PageRange>,
        expected: Result<usize, ErrorKind>,
        total: usize,
        failures: u64,
    ) -> Result<Option<usize>, String> {
        let range = expected.map_or(0..1, |start| start..start + total);
        let got = self.succeeded(got, expected.map(drop), range.clone(), failures)?;
        let Some(got) = got else { return Ok(None) };
        let right = self.array.part(range.clone());
        ensure!(
            got == right,
            "{got:?} where {range:?} was expected, {right:?}"
        );
        Ok(Some(range.start))
    }

    fn map(
        &mut self,
        pages: usize,
        spot: Spot,
        guarded: bool,
        tag: u16,
        failures: u64,
    ) -> Result<(), String> {
        let wanted = Wanted {
            before: usize::from(guarded),
            len: (pages % LONGEST).max(1),
            after: 2 * usize::from(guarded),
            align: 1,
        };
        let (request, expected) = self.request(wanted, spot);
        let got = self.region.map(&request, Commit::READ_WRITE, tag);
        let Some(start) = self.placed(got, expected, wanted.total(), failures)? else {
            return Ok(());
        };
        let body = start + wanted.before..start + wanted.before + wanted.len;
        let whole = start..start + wanted.total();
        self.array.set(whole, PageState::Reserved, Some(tag));
        self.committed(body, Some(tag))
    }

    /// Takes note that pages were committed, and given out just now.
    fn committed(&mut self, range: Range<usize>, tag: Option<u16>) -> Result<(), String> {
        let state = PageState::Committed(Access::ReadWrite);
        self.array.recent = self.array.absolute(range.end);
        self.array.set(range.clone(), state, tag);
        self.array.fresh(range)
    }

    fn reserve(
        &mut self,
        pages: usize,
        spot: Spot,
        align: usize,
        failures: u64,
    ) -> Result<(), String> {
        let exact = matches!(spot, Spot::Exact(_));
        let wanted = Wanted {
            before: 0,
            len: (pages % LONGEST).max(1),
            after: 0,
            align: if exact { 1 } else { 1 << (align % 6) },
        };
        let (request, expected) = self.request(wanted, spot);
        let expected = expected.map_err(|kind| match kind {
            // A provider knows of others' pages only that they are in use.
            ErrorKind::OutsideRange => ErrorKind::Taken,
            other => other,
        });
        let got = self.region.reserve(&request);
        if let Some(start) = self.placed(got, expected, wanted.len, failures)? {
            let range = start..start + wanted.len;
            self.array.recent = self.array.absolute(range.end);
            self.array.set(range, PageState::Reserved, Some(0));
        }
        Ok(())
    }

    fn map_over(&mut self, range: Range<usize>, tag: u16, failures: u64) -> Result<(), String> {
        let pages = self.array.slice(range.clone());
        let foreign = pages.iter().any(|page| page.is_foreign());
        let committed = |page: &Page| matches!(page, Page::Ours(ours) if matches!(ours.state, PageState::Committed(_)));
        let replaces = pages.iter().any(committed);
        let part = self.array.part(range.clone());
        // SAFETY: no other code uses pages of the region.
        let got = unsafe { self.region.map_over(part, Commit::READ_WRITE, tag) };
        let is_free = |region: &RegionAllocator<_, _>| {
            region.gaps(part.addresses()).next() == Some(part.addresses())
        };
        if got.is_err() && !foreign && replaces && is_free(&self.region) {
            // What was there is gone, as is said of errors then.
            self.array.free(range.clone());
        }
        let expected = if foreign {
            Err(ErrorKind::OutsideRange)
        } else {
            Ok(())
        };
        match self.succeeded(got, expected, range.clone(), failures)? {
            Some(()) => self.committed(range, Some(tag)),
            None => Ok(()),
        }
    }

    /// Calls the allocator as a provider, for pages that are in a state from which it can be
    /// called.
    fn change(
        &mut self,
        range: Range<usize>,
        becomes: PageState,
        from: impl Fn(PageState) -> bool,
        failures: u64,
    ) -> Result<(), String> {
        if self.is_foreign(&range) {
            // Passed on, for what was mapped before; there is no such thing here.
            return Ok(());
        }
        let wrong = self
            .array
            .slice(range.clone())
            .iter()
            .find_map(|page| match page {
                Page::Ours(ours) if from(ours.state) => None,
                Page::Ours(_) => Some(ErrorKind::InvalidArgument),
                _ => Some(ErrorKind::OutsideRange),
            });
        let part = self.array.part(range.clone());
        let reserved = from(PageState::Reserved);
        let got = match becomes {
            PageState::Committed(_) if reserved => {
                // SAFETY: no other code uses pages of the region.
                unsafe { self.region.commit(part, Commit::READ_WRITE) }.map(drop)
            }
            PageState::Committed(access) => {
                // SAFETY: as above.
                unsafe { self.region.protect(part, access) }
            }
            _ => {
                // SAFETY: as above.
                unsafe { self.region.decommit(part) }
            }
        };
        let expected = wrong.map_or(Ok(()), Err);
        if self
            .succeeded(got, expected, range.clone(), failures)?
            .is_some()
        {
            self.array.set(range.clone(), becomes, None);
            if reserved && becomes != PageState::Reserved {
                return self.array.fresh(range);
            }
        }
        Ok(())
    }

    fn unmap(&mut self, range: Range<usize>, failures: u64) -> Result<(), String> {
        if self.is_foreign(&range) {
            return Ok(());
        }
        // SAFETY: no other code uses pages of the region.
        let got = unsafe { self.region.unmap(self.array.part(range.clone())) };
        let pieces = self.array.runs(range.clone(), |page| !page.is_foreign());
        let pieces: Vec<_> = pieces.collect();
        for piece in pieces {
            let addresses = self.array.part(piece.clone()).addresses();
            let is_free = self.region.gaps(addresses).next() == Some(addresses);
            if got.is_err() && !is_free {
                // That failed; those behind it stay as well, which is looked at below.
                break;
            }
            self.array.free(piece);
        }
        self.succeeded(got, Ok(()), range, failures).map(drop)
    }

    fn resize(
        &mut self,
        range: Range<usize>,
        new_pages: usize,
        moves: bool,
        failures: u64,
    ) -> Result<(), String> {
        let told = |page: &Page| match page {
            Page::Ours(ours) => Some((ours.state, ours.tag)),
            _ => None,
        };
        let pages = self.array.slice(range.clone());
        let first = told(&pages[0]).filter(|_| pages.iter().all(|p| told(p) == told(&pages[0])));
        let tag = match first {
            Some((PageState::Committed(_), tag)) if new_pages > 0 => Some(tag),
            _ => None,
        };
        let (old_end, new_end) = (range.end, range.start + new_pages);
        let room = self.array.free_at(old_end, new_end.saturating_sub(old_end));
        let elsewhere = self.array.choose(Wanted {
            before: 0,
            len: new_pages.max(1),
            after: 0,
            align: 1,
        });
        let must_move = moves && room.is_err();
        let room = if must_move {
            elsewhere.map(drop).ok_or(ErrorKind::Exhausted)
        } else {
            room
        };
        let expected = tag.ok_or(ErrorKind::InvalidArgument).and(room);
        let (part, len) = (self.array.part(range.clone()), self.array.bytes(new_pages));
        let how = Commit::READ_WRITE;
        let got = if moves {
            // SAFETY: no other code uses pages of the region.
            unsafe { self.region.remap(part, len, how) }
        } else {
            // SAFETY: as above.
            unsafe { self.region.resize(part, len, how) }
        };
        let Some(got) = self.succeeded(got, expected, range.clone(), failures)? else {
            return Ok(());
        };
        // What cannot grow where it lies for want of memory may elsewhere.
        let refused = self.failures() != failures || self.bounded;
        if must_move || moves && refused && got.addr() != part.addr() {
            let start = elsewhere.ok_or("moved where there was no room")?;
            let new = start..start + new_pages;
            let right = self.array.part(new.clone());
            ensure!(got == right, "{got:?} where {right:?} was expected");
            let state = PageState::Committed(how.access);
            self.array.set(new.clone(), state, tag);
            self.array.recent = self.array.absolute(new.end);
            let kept = range.len().min(new_pages);
            self.array.copied(range.start..range.start + kept, start);
            self.array.free(range);
            return self.array.fresh(start + kept..new.end);
        }
        let right = self.array.part(range.start..new_end);
        ensure!(got == right, "{got:?} where {right:?} was expected");
        if new_end < old_end {
            self.array.free(new_end..old_end);
        } else if new_end > old_end {
            self.committed(old_end..new_end, tag)?;
        }
        Ok(())
    }

    fn release_unused(&mut self, least: usize, failures: u64) -> Result<(), String> {
        let got = self.region.release_unused(self.array.bytes(least));
        let runs: Vec<_> = self.array.free_runs(self.array.all()).collect();
        let mut released = 0;
        for run in runs.into_iter().filter(|run| run.len() >= least.max(1)) {
            let addresses = self.array.part(run.clone()).addresses();
            if got.is_err() && self.region.gaps(addresses).next().is_some() {
                // That failed; those behind it stay as well, which is looked at below.
                break;
            }
            released += run.len();
            self.array.belong(run, Page::Gone);
        }
        let all = self.array.all();
        if let Some(told) = self.succeeded(got, Ok(()), all, failures)? {
            let bytes = self.array.bytes(released);
            ensure!(told == bytes, "{told} bytes released, not {bytes}");
        }
        Ok(())
    }

    fn adopt(&mut self, n: usize) -> Result<(), String> {
        if self.array.page(n) != Page::Gone {
            if !self.array.page(n).is_foreign() {
                // SAFETY: refused, since it is adopted already.
                let twice = unsafe { self.region.adopt(self.array.part(n..n + 1)) };
                let kind = twice.map_err(|error| error.kind());
                ensure!(kind == Err(ErrorKind::Taken), "{twice:?}: page {n} again");
            }
            return Ok(());
        }
        let end = (n..self.array.len()).find(|&n| self.array.page(n) != Page::Gone);
        let range = n..end.unwrap_or(self.array.len());
        let Some(part) = self.array.reserve_again(range.clone()) else {
            // Somebody else in this process was faster.
            return Ok(());
        };
        let failures = self.failures();
        // SAFETY: reserved just now, and the allocator's from now on.
        let got = unsafe { self.region.adopt(part) };
        if self
            .succeeded(got, Ok(()), range.clone(), failures)?
            .is_some()
        {
            self.array.belong(range, Page::Free);
        } else {
            self.array.release_again(part);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Tally, String> {
        for faulty in [self.pages, self.metadata] {
            faulty.fail_none();
        }
        self.array.compare(&self.region)?;
        let failures = self.failures();
        self.unmap(self.array.all(), failures)?;
        self.array.compare(&self.region)?;
        let used = self.region.statistics().used;
        ensure!(self.bounded || used == 0, "{used} bytes are left");
        drop(self.region);
        self.array.release();
        Ok(Tally {
            pages: self.pages.failures(),
            metadata: self.metadata.failures(),
            ..self.tally
        })
    }
}
