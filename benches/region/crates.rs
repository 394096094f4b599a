//! The peers that are crates.

use crate::{
    space::{Lookup, Mapping, PAGE, Space, Tracker},
    trace::Trace,
    workloads::churn::{Churn, Churning},
};
use rangemap::RangeMap;
use std::ops::Range;
use vm_allocator::{AddressAllocator, AllocPolicy, RangeInclusive};

/// The map of crate `rangemap`: a `BTreeMap` of ranges. Room is found by going through the gaps.
pub struct Rangemap {
    map: RangeMap<u64, u16>,
    window: Range<u64>,
}

impl Rangemap {
    pub fn new(pages: u32) -> Self {
        Self {
            map: RangeMap::new(),
            window: 0..u64::from(pages),
        }
    }
}

fn pages_of(mapping: Mapping) -> Range<u64> {
    mapping.start.into()..mapping.end().into()
}

impl Space for Rangemap {
    const NAME: &'static str = "rangemap";

    fn place(&mut self, mapping: Mapping) {
        self.map.insert(pages_of(mapping), mapping.tag);
    }

    fn map(&mut self, pages: u16, tag: u16) -> u32 {
        let len = u64::from(pages);
        let mut gaps = self.map.gaps(&self.window);
        let gap = gaps.find(|gap| gap.end - gap.start >= len);
        let start = gap.expect("rangemap has no room").start;
        self.map.insert(start..start + len, tag);
        u32::try_from(start).expect("the window has no more pages")
    }

    fn unmap(&mut self, mapping: Mapping) {
        self.map.remove(pages_of(mapping));
    }
}

impl Lookup for Rangemap {
    const NAME: &'static str = "rangemap";

    #[inline]
    fn tag_at(&self, offset: u64) -> Option<u16> {
        self.map.get(&(offset / PAGE)).copied()
    }
}

impl Tracker for Rangemap {
    const NAME: &'static str = "rangemap";

    fn insert(&mut self, range: Mapping) {
        self.map.insert(pages_of(range), range.tag);
    }

    fn remove(&mut self, range: Mapping) {
        self.map.remove(pages_of(range));
    }

    fn each(&self, mut visit: impl FnMut(u64, u16)) {
        self.map
            .iter()
            .for_each(|(range, tag)| visit(range.start, *tag));
    }
}

/// The `AddressAllocator` of crate `vm-allocator`: a balanced tree of free and used intervals.
pub struct VmAllocator(AddressAllocator);

impl VmAllocator {
    pub fn new(pages: u32) -> Self {
        let allocator = AddressAllocator::new(0, u64::from(pages) * PAGE);
        Self(allocator.expect("a window from zero on is valid"))
    }

    fn allocate(&mut self, pages: u16, policy: AllocPolicy) -> u64 {
        let range = self.0.allocate(u64::from(pages) * PAGE, PAGE, policy);
        range.expect("vm-allocator has no room").start()
    }
}

impl Space for VmAllocator {
    const NAME: &'static str = "vm-allocator";

    fn place(&mut self, mapping: Mapping) {
        let start = u64::from(mapping.start) * PAGE;
        self.allocate(mapping.pages, AllocPolicy::ExactMatch(start));
    }

    fn map(&mut self, pages: u16, _: u16) -> u32 {
        let start = self.allocate(pages, AllocPolicy::FirstMatch);
        u32::try_from(start / PAGE).expect("the window has no more pages")
    }

    fn unmap(&mut self, mapping: Mapping) {
        let start = u64::from(mapping.start) * PAGE;
        let end = u64::from(mapping.end()) * PAGE;
        let range = RangeInclusive::new(start, end - 1).expect("a mapping is not empty");
        self.0.free(&range).expect("vm-allocator lost a mapping");
    }
}

/// Fills the peers with the layout of a trace.
pub fn churns(trace: &Trace) -> Vec<Box<dyn Churning + '_>> {
    vec![
        Box::new(Churn::new(VmAllocator::new(trace.window()), trace)),
        Box::new(Churn::new(Rangemap::new(trace.window()), trace)),
    ]
}

/// Returns the peer that answers queries, filled with the layout of a trace.
pub fn lookup(trace: &Trace) -> Option<Rangemap> {
    let mut map = Rangemap::new(trace.window());
    trace.fill(&mut map);
    Some(map)
}

/// Returns the peer that keeps what it is told, empty.
pub fn tracker(pages: u32) -> Option<Rangemap> {
    Some(Rangemap::new(pages))
}

/// Returns how many bytes `rangemap` takes for the layout of a trace, by what the C library says of
/// its heap.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn bytes(trace: &Trace) -> Option<usize> {
    fn in_use() -> usize {
        // SAFETY: it may be called at any time, and returns numbers.
        let info = unsafe { libc::mallinfo2() };
        info.uordblks + info.hblkhd
    }
    let before = in_use();
    let map = lookup(trace);
    let bytes = in_use() - before;
    map.map(|_| bytes)
}

/// The C library does not say.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn bytes(_: &Trace) -> Option<usize> {
    None
}
