//! hostmem's `RegionAllocator` and `RangeMap`: all contact of this benchmark with their interface.
//!
//! ```text
//!   RegionAllocator ──► FreeProvider: every call succeeds, at once, and does nothing
//!         │  └────────► OsProvider: memory for the book-keeping
//!         ▼
//!   a window that OsProvider reserved: inaccessible all the time
//! ```

use crate::space::{Lookup, Mapping, PAGE, Space, Tracker};
use hostmem::{
    OsLock, OsProvider,
    page::{Access, AddressRange, PageRange, PageSize},
    provider::{Capabilities, Commit, Error, ErrorKind, PageProvider, Place, Request},
    range_map::RangeMap,
    region::{RegionAllocator, RegionConfig},
};

/// A provider whose calls cost nothing, so that finding and book-keeping are left.
#[derive(Clone, Copy, Debug)]
pub struct FreeProvider;

// SAFETY: nothing relies on what it promises of committed memory, that it is accessible and reads
// zero: it is known to this module alone, which gives it to region allocators, and those touch no
// memory that they place; nor does the benchmark, which looks at addresses only. It hands out no
// range, so that no two owners can have one.
unsafe impl PageProvider for FreeProvider {
    fn page_size(&self) -> PageSize {
        PageSize::KIB_4
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }

    fn reserve(&self, _: &Request<'_>) -> Result<PageRange, Error> {
        Err(ErrorKind::Unsupported.into())
    }

    unsafe fn commit(&self, _: PageRange, _: Commit) -> Result<PageSize, Error> {
        Ok(PageSize::KIB_4)
    }

    unsafe fn protect(&self, _: PageRange, _: Access) -> Result<(), Error> {
        Ok(())
    }

    unsafe fn decommit(&self, _: PageRange) -> Result<(), Error> {
        Ok(())
    }

    unsafe fn release(&self, _: PageRange) -> Result<(), Error> {
        Ok(())
    }
}

/// Addresses that nobody uses.
struct Window(PageRange);

impl Window {
    fn new(pages: u32) -> Result<Self, Error> {
        let len = usize::try_from(u64::from(pages) * PAGE).map_err(|_| ErrorKind::Exhausted)?;
        OsProvider::new().reserve(&Request::bytes(len)).map(Self)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: reserved by `new`, and never committed. Who owns the window drops what refers to
        // it first.
        let released = unsafe { OsProvider::new().release(self.0) };
        released.expect("a whole reservation can be released");
    }
}

/// hostmem's `RegionAllocator`, which takes the lowest addresses first.
pub struct Ours {
    // Dropped before the window.
    region: RegionAllocator<FreeProvider, OsProvider, OsLock>,
    window: Window,
}

impl Ours {
    /// Makes an allocator that adopted a window of so many pages.
    ///
    /// # Errors
    ///
    /// Where the host has no such addresses.
    pub fn new(pages: u32) -> Result<Self, Error> {
        let window = Window::new(pages)?;
        let region = RegionAllocator::on(FreeProvider, OsProvider::new(), RegionConfig::new())?;
        // SAFETY: reserved just now, inaccessible, and the allocator's until it is dropped before
        // the window. That the provider below did not reserve it is all the same to that one, which
        // does nothing with it.
        unsafe { region.adopt(window.0)? };
        Ok(Self { region, window })
    }

    /// Returns bytes of metadata, all that is committed for them.
    pub fn metadata(&self) -> usize {
        self.region.statistics().metadata
    }

    /// Returns how many ranges are known.
    pub fn ranges(&self) -> usize {
        self.region.statistics().ranges
    }

    /// Returns how many holes lie between mappings, and how many pages they have.
    pub fn holes(&self) -> (usize, usize) {
        let all = self.region.gaps(self.window.0.addresses());
        let holes: Vec<_> = all.map(|gap| gap.last() - gap.start() + 1).collect();
        // The last one lies behind everything.
        let between = &holes[..holes.len().saturating_sub(1)];
        let bytes: usize = between.iter().sum();
        (between.len(), bytes / bytes_of(1))
    }

    fn address(&self, start: u32) -> usize {
        self.window.0.addr() + bytes_of(start)
    }

    fn page(&self, range: PageRange) -> u32 {
        let page = (range.addr() - self.window.0.addr()) / bytes_of(1);
        u32::try_from(page).expect("the window has no more pages")
    }
}

fn bytes_of(pages: u32) -> usize {
    usize::try_from(u64::from(pages) * PAGE).expect("the window is in the address space")
}

impl Space for Ours {
    const NAME: &'static str = "ours";

    fn place(&mut self, mapping: Mapping) {
        let place = Place::Exact(self.address(mapping.start));
        let request = Request::bytes(bytes_of(mapping.pages.into())).place(place);
        let mapped = self.region.map(&request, Commit::READ_WRITE, mapping.tag);
        mapped.expect("hostmem refuses a free place");
    }

    fn map(&mut self, pages: u16, tag: u16) -> u32 {
        let request = Request::bytes(bytes_of(pages.into()));
        let mapped = self.region.map(&request, Commit::READ_WRITE, tag);
        self.page(mapped.expect("hostmem has no room"))
    }

    fn unmap(&mut self, mapping: Mapping) {
        let offset = bytes_of(mapping.start);
        let len = bytes_of(mapping.pages.into());
        let range = self.window.0.part(offset, len, PageSize::KIB_4);
        let range = range.expect("a mapping lies in the window");
        // SAFETY: mapped by this allocator, and no other code uses it: there is no memory.
        let unmapped = unsafe { self.region.unmap(range) };
        unmapped.expect("hostmem cannot unmap");
    }
}

impl Lookup for Ours {
    const NAME: &'static str = "ours";

    #[inline]
    fn tag_at(&self, offset: u64) -> Option<u16> {
        let offset = usize::try_from(offset).ok()?;
        let found = self.region.query(self.window.0.addr() + offset)?;
        Some(found.tag)
    }
}

/// hostmem's `RangeMap` by itself, of a window from address 0 on.
pub struct OurMap(RangeMap<u16, OsProvider, OsLock>);

impl OurMap {
    /// Makes a map of so many pages.
    ///
    /// # Errors
    ///
    /// Where the window has no pages.
    pub fn new(pages: u32) -> Result<Self, Error> {
        let bounds = AddressRange::from_len(0, bytes_of(pages));
        let bounds = bounds.ok_or(ErrorKind::InvalidArgument)?;
        let map = RangeMap::on(OsProvider::new(), bounds, PageSize::KIB_4, 1 << 30);
        map.map(Self)
    }
}

fn range_of(mapping: Mapping) -> AddressRange {
    let range = AddressRange::from_len(bytes_of(mapping.start), bytes_of(mapping.pages.into()));
    range.expect("a mapping is not empty")
}

impl Tracker for OurMap {
    const NAME: &'static str = "ours";

    fn insert(&mut self, range: Mapping) {
        let inserted = self.0.insert(range_of(range), range.tag);
        assert_eq!(inserted, Ok(0), "hostmem has something there");
    }

    fn remove(&mut self, range: Mapping) {
        let removed = self.0.remove(range_of(range));
        assert_eq!(removed, Ok(range.pages.into()), "hostmem lost a range");
    }

    fn each(&self, mut visit: impl FnMut(u64, u16)) {
        for (range, tag) in self.0.ranges(AddressRange::ALL) {
            visit(range.start() as u64 / PAGE, tag);
        }
    }
}

/// The index by itself: what a map of `mappings` holds, in bytes of nodes and in bytes of all
/// memory.
///
/// # Errors
///
/// Where the host gives no memory.
pub fn index_bytes(mappings: &[Mapping]) -> Result<(usize, usize), Error> {
    let most = 1 << 30;
    let map: RangeMap<u16, OsProvider> =
        RangeMap::on(OsProvider::new(), AddressRange::ALL, PageSize::KIB_4, most)?;
    for mapping in mappings {
        let len = bytes_of(mapping.pages.into());
        let range = AddressRange::from_len(bytes_of(mapping.start), len);
        let range = range.ok_or(ErrorKind::InvalidArgument)?;
        map.insert_new(range, mapping.tag)?;
    }
    let statistics = map.statistics();
    Ok((statistics.node_bytes, statistics.metadata_bytes))
}
