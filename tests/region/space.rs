//! What these tests share: regions on this system, and what the kernel says of their pages.

use hostmem::{
    OsLock, OsProvider,
    page::{Access, PageRange},
    provider::{MapFlags, PageProvider, ProcessMap, Request},
    region::{ClaimReport, ClaimRequest, Claimed, PageState, RegionAllocator, RegionConfig, claim},
};

pub(crate) const OS: OsProvider = OsProvider::new();

pub(crate) type Region = RegionAllocator<OsProvider, OsProvider, OsLock>;

pub(crate) fn page() -> usize {
    OS.page_size().bytes()
}

/// Returns the address of a byte of a range.
pub(crate) fn byte_at(range: PageRange, offset: usize) -> *mut u8 {
    range.start().as_ptr().wrapping_add(offset)
}

/// Makes a region of `len` bytes of reserved addresses.
pub(crate) fn lent(config: RegionConfig, len: usize) -> (Region, PageRange) {
    let region = Region::on(OS, OS, config).expect("metadata");
    let space = OS.reserve(&Request::bytes(len)).expect("addresses");
    // SAFETY: reserved just now, and the region's until the end.
    unsafe { region.adopt(space) }.expect("fresh addresses");
    (region, space)
}

/// Claims everything above 4 GiB for a region.
pub(crate) fn claim_above_4_gib(region: &Region) -> ClaimReport {
    let mut slots: [Option<Claimed>; 1024] = [None; 1024];
    let claim = claim(OS, &ClaimRequest::above(1 << 32), &mut slots).expect("a valid request");
    for range in claim.usable() {
        // SAFETY: claimed just now, and not given back.
        unsafe { region.adopt(range) }.expect("what was claimed can be adopted");
    }
    let report = *claim.report();
    assert!(region.statistics().adopted > 1 << 40, "{report:?}");
    report
}

/// Counts the kernel's mappings that have a part of some addresses.
pub(crate) fn mappings_in(range: PageRange) -> usize {
    let mut count = 0;
    let walked = OS.walk(&mut |entry| {
        count += usize::from(entry.range.intersect(range.addresses()).is_some());
        true
    });
    walked.expect("/proc is mounted");
    count
}

/// Says whether the process map has every page of `space` as the region does: writable where it is
/// committed, inaccessible elsewhere, and mapped by all means. Pages that were set aside for a
/// thread that was mapping them are as `interrupted` says, if it says anything. Does not allocate.
pub(crate) fn is_as_mapped(
    region: &Region,
    space: PageRange,
    interrupted: Option<MapFlags>,
) -> bool {
    let (mut at, mut right) = (space.addr(), true);
    let walked = OS.walk(&mut |entry| {
        let Some(part) = entry.range.intersect(space.addresses()) else {
            return true;
        };
        right &= part.start() == at;
        for addr in (part.start()..=part.last()).step_by(page()) {
            let expected = match region.query(addr).map(|range| range.state) {
                Some(PageState::Committed(Access::ReadWrite)) => {
                    Some(MapFlags::READ | MapFlags::WRITE)
                }
                Some(PageState::Committed(Access::Read)) => Some(MapFlags::READ),
                Some(PageState::Interrupted) => interrupted,
                _ => Some(MapFlags::empty()),
            };
            let all = MapFlags::READ | MapFlags::WRITE | MapFlags::EXEC;
            let seen = entry.flags.intersection(all);
            right &= expected.is_none_or(|expected| seen == expected);
        }
        at = part.last() + 1;
        right
    });
    walked.is_ok() && right && at == space.end()
}
