//! Calls that fail, and what they leave.

use super::{
    Lent, NEIGHBOUR,
    calls::{RW, fill, is_all},
};
use crate::Outcome;
use alloc::vec::Vec;
use hostmem_core::{
    page::{Access, AddressRange},
    provider::{ErrorKind, MapFlags, PageProvider, Place, Provider, Request},
    region::{PageState, RegionAllocator, RegionConfig},
    sim::Faulty,
};

pub(super) fn bad_arguments_change_nothing<P: Provider + Copy>(p: P) -> Outcome {
    let lent = Lent::new(p, 16).expect("a small region can be lent");
    let region = &lent.region;
    let page = lent.bytes(1);
    region
        .map(&Request::bytes(page).place(Place::Exact(lent.at(3))), RW, 0)
        .expect("a page can be mapped");
    let before = region.statistics();
    let exact = |addr| Request::bytes(page).place(Place::Exact(addr));
    for (request, kind) in [
        (Request::bytes(0), ErrorKind::InvalidArgument),
        (Request::bytes(usize::MAX), ErrorKind::InvalidArgument),
        (Request::bytes(page).align(3), ErrorKind::InvalidArgument),
        (exact(lent.at(5) + 1), ErrorKind::InvalidArgument),
        (exact(usize::MAX - page + 1), ErrorKind::InvalidArgument),
        (exact(lent.at(0) - page), ErrorKind::OutsideRange),
        (exact(lent.at(16)), ErrorKind::OutsideRange),
        (
            Request::bytes(2 * page).place(Place::Exact(lent.at(15))),
            ErrorKind::OutsideRange,
        ),
        (Request::bytes(lent.bytes(17)), ErrorKind::Exhausted),
        (Request::bytes(lent.bytes(13)), ErrorKind::Exhausted),
    ] {
        let got = region.map(&request, RW, 0).map_err(|e| e.kind());
        assert_eq!(got, Err(kind), "{request:?}");
        // A provider knows of others' pages only that they are in use.
        let kind = match kind {
            ErrorKind::OutsideRange => ErrorKind::Taken,
            other => other,
        };
        let got = region.reserve(&request).map_err(|e| e.kind());
        assert_eq!(got, Err(kind), "{request:?} reserved");
    }
    let outside = lent.whole.part(0, 2 * page, p.page_size()).expect("a part");
    // SAFETY: refused, since a page of it is somebody else's.
    let got = unsafe { region.map_over(outside, RW, 0) }.map_err(|e| e.kind());
    assert_eq!(got, Err(ErrorKind::OutsideRange));
    // SAFETY: refused, since it is free.
    let got = unsafe { region.protect(lent.part(8, 1), Access::Read) }.map_err(|e| e.kind());
    assert_eq!(got, Err(ErrorKind::OutsideRange), "protecting what is free");
    assert_eq!(region.statistics(), before, "nothing changed");
    // SAFETY: what is free is left alone.
    unsafe { region.unmap(lent.part(8, 8)) }.expect("unmapping what is free");
    assert_eq!(region.statistics(), before, "nothing changed");
    Outcome::Passed
}

pub(super) fn failures_of_the_provider_change_nothing<P: Provider + Copy>(p: P) -> Outcome {
    let faulty = Faulty::new(p);
    let lent = Lent::around(p, &faulty, 16).expect("a small region can be lent");
    let region = &lent.region;
    let kept = Request::bytes(lent.bytes(2)).place(Place::Exact(lent.at(4)));
    let kept = region.map(&kept, RW, 9).expect("pages can be mapped");
    let before = region.statistics();
    let gaps: Vec<_> = region.gaps(AddressRange::ALL).collect();
    faulty.fail_randomly(1, 1);
    region
        .map(&Request::bytes(lent.bytes(1)), RW, 0)
        .expect_err("the provider below fails");
    // SAFETY: no other code uses it.
    unsafe { region.unmap(kept) }.expect_err("the provider below fails");
    // SAFETY: no other code uses it.
    unsafe { region.map_over(kept, RW, 0) }.expect_err("the provider below fails");
    // SAFETY: committed.
    unsafe { region.protect(kept, Access::Read) }.expect_err("the provider below fails");
    faulty.fail_none();
    assert_eq!(region.statistics(), before, "nothing changed");
    assert_eq!(region.gaps(AddressRange::ALL).collect::<Vec<_>>(), gaps);
    let found = region.query(kept.addr()).expect("mapped still");
    assert_eq!(found.addresses, kept.addresses());
    assert_eq!(found.state, PageState::Committed(Access::ReadWrite));
    assert_eq!(found.tag, 9);
    // SAFETY: committed still.
    assert!(unsafe { is_all(kept, 0) });
    // SAFETY: no other code uses it.
    unsafe { region.unmap(kept) }.expect("now it goes");
    Outcome::Passed
}

/// Says whether the process map has the pages of a region as the records do.
fn is_as_recorded<P: Provider + Copy, I: PageProvider + Copy>(lent: &Lent<P, I>) -> bool {
    let mut right = true;
    let walked = lent.provider.walk(&mut |entry| {
        let Some(part) = entry.range.intersect(lent.range.addresses()) else {
            return true;
        };
        for addr in (part.start()..=part.last()).step_by(lent.bytes(1)) {
            let access = match lent.region.query(addr).map(|range| range.state) {
                Some(PageState::Committed(access)) => access,
                _ => Access::None,
            };
            right &= entry.flags.contains(MapFlags::READ) == access.readable();
            right &= entry.flags.contains(MapFlags::WRITE) == access.writable();
        }
        true
    });
    walked.is_err() || right
}

/// A host changes one mapping after the other, and may fail behind the first.
pub(super) fn protecting_that_fails_in_the_middle_changes_nothing<P: Provider + Copy>(
    p: P,
) -> Outcome {
    let faulty = Faulty::new(p);
    let lent = Lent::around(p, &faulty, 32).expect("a small region can be lent");
    let region = &lent.region;
    faulty.fail_partially(true);
    for (first, pages) in [(4, 1), (5, 2), (7, 4), (11, 8)] {
        let place = Place::Exact(lent.at(first));
        let request = Request::bytes(lent.bytes(pages)).place(place);
        region.map(&request, RW, 9).expect("pages can be mapped");
    }
    // SAFETY: committed, and this case's alone.
    unsafe { region.protect(lent.part(8, 2), Access::None) }.expect("pages can be protected");
    assert!(is_as_recorded(&lent), "before");
    let all = |lent: &Lent<P, _>| {
        let ranges = lent.region.ranges(lent.range.addresses());
        ranges.collect::<Vec<_>>()
    };
    let before = all(&lent);
    for (first, pages) in [(4, 15), (4, 3), (6, 2), (7, 12), (9, 1)] {
        faulty.fail_nth(0);
        // SAFETY: committed.
        let failed = unsafe { region.protect(lent.part(first, pages), Access::Read) };
        failed.expect_err("the provider below fails");
        faulty.fail_none();
        assert_eq!(
            all(&lent),
            before,
            "{pages} pages from {first} on: the records"
        );
        assert!(
            is_as_recorded(&lent),
            "{pages} pages from {first} on: the host"
        );
    }
    // SAFETY: writable still.
    unsafe { fill(lent.part(4, 4), 0x33) };
    // SAFETY: committed, and this case's alone.
    unsafe { region.protect(lent.part(4, 15), Access::Read) }.expect("pages can be protected");
    assert!(is_as_recorded(&lent), "after");
    Outcome::Passed
}

/// Where there is memory to split a mapping but not to note that as well, the call must not be
/// made.
pub(super) fn lack_of_metadata_changes_nothing<P: Provider + Copy>(p: P) -> Outcome {
    let (page, mut refused) = (p.page_size(), 0);
    let pages = Request::bytes(200 * page.bytes());
    for metadata in (page.bytes()..20 * page.bytes()).step_by(page.bytes()) {
        let space = p.reserve(&pages).expect("a small reservation");
        let config = RegionConfig::new().metadata(metadata);
        let region: Result<RegionAllocator<P>, _> = RegionAllocator::on(p, p, config);
        // SAFETY: reserved above, and the region's from now on.
        let region = region.and_then(|region| unsafe { region.adopt(space) }.map(|()| region));
        if let Ok(region) = region
            && let Ok(mapped) = region.map(&pages, RW, 0)
        {
            // SAFETY: mapped just now.
            unsafe { fill(mapped, 0x77) };
            for n in (1..200).step_by(2) {
                let one = mapped.part(n * page.bytes(), page.bytes(), page);
                let one = one.expect("a part");
                // SAFETY: committed, and no other code uses it.
                if unsafe { region.decommit(one) }.is_err() {
                    refused += 1;
                    let state = region.query(one.addr()).map(|range| range.state);
                    assert_eq!(state, Some(PageState::Committed(Access::ReadWrite)));
                    // SAFETY: committed still.
                    assert!(unsafe { is_all(one, 0x77) }, "page {n} of {metadata} bytes");
                }
            }
        }
        // SAFETY: reserved above; no other code uses it.
        unsafe { p.release(space) }.expect("it goes");
    }
    let small = page.bytes() <= 4096;
    assert!(refused > 0 || !small, "there was memory for all");
    Outcome::Passed
}

pub(super) fn a_full_region_is_exhausted_and_serves_again<P: Provider + Copy>(p: P) -> Outcome {
    let lent = Lent::new(p, 200).expect("a small region can be lent");
    let region = &lent.region;
    let one = Request::bytes(lent.bytes(1));
    for round in 0..2 {
        for n in 0..200 {
            let page = region.map(&one, RW, 0).expect("a free page is found");
            assert_eq!(lent.page(page.addr()), n, "round {round}: the lowest first");
            // SAFETY: mapped just now.
            let fresh = unsafe { is_all(page, 0) };
            assert!(fresh, "round {round}: page {n} is not fresh");
            // SAFETY: mapped just now.
            unsafe { fill(page, NEIGHBOUR ^ 0xff) };
        }
        let full = region.map(&one, RW, 0).map_err(|e| e.kind());
        assert_eq!(full, Err(ErrorKind::Exhausted));
        assert_eq!(region.statistics().free(), 0);
        // SAFETY: no other code uses it.
        unsafe { region.unmap(lent.part(199, 1)) }.expect("the last page can go");
        let last = region.map(&one.place(Place::Exact(lent.at(199))), RW, 0);
        let last = last.expect("the last page can be mapped");
        // SAFETY: mapped just now.
        assert!(unsafe { is_all(last, 0) }, "the last page is not fresh");
        // SAFETY: no other code uses it.
        unsafe { region.unmap(lent.range) }.expect("everything can go");
        assert_eq!(region.statistics().used, 0);
        assert_eq!(region.host_mappings(), 1, "one inaccessible mapping");
    }
    Outcome::Passed
}
