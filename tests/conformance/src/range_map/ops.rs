//! Operations as data, and the one function that runs them beside a plain map.

use super::oracle::{Oracle, Pages, Wanted};
use crate::SplitMix64;
use core::{fmt::Debug, iter};
use hostmem_core::{
    page::{AddressRange, PageSize},
    provider::{Error, ErrorKind, PageProvider},
    range_map::{GapOrder, GapRequest, RangeMap, Value},
    sim::{Calls, Faulty},
};

/// Pages by their place in one of a few neighbourhoods that lie far apart, so that few numbers mean
/// ranges near to each other as well as such of any length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which neighbourhood, modulo [`FAR`].
    pub far: usize,
    /// Which page of it, modulo [`NEAR`].
    pub near: usize,
    /// How many pages; 0 means up to the same page of the next neighbourhood.
    pub len: usize,
}

/// Neighbourhoods.
pub const FAR: usize = 5;

/// Pages of a neighbourhood.
pub const NEAR: usize = 2048;

/// Pages from one neighbourhood to the next: lengths and distances above 32 bits, and below.
const APART: [u64; FAR] = [0, 1 << 20, 1 << 33, (1 << 33) + (1 << 31), 1 << 40];

/// The map's pages; not a host's.
const PAGE: PageSize = PageSize::KIB_4;

/// The map's bounds in pages, so that all of them are 64 bits of addresses.
const BOUNDS: Pages = (1, 1 << 52);

impl Place {
    fn pages(self) -> Pages {
        let at = |far: usize| APART[far % FAR] + 1 + (self.near % NEAR) as u64;
        let far = self.far % FAR;
        let start = at(far);
        let end = match self.len {
            0 if far + 1 == FAR => BOUNDS.1,
            0 => at(far + 1),
            len => start + (len as u64 % (1 << 30)).max(1),
        };
        (start, end.min(BOUNDS.1))
    }
}

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Gives pages a value.
    Insert(Place, u32),
    /// Gives pages a value if none has one.
    InsertNew(Place, u32),
    /// Takes values away.
    Remove(Place),
    /// Changes values.
    Update(Place, u32),
    /// Finds the lowest gap, the highest or one near a page, and takes it.
    Find {
        /// The window.
        within: Place,
        /// Pages, modulo [`NEAR`].
        len: usize,
        /// The alignment in pages, as a power of two modulo 12.
        align: usize,
        /// How many pages behind the start it counts.
        offset: usize,
        /// Which one of the three, and near what.
        order: usize,
        /// What it becomes, if it is to be taken.
        takes: Option<u32>,
    },
    /// Compares ranges and gaps of a window.
    Look(Place),
    /// Fails the commit of metadata after the next few, modulo 3.
    Fail(usize),
    /// Compares everything.
    CheckAll,
}

/// A map and what it is given.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Whether neighbours with the same value become one.
    pub joins: bool,
    /// The bound of the metadata in bytes. A change that finds no memory within it must have
    /// changed nothing, as after a failure of the provider.
    pub metadata: usize,
}

impl Setup {
    /// A map that has all the memory it wants.
    pub const AMPLE: Self = Self {
        joins: true,
        metadata: 1 << 20,
    };
}

/// What came of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls of the metadata's provider that failed on demand.
    pub failures: u64,
    /// Changes that found the metadata used up.
    pub used_up: u64,
}

/// Makes an endless sequence of operations from `seed`; with faults if so.
pub fn random_ops(seed: u64, faults: bool) -> impl Iterator<Item = Op> {
    let mut random = SplitMix64::new(seed);
    iter::repeat_with(move || {
        let value = u32::try_from(random.below(4)).expect("below 4");
        let far = random.below(FAR);
        // A few neighbourhoods get crowded, the others stay nearly empty.
        let far = if random.below(4) == 0 { far } else { far % 2 };
        let near = random.below(NEAR);
        let len = match random.below(200) {
            0 => 0,
            1 => random.below(NEAR),
            2..20 => random.between(1, 60),
            _ => random.between(1, 3),
        };
        let place = Place { far, near, len };
        match random.below(100) {
            0..30 => Op::Insert(place, value),
            30..60 => Op::InsertNew(place, value),
            60..75 => Op::Remove(place),
            75..80 => Op::Update(place, value),
            80..92 => Op::Find {
                within: place,
                len: random.between(1, 5),
                align: random.below(12) * random.below(2),
                offset: random.below(4),
                order: random.next_usize(),
                takes: (random.below(2) == 0).then_some(value),
            },
            92 if faults => Op::Fail(random.below(3)),
            93 => Op::CheckAll,
            _ => Op::Look(place),
        }
    })
}

/// Values of both kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bits<const JOINS: bool>(u32);

impl<const JOINS: bool> Value for Bits<JOINS> {
    fn to_bits(self) -> u32 {
        self.0
    }
    fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
    fn joins(self) -> bool {
        JOINS
    }
}

/// Runs `ops` on a map with metadata from `provider`, beside a plain ordered map: results, ranges,
/// gaps and counts exact, and nothing changed by an error. `what` names the run.
///
/// # Panics
///
/// On a violation, and where `provider` cannot reserve the metadata.
pub fn check<M: PageProvider + Copy>(
    provider: M,
    setup: &Setup,
    ops: impl IntoIterator<Item = Op>,
    what: &str,
) -> Tally {
    if setup.joins {
        Run::<true, M>::check(&Faulty::new(provider), setup, ops, what)
    } else {
        Run::<false, M>::check(&Faulty::new(provider), setup, ops, what)
    }
}

struct Run<'a, const JOINS: bool, M: PageProvider + Copy> {
    map: RangeMap<Bits<JOINS>, &'a Faulty<M>>,
    oracle: Oracle,
    faulty: &'a Faulty<M>,
    /// Whether metadata may be used up.
    bounded: bool,
    tally: Tally,
    /// What the run is called, and how far it has got.
    what: &'a str,
    step: usize,
}

fn bytes(pages: u64) -> usize {
    let bytes = pages.checked_mul(PAGE.bytes() as u64);
    let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
    bytes.expect("fewer than the address space has")
}

fn addresses((start, end): Pages) -> AddressRange {
    let last = bytes(end - 1) + (PAGE.bytes() - 1);
    AddressRange::new(bytes(start), last).expect("not empty")
}

fn described<const JOINS: bool>((pages, value): (Pages, u32)) -> (AddressRange, Bits<JOINS>) {
    (addresses(pages), Bits(value))
}

impl<'a, const JOINS: bool, M: PageProvider + Copy> Run<'a, JOINS, M> {
    fn check(
        faulty: &'a Faulty<M>,
        setup: &Setup,
        ops: impl IntoIterator<Item = Op>,
        what: &'a str,
    ) -> Tally {
        faulty.only(Calls::COMMIT);
        let map = RangeMap::on(faulty, addresses(BOUNDS), PAGE, setup.metadata);
        let mut run = Self {
            map: map.unwrap_or_else(|e| panic!("{what}: no map: {e}")),
            oracle: Oracle::new(JOINS),
            faulty,
            bounded: setup.metadata < Setup::AMPLE.metadata,
            tally: Tally::default(),
            what,
            step: 0,
        };
        for (step, op) in ops.into_iter().enumerate() {
            run.step = step;
            run.apply(op);
            run.compare_counts(&op);
        }
        run.compare(BOUNDS, &Op::CheckAll);
        run.tally.failures = faulty.failures();
        run.tally
    }

    /// Takes note of what a change came to: `expected`, or nothing for want of memory.
    fn done<T: PartialEq + Debug>(
        &mut self,
        op: &Op,
        failures: u64,
        got: Result<T, Error>,
        expected: impl FnOnce(&mut Oracle) -> T,
    ) {
        let (what, step) = (self.what, self.step);
        match got {
            Ok(got) => {
                let expected = expected(&mut self.oracle);
                assert_eq!(got, expected, "{what}: step {step}: {op:?}");
            }
            Err(error) => {
                let injected = self.faulty.failures() != failures;
                let used_up = self.bounded && error.kind() == ErrorKind::Exhausted;
                assert!(injected || used_up, "{what}: step {step}: {op:?}: {error}");
                self.tally.used_up += u64::from(!injected);
                self.compare(BOUNDS, op);
            }
        }
    }

    fn apply(&mut self, op: Op) {
        let failures = self.faulty.failures();
        let wide = |pages: u64| usize::try_from(pages).expect("64 bits");
        match op {
            Op::Insert(place, value) => {
                let pages = place.pages();
                let got = self.map.insert(addresses(pages), Bits(value));
                self.done(&op, failures, got, |o| wide(o.insert(pages, value)));
            }
            Op::InsertNew(place, value) => self.insert_new(&op, place.pages(), value),
            Op::Remove(place) => {
                let pages = place.pages();
                let got = self.map.remove(addresses(pages));
                self.done(&op, failures, got, |o| wide(o.remove(pages)));
            }
            Op::Update(place, value) => {
                let pages = place.pages();
                let change = |old: u32| if old == value { !old } else { value };
                let got = self.map.update(addresses(pages), |old| Bits(change(old.0)));
                self.done(&op, failures, got, |o| wide(o.update(pages, change)));
            }
            Op::Find {
                within,
                len,
                align,
                offset,
                order,
                takes,
            } => {
                let wanted = Wanted {
                    len: (len % NEAR).max(1) as u64,
                    align: 1 << (align % 12),
                    shift: offset as u64 % (1 << 20),
                    within: within.pages(),
                };
                if let Some(gap) = self.find(&op, &wanted, order)
                    && let Some(value) = takes
                {
                    self.insert_new(&op, gap, value);
                }
            }
            Op::Look(place) => self.compare(place.pages(), &op),
            Op::Fail(after) => self.faulty.fail_nth(after as u64 % 3),
            Op::CheckAll => self.compare(BOUNDS, &op),
        }
    }

    fn insert_new(&mut self, op: &Op, pages: Pages, value: u32) {
        let failures = self.faulty.failures();
        let got = self.map.insert_new(addresses(pages), Bits(value));
        if self.oracle.overlapping(pages).is_empty() {
            self.done(op, failures, got, |o| {
                let had = o.insert(pages, value);
                debug_assert_eq!(had, 0, "nothing was there");
            });
        } else {
            let kind = got.map_err(|error| error.kind());
            let (what, step) = (self.what, self.step);
            assert_eq!(kind, Err(ErrorKind::Taken), "{what}: step {step}: {op:?}");
            self.compare(pages, op);
        }
    }

    fn find(&self, op: &Op, wanted: &Wanted, order: usize) -> Option<Pages> {
        let near = wanted.within.0 + order as u64 / 3 % (2 * NEAR as u64);
        let (order, start) = match order % 3 {
            0 => (GapOrder::Lowest, self.oracle.lowest(wanted)),
            1 => (GapOrder::Highest, self.oracle.highest(wanted)),
            _ => (
                GapOrder::Nearest(bytes(near)),
                self.oracle.nearest(wanted, near),
            ),
        };
        let request = GapRequest::bytes(bytes(wanted.len))
            .aligned(bytes(wanted.align), bytes(wanted.shift))
            .within(addresses(wanted.within))
            .order(order);
        let got = self.map.find_gap(&request).map_err(|error| error.kind());
        let gap = start.map(|start| (start, start + wanted.len));
        let expected = gap.map(addresses).ok_or(ErrorKind::Exhausted);
        let (what, step) = (self.what, self.step);
        assert_eq!(got, expected, "{what}: step {step}: {op:?}");
        gap
    }

    fn compare_counts(&self, op: &Op) {
        let told = self.map.statistics();
        let is = (self.oracle.len(), self.oracle.pages);
        let (what, step) = (self.what, self.step);
        let told = (told.ranges, told.pages as u64);
        assert_eq!(told, is, "{what}: step {step}: counts after {op:?}");
    }

    /// Compares ranges and gaps of a window.
    fn compare(&self, pages: Pages, op: &Op) {
        let (what, step, window) = (self.what, self.step, addresses(pages));
        self.compare_counts(op);
        let mut told = self.map.ranges(window);
        for range in self.oracle.overlapping(pages) {
            let is = Some(described(range));
            let next = told.next();
            assert_eq!(next, is, "{what}: step {step}: ranges after {op:?}");
            let asked = self.map.query(addresses(range.0).last());
            assert_eq!(asked, is, "{what}: step {step}: a query after {op:?}");
        }
        let more = told.next();
        assert_eq!(more, None, "{what}: step {step}: ranges after {op:?}");
        let gaps = self.oracle.gaps(pages);
        let mut told = self.map.gaps(window);
        for gap in &gaps {
            let (next, is) = (told.next(), Some(addresses(*gap)));
            assert_eq!(next, is, "{what}: step {step}: gaps after {op:?}");
            let none = self.map.query(bytes(gap.0));
            assert_eq!(none, None, "{what}: step {step}: a query after {op:?}");
        }
        let more = told.next();
        assert_eq!(more, None, "{what}: step {step}: gaps after {op:?}");
        let longest = gaps.iter().rev().max_by_key(|gap| gap.1 - gap.0);
        let (told, is) = (
            self.map.largest_gap(window),
            longest.copied().map(addresses),
        );
        assert_eq!(told, is, "{what}: step {step}: the gap after {op:?}");
        let (next, is) = (
            self.map.next_from(bytes(pages.0)),
            self.oracle.next_from(pages.0).map(described),
        );
        assert_eq!(next, is, "{what}: step {step}: the next after {op:?}");
    }
}
