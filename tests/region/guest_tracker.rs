//! A tracker of a guest's mappings on a range map, as emulators of Linux programs need it: several
//! mappings of one file, `mprotect` that splits, `mremap`, `shmat` and `shmdt`, `MAP_FIXED` over
//! several, `madvise`. Compared with an array of pages.

use hostmem::{
    OsLock, OsProvider,
    page::{AddressRange, PageSize},
    provider::Error,
    range_map::{GapRequest, RangeMap, Value},
};
use std::collections::{BTreeMap, BTreeSet};

const PAGE: usize = 0x1000;

/// What the map keeps of a page: which mapping it is of, and what changes page by page.
///
/// ```text
///   63        32       9         8       2    0
///   ├─ mapping ─┼─ … ──┼─ advised ┼─ … ──┼prot┤
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    mapping: u32,
    prot: u8,
    advised: bool,
}

impl Value for Kept {
    fn to_bits(self) -> u32 {
        u32::from(self.prot) | u32::from(self.advised) << 8
    }
    fn from_bits(bits: u32) -> Self {
        let [prot, advised, ..] = bits.to_le_bytes();
        Self {
            mapping: 0,
            prot,
            advised: advised != 0,
        }
    }
    fn to_bits64(self) -> u64 {
        u64::from(self.mapping) << 32 | u64::from(self.to_bits())
    }
    fn from_bits64(bits: u64) -> Self {
        let [a, b, c, d, mapping @ ..] = bits.to_le_bytes();
        Self {
            mapping: u32::from_le_bytes(mapping),
            ..Self::from_bits(u32::from_le_bytes([a, b, c, d]))
        }
    }
}

/// What a mapping shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Anonymous,
    File(usize),
    Shared(usize),
}

/// Something that can be mapped several times, and goes with its last mapping.
#[derive(Debug)]
struct Resource {
    kind: Kind,
    len: usize,
    mappings: usize,
}

/// One call of `mmap`, `shmat` or `mremap`, of which parts may have gone since.
#[derive(Debug)]
struct Mapping {
    resource: usize,
    base: usize,
    offset: usize,
    pages: usize,
}

type Map = RangeMap<Kept, OsProvider, OsLock>;

/// Mappings and resources beside the map. A real one has them behind the map's own lock.
#[derive(Default)]
struct Tables {
    mappings: Vec<Option<Mapping>>,
    resources: Vec<Option<Resource>>,
    free: Vec<u32>,
}

impl Tables {
    /// Takes note that pages of a mapping go.
    fn forget(&mut self, range: AddressRange, kept: Kept) {
        let slot = &mut self.mappings[kept.mapping as usize];
        let mapping = slot.as_mut().expect("a range is of a mapping");
        mapping.pages -= pages_of(range);
        if mapping.pages > 0 {
            return;
        }
        let resource = mapping.resource;
        *slot = None;
        self.free.push(kept.mapping);
        let slot = &mut self.resources[resource];
        let known = slot.as_mut().expect("a mapping is of a resource");
        known.mappings -= 1;
        if known.mappings == 0 {
            *slot = None;
        }
    }

    fn mapping(&self, kept: Kept) -> &Mapping {
        let mapping = self.mappings[kept.mapping as usize].as_ref();
        mapping.expect("a range is of a mapping")
    }

    fn resource(&mut self, kind: Kind, len: usize) -> usize {
        let is_it = |known: &Option<Resource>| known.as_ref().is_some_and(|r| r.kind == kind);
        // Each anonymous mapping is of its own.
        let known = self.resources.iter().position(is_it);
        if let Some(known) = known.filter(|_| kind != Kind::Anonymous) {
            return known;
        }
        self.resources.push(Some(Resource {
            kind,
            len,
            mappings: 0,
        }));
        self.resources.len() - 1
    }
}

struct Tracker {
    map: Map,
    tables: Tables,
}

fn range(base: usize, pages: usize) -> AddressRange {
    AddressRange::from_len(base, pages * PAGE).expect("in the address space")
}

fn pages_of(range: AddressRange) -> usize {
    (range.last() - range.start() + 1) / PAGE
}

impl Tracker {
    fn new() -> Self {
        let bounds = AddressRange::new(0, (1 << 47) - 1).expect("not empty");
        let map = Map::on(OsProvider::new(), bounds, PageSize::KIB_4, 64 << 20);
        Self {
            map: map.expect("made"),
            tables: Tables::default(),
        }
    }

    /// Notes a mapping, in place of whatever lies there.
    fn map(
        &mut self,
        at: AddressRange,
        (resource, offset): (usize, usize),
        prot: u8,
    ) -> Result<(), Error> {
        // Before the host is asked: noting it afterwards must not fail.
        self.map.prepare(1)?;
        let mapping = Mapping {
            resource,
            base: at.start(),
            offset,
            pages: pages_of(at),
        };
        let tables = &mut self.tables;
        let known = tables.resources[resource].as_mut();
        known.expect("it is kept").mappings += 1;
        let id = tables.free.pop().unwrap_or_else(|| {
            tables.mappings.push(None);
            u32::try_from(tables.mappings.len() - 1).expect("few")
        });
        tables.mappings[id as usize] = Some(mapping);
        let kept = Kept {
            mapping: id,
            prot,
            advised: false,
        };
        let dropped = |range, kept| tables.forget(range, kept);
        self.map.insert_with(at, kept, dropped).map(drop)
    }

    fn unmap(&mut self, at: AddressRange) -> Result<(), Error> {
        self.map.prepare(1)?;
        let tables = &mut self.tables;
        let dropped = |range, kept| tables.forget(range, kept);
        self.map.remove_with(at, dropped).map(drop)
    }

    fn protect(&self, at: AddressRange, prot: u8) -> Result<(), Error> {
        self.map.update(at, |kept| Kept { prot, ..kept }).map(drop)
    }

    /// Notes advice, all of it at once. Returns whether all pages are mapped, as `madvise` says.
    fn advise(&self, at: AddressRange) -> Result<bool, Error> {
        let mut whole = true;
        self.map.rewrite(at, |_, kept| {
            whole &= kept.is_some();
            kept.map(|kept| Kept {
                advised: true,
                ..kept
            })
        })?;
        Ok(whole)
    }

    /// Moves what one mapping has there, and makes it longer or shorter. Says whether it was one.
    fn remap(&mut self, from: AddressRange, to: AddressRange) -> Result<bool, Error> {
        let Some((found, kept)) = self.map.query(from.start()) else {
            return Ok(false);
        };
        if !found.contains_range(from) {
            return Ok(false);
        }
        let mapping = self.tables.mapping(kept);
        let source = (
            mapping.resource,
            mapping.offset + (from.start() - mapping.base),
        );
        self.map.prepare(2)?;
        // The new one first, so that the resource stays.
        self.map(to, source, kept.prot)?;
        self.unmap(from)?;
        Ok(true)
    }

    /// Detaches shared memory that was attached there, whatever is left of it.
    fn detach(&mut self, base: usize) -> Result<usize, Error> {
        let behind = AddressRange::new(base, self.map.bounds().last()).expect("in the bounds");
        let tables = &self.tables;
        let attached = |(range, kept): &(AddressRange, Kept)| {
            let mapping = tables.mapping(*kept);
            let shared = tables.resources[mapping.resource].as_ref();
            let is_shared = shared.is_some_and(|r| matches!(r.kind, Kind::Shared(_)));
            is_shared
                && mapping.base.checked_sub(mapping.offset) == Some(base)
                && range.start() >= base
        };
        let Some((_, kept)) = self.map.ranges(behind).find(attached) else {
            return Ok(0);
        };
        let resource = tables.mapping(kept).resource;
        let len = tables.resources[resource].as_ref().map_or(0, |r| r.len);
        let of_it = |(_, kept): &(AddressRange, Kept)| {
            let mapping = tables.mapping(*kept);
            mapping.resource == resource && mapping.base.checked_sub(mapping.offset) == Some(base)
        };
        let within = range(base, len / PAGE);
        let pieces: Vec<_> = self.map.ranges(within).filter(of_it).collect();
        for (piece, _) in pieces {
            if let Some(piece) = piece.intersect(within) {
                self.unmap(piece)?;
            }
        }
        Ok(len)
    }
}

/// A page, by the oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    resource: usize,
    shared: bool,
    offset: usize,
    prot: u8,
    advised: bool,
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).expect("64 bits") % n
    }
}

/// Compares all pages, and what is known beside the map.
fn compare(tracker: &Tracker, oracle: &BTreeMap<usize, Page>, step: usize) {
    let mut pages = oracle.iter();
    let mut counted = BTreeMap::new();
    for (range, kept) in tracker.map.ranges(tracker.map.bounds()) {
        let mapping = tracker.tables.mapping(kept);
        let resource = tracker.tables.resources[mapping.resource].as_ref();
        *counted.entry(kept.mapping).or_insert(0) += pages_of(range);
        for addr in (range.start()..=range.last()).step_by(PAGE) {
            let page = Page {
                resource: mapping.resource,
                shared: resource.is_some_and(|r| matches!(r.kind, Kind::Shared(_))),
                offset: mapping.offset + (addr - mapping.base),
                prot: kept.prot,
                advised: kept.advised,
            };
            assert_eq!(pages.next(), Some((&addr, &page)), "step {step}");
        }
    }
    assert_eq!(pages.next(), None, "step {step}");
    for (id, mapping) in (0..).zip(&tracker.tables.mappings) {
        let pages = mapping.as_ref().map(|mapping| mapping.pages);
        assert_eq!(pages, counted.get(&id).copied(), "step {step}");
    }
    let live: BTreeSet<_> = oracle.values().map(|page| page.resource).collect();
    let known = tracker.tables.resources.iter().enumerate();
    let known: BTreeSet<_> = known.filter(|(_, r)| r.is_some()).map(|(n, _)| n).collect();
    assert_eq!(live, known, "step {step}");
}

#[test]
fn a_guests_mappings_are_tracked_as_an_array_of_pages_says() {
    const BASE: usize = 0x1_0000;
    const PAGES: usize = 400;
    let emulated = std::env::var_os("HOSTMEM_EMULATED").is_some();
    let steps = if emulated { 1000 } else { 40_000 };
    let mut tracker = Tracker::new();
    let mut oracle: BTreeMap<usize, Page> = BTreeMap::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut done = [0; 9];
    for step in 0..steps {
        let (first, count) = (random.below(PAGES - 40), 1 + random.below(40));
        let (base, prot) = (
            BASE + first * PAGE,
            u8::try_from(random.below(8)).expect("few"),
        );
        let at = range(base, count);
        let kind = random.below(9);
        done[kind] += 1;
        match kind {
            // mmap, over whatever is there; shmat.
            0..3 => {
                let (kind, len) = match random.below(4) {
                    0 => (Kind::Anonymous, 0),
                    1 => (Kind::Shared(random.below(3)), 30 * PAGE),
                    _ => (Kind::File(random.below(5)), 0),
                };
                let shared = matches!(kind, Kind::Shared(_));
                let at = if shared { range(base, 30) } else { at };
                let offset = match kind {
                    Kind::File(_) => random.below(100) * PAGE,
                    _ => 0,
                };
                let resource = tracker.tables.resource(kind, len);
                let mapped = tracker.map(at, (resource, offset), prot);
                mapped.expect("there is memory");
                for n in 0..pages_of(at) {
                    let page = Page {
                        resource,
                        shared,
                        offset: offset + n * PAGE,
                        prot,
                        advised: false,
                    };
                    oracle.insert(base + n * PAGE, page);
                }
            }
            3 => {
                tracker.unmap(at).expect("there is memory");
                oracle.retain(|addr, _| !at.contains(*addr));
            }
            4 => {
                tracker.protect(at, prot).expect("there is memory");
                for (_, page) in oracle.range_mut(base..=at.last()) {
                    page.prot = prot;
                }
            }
            5 => {
                let whole = tracker.advise(at).expect("there is memory");
                assert_eq!(whole, oracle.range(base..=at.last()).count() == count);
                for (_, page) in oracle.range_mut(base..=at.last()) {
                    page.advised = true;
                }
            }
            6 => {
                let from = range(base, 1 + random.below(4));
                let to = range(BASE + random.below(PAGES - 40) * PAGE, count);
                if from.intersect(to).is_some() {
                    continue;
                }
                let moved = tracker.remap(from, to).expect("there is memory");
                if moved {
                    let page = *oracle.get(&base).expect("it was mapped");
                    oracle.retain(|addr, _| !from.contains(*addr));
                    for n in 0..count {
                        let offset = page.offset + n * PAGE;
                        let addr = to.start() + n * PAGE;
                        oracle.insert(
                            addr,
                            Page {
                                offset,
                                advised: false,
                                ..page
                            },
                        );
                    }
                }
            }
            7 => {
                // Where something was attached, or not.
                let start = match oracle.range(base..).next() {
                    Some((addr, page)) if *addr >= page.offset => addr - page.offset,
                    _ => base,
                };
                let len = tracker.detach(start).expect("there is memory");
                if len > 0 {
                    let resource = oracle.iter().find_map(|(addr, page)| {
                        let known = addr.checked_sub(page.offset) == Some(start);
                        let at = known && page.shared && (start..start + len).contains(addr);
                        at.then_some(page.resource)
                    });
                    let gone = |addr: usize, page: &Page| {
                        let inside = (start..start + len).contains(&addr);
                        let base = addr.checked_sub(page.offset) == Some(start);
                        inside && base && Some(page.resource) == resource
                    };
                    oracle.retain(|addr, page| !gone(*addr, page));
                }
            }
            _ => {
                // Room for the next mapping, and what lies around it.
                let request = GapRequest::bytes(count * PAGE).within(range(BASE, PAGES));
                if let Ok(gap) = tracker.map.find_gap(&request) {
                    assert_eq!(oracle.range(gap.start()..=gap.last()).next(), None);
                    let below = tracker.map.prev(gap.start()).map(|(range, _)| range.last());
                    let last = oracle.range(..gap.start()).next_back();
                    assert_eq!(below, last.map(|(addr, _)| addr + PAGE - 1));
                }
            }
        }
        if step % 16 == 0 || step < 2000 {
            compare(&tracker, &oracle, step);
        }
    }
    compare(&tracker, &oracle, steps);
    assert!(done.iter().all(|count| *count > 10), "{done:?}");
}
