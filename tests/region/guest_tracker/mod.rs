//! A tracker of a guest's mappings on a range map, as emulators of Linux programs need it: several
//! mappings of one file, `mprotect` that splits, `mremap`, `shmat` and `shmdt`, `MAP_FIXED` over
//! several, `madvise`. Compared with an array of pages.

mod oracle;

use hostmem::{
    OsLock, OsProvider,
    page::{AddressRange, PageSize},
    provider::Error,
    range_map::{RangeMap, Value},
};

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
