//! Calls as data, and the one function that makes them beside an array that knows every page.

mod op;
mod steps;

pub use hostmem_core::region::Order;
pub use op::{LONGEST, Op, Setup, Spot, Tally, random_ops};

use super::{
    array::{Array, Page, Wanted},
    ensure,
};
use alloc::{format, string::String, vec::Vec};
use core::{fmt::Debug, ops::Range};
use hostmem_core::{
    page::{Access, PageRange},
    provider::{Error, ErrorKind, PageProvider, Place, Request},
    region::{PageState, RegionAllocator, RegionConfig},
    sim::{Calls, Faulty},
};

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
