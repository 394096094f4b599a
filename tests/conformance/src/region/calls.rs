//! One call after another.

use super::{Lent, NEIGHBOUR};
use crate::Outcome;
use alloc::vec::Vec;
use core::slice;
use hostmem_core::{
    page::{Access, AddressRange, PageRange},
    provider::{
        Capabilities, Commit, DualMapProvider, DualRequest, ErrorKind, Leave, PageProvider, Place,
        Provider, Request,
    },
    region::{PageState, RegionAllocator, RegionConfig},
};

pub(super) const RW: Commit = Commit::READ_WRITE;

/// Reads whether memory is all of one byte.
///
/// # Safety
///
/// The range is committed, readable, and no other code writes to it.
pub(super) unsafe fn is_all(range: PageRange, byte: u8) -> bool {
    // SAFETY: the caller vouches for readable pages that no other code writes; fresh ones read
    // zero.
    let bytes = unsafe { slice::from_raw_parts(range.start().as_ptr(), range.len_bytes()) };
    bytes.iter().all(|b| *b == byte)
}

/// Writes one byte everywhere.
///
/// # Safety
///
/// The range is committed, writable, and no other code uses it.
pub(super) unsafe fn fill(range: PageRange, byte: u8) {
    // SAFETY: the caller vouches for writable pages that no other code uses.
    unsafe { range.start().write_bytes(byte, range.len_bytes()) };
}

pub(super) fn a_page_is_replaced_where_it_lies<P: Provider + Copy>(p: P) -> Outcome {
    let lent = Lent::new(p, 64).expect("a small region can be lent");
    let region = &lent.region;
    let first = region.map(&Request::bytes(lent.bytes(1)), RW, 7);
    let first = first.expect("a page can be mapped");
    let before = region.statistics();
    for round in 0..2000 {
        // SAFETY: this case's page.
        let replaced = unsafe { region.map_over(first, RW, 7) };
        replaced.expect("a page can be replaced");
        // SAFETY: committed just now.
        assert!(unsafe { is_all(first, 0) }, "round {round}: old contents");
        // SAFETY: committed just now.
        unsafe { fill(first, 0xee) };
        assert_eq!(region.statistics(), before, "round {round}");
    }
    // SAFETY: no other code uses it any more.
    unsafe { region.unmap(first) }.expect("a page can be unmapped");
    assert_eq!(region.statistics().used, 0);
    Outcome::Passed
}

pub(super) fn all_but_the_end_can_be_fixed<P: Provider + Copy>(p: P) -> Outcome {
    let lent = Lent::new(p, 256).expect("a small region can be lent");
    let region = &lent.region;
    let request = Request::bytes(lent.bytes(192)).place(Place::Exact(lent.at(0)));
    let mapped = region
        .map(&request, RW, 0)
        .expect("what is free can be fixed");
    assert_eq!(mapped, lent.part(0, 192));
    // SAFETY: mapped just now.
    unsafe { fill(mapped, 0x11) };
    let gaps: Vec<_> = region.gaps(AddressRange::ALL).collect();
    assert_eq!(gaps, [lent.part(192, 64).addresses()]);
    Outcome::Passed
}

pub(super) fn holes_are_found_by_place_and_by_hint<P: Provider + Copy>(p: P) -> Outcome {
    let lent = Lent::new(p, 128).expect("a small region can be lent");
    let region = &lent.region;
    let at = |page, pages, place: fn(usize) -> Place| {
        let request = Request::bytes(lent.bytes(pages)).place(place(lent.at(page)));
        region
            .map(&request, RW, 1)
            .map(|range| lent.page(range.addr()))
    };
    assert_eq!(at(0, 64, Place::Exact), Ok(0));
    // SAFETY: no other code uses it.
    unsafe { region.unmap(lent.part(16, 16)) }.expect("a part can go");
    assert_eq!(at(20, 4, Place::Exact), Ok(20), "a free hole");
    // SAFETY: no other code uses it.
    unsafe { region.unmap(lent.part(20, 4)) }.expect("a part can go");
    assert_eq!(at(20, 4, Place::Hint), Ok(20), "a hint that is free");
    let before = region.statistics();
    let taken = at(20, 1, Place::Exact).map_err(|e| e.kind());
    assert_eq!(taken, Err(ErrorKind::Taken), "an exact place in use");
    let taken = at(15, 2, Place::Exact).map_err(|e| e.kind());
    assert_eq!(taken, Err(ErrorKind::Taken), "an exact place partly in use");
    assert_eq!(region.statistics(), before, "nothing changed");
    assert_eq!(at(20, 1, Place::Hint), Ok(16), "a hint in use");
    let near = at(60, 2, Place::Near).expect("there is room");
    assert_eq!(near, 64, "the nearest hole");
    Outcome::Passed
}

pub(super) fn pages_above_2_to_the_32_stand_alone<P: Provider + Copy>(p: P) -> Outcome {
    let page = p.page_size().bytes();
    let Some(pages) = (32_usize << 40).checked_div(page).filter(|n| *n > 1 << 32) else {
        return Outcome::Skipped("32 TiB are fewer pages");
    };
    let Ok(lent) = Lent::new(p, pages) else {
        return Outcome::Skipped("no 32 TiB can be reserved");
    };
    let region = &lent.region;
    let at = |page| Request::bytes(lent.bytes(1)).place(Place::Exact(lent.at(page)));
    for k in [0, 1, 77] {
        let low = region.map(&at(k), RW, 0).expect("a low page");
        let high = region.map(&at((1 << 32) + k), RW, 0).expect("a high page");
        // SAFETY: mapped just now.
        unsafe { fill(high, 0x77) };
        // SAFETY: no other code uses it.
        unsafe { region.unmap(low) }.expect("the low page can go");
        // SAFETY: mapped above.
        assert!(unsafe { is_all(high, 0x77) }, "page 2^32 + {k}");
        assert_eq!(region.query(low.addr()), None);
        assert!(region.query(high.addr()).is_some(), "page 2^32 + {k}");
    }
    // SAFETY: no other code uses it.
    unsafe { region.unmap(lent.range) }.expect("everything can go");
    Outcome::Passed
}

pub(super) fn unmapping_across_two_regions_frees_both<P: Provider + Copy>(p: P) -> Outcome {
    let page = p.page_size();
    let config = RegionConfig::new().metadata(16 << 20);
    let region: RegionAllocator<P> = RegionAllocator::on(p, p, config).expect("metadata");
    let whole = p
        .reserve(&Request::bytes(20 * page.bytes()))
        .expect("a small reservation");
    let part = |first, pages| {
        let part = whole.part(first * page.bytes(), pages * page.bytes(), page);
        part.expect("a part")
    };
    let foreign = part(8, 4);
    // SAFETY: reserved above.
    unsafe { p.commit(foreign, RW) }.expect("a small commit");
    // SAFETY: committed just now.
    unsafe { fill(foreign, NEIGHBOUR) };
    for (first, pages) in [(0, 8), (12, 8)] {
        // SAFETY: reserved above, and the region's from now on.
        unsafe { region.adopt(part(first, pages)) }.expect("it can be adopted");
        let request = Request::bytes(pages * page.bytes());
        let request = request.place(Place::Exact(part(first, pages).addr()));
        region.map(&request, RW, 0).expect("it can be mapped");
    }
    // SAFETY: a reservation that is adopted already.
    let twice = unsafe { region.adopt(part(6, 2)) }.map_err(|e| e.kind());
    assert_eq!(twice, Err(ErrorKind::Taken));
    // SAFETY: no other code uses what is the region's.
    unsafe { region.unmap(part(4, 12)) }.expect("both parts can go");
    // SAFETY: committed above, and not the region's.
    let intact = unsafe { is_all(foreign, NEIGHBOUR) };
    assert!(intact, "somebody else's pages");
    let gaps: Vec<_> = region.gaps(AddressRange::ALL).collect();
    assert_eq!(gaps, [part(4, 4).addresses(), part(12, 4).addresses()]);
    // Regions that touch are one.
    // SAFETY: this case's pages, used by no other code.
    unsafe { p.decommit(foreign) }.expect("it can be decommitted");
    // SAFETY: reserved, and the region's from now on.
    unsafe { region.adopt(foreign) }.expect("it can be adopted");
    assert_eq!(
        region.largest_gap(AddressRange::ALL),
        Some(part(4, 12).addresses())
    );
    drop(region);
    // SAFETY: reserved above; no other code uses it.
    unsafe { p.release(whole) }.expect("it goes");
    Outcome::Passed
}

pub(super) fn alignments_waste_nothing<P: Provider + Copy>(p: P) -> Outcome {
    let lent = Lent::new(p, 512).expect("a small region can be lent");
    let region = &lent.region;
    for align in [1, 2, 16, 64] {
        let request = Request::bytes(lent.bytes(2 * align)).align(lent.bytes(align));
        let range = region.reserve(&request).expect("there is room");
        assert!(range.addr().is_multiple_of(lent.bytes(align)), "{range:?}");
        assert_eq!(region.statistics().used, lent.bytes(2 * align));
        let guarded = request.guards(1, lent.bytes(1));
        let whole = region.reserve(&guarded).expect("there is room");
        assert!((whole.addr() + lent.bytes(1)).is_multiple_of(lent.bytes(align)));
        assert_eq!(whole.len_bytes(), lent.bytes(2 * align + 2));
        for range in [range, whole] {
            // SAFETY: no other code uses it.
            unsafe { region.release(range) }.expect("a reservation can go");
        }
        assert_eq!(region.statistics().used, 0, "all of it came back");
    }
    Outcome::Passed
}

pub(super) fn what_is_freed_becomes_one_range_again<P: Provider + Copy>(p: P) -> Outcome {
    const PAGES: usize = 600;
    let lent = Lent::new(p, PAGES).expect("a small region can be lent");
    let region = &lent.region;
    let before = region.statistics();
    let pages = |n| Request::bytes(lent.bytes(n));
    let mut singles: Vec<_> = (0..PAGES)
        .map(|_| region.map(&pages(1), RW, 0).expect("a page"))
        .collect();
    let mut odd = false;
    singles.retain(|page| {
        odd = !odd;
        if odd {
            // SAFETY: no other code uses it.
            unsafe { region.unmap(*page) }.expect("a page can go");
        }
        !odd
    });
    let pair = region.map(&pages(2), RW, 0).map_err(|e| e.kind());
    assert_eq!(pair, Err(ErrorKind::Exhausted), "no two free pages touch");
    for page in singles.drain(PAGES / 4..) {
        // SAFETY: no other code uses it.
        unsafe { region.unmap(page) }.expect("a page can go");
    }
    let pairs: Vec<_> = (0..PAGES / 4)
        .map(|_| region.map(&pages(2), RW, 0).expect("two pages that touch"))
        .collect();
    for (n, a) in pairs.iter().enumerate() {
        let clash = pairs[..n].iter().chain(&singles).find(|b| a.overlaps(**b));
        assert_eq!(clash, None, "{a:?} overlaps it");
    }
    for range in pairs.into_iter().chain(singles) {
        // SAFETY: no other code uses it.
        unsafe { region.unmap(range) }.expect("everything can go");
    }
    let after = region.statistics();
    assert_eq!((after.used, after.ranges), (before.used, before.ranges));
    assert_eq!(region.host_mappings(), 1);
    Outcome::Passed
}

pub(super) fn free_addresses_go_back<P: Provider + Copy>(p: P) -> Outcome {
    let mut lent = Lent::new(p, 32).expect("a small region can be lent");
    let region = &lent.region;
    let request = Request::bytes(lent.bytes(1)).place(Place::Exact(lent.at(10)));
    let kept = region.map(&request, RW, 0).expect("a page");
    // SAFETY: mapped just now.
    unsafe { fill(kept, 0x42) };
    let released = region
        .release_unused(lent.bytes(11))
        .expect("free pages go");
    assert_eq!(released, lent.bytes(21), "the long piece only");
    assert_eq!(region.statistics().free(), lent.bytes(10));
    let released = region.release_unused(1).expect("free pages go");
    assert_eq!(released, lent.bytes(10));
    let full = region.map(&Request::bytes(1), RW, 0).map_err(|e| e.kind());
    assert_eq!(full, Err(ErrorKind::Exhausted), "nothing is left");
    // SAFETY: mapped above.
    assert!(unsafe { is_all(kept, 0x42) });
    // SAFETY: no other code uses it.
    unsafe { region.unmap(kept) }.expect("it can go");
    // What was given back is no longer this case's.
    let page = p.page_size();
    let edges = [0, 33].map(|n| lent.whole.part(n * page.bytes(), page.bytes(), page));
    lent.parts = edges.into_iter().flatten().chain([kept]).collect();
    Outcome::Passed
}

pub(super) fn a_pass_through_serves_before_and_after<P: Provider + Copy>(p: P) -> Outcome {
    let config = RegionConfig::new().metadata(16 << 20);
    let region: RegionAllocator<P> = RegionAllocator::on(p, p, config).expect("metadata");
    let page = p.page_size();
    let early = region
        .map(&Request::bytes(3 * page.bytes()), RW, 0)
        .expect("pages");
    // SAFETY: mapped just now.
    unsafe { fill(early, 0x21) };
    assert!(!region.is_active());
    assert_eq!(
        region.query(early.addr()),
        None,
        "it is the provider's below"
    );
    let space = p
        .reserve(&Request::bytes(16 * page.bytes()))
        .expect("a small reservation");
    // SAFETY: reserved just now, and the region's from now on.
    unsafe { region.adopt(space) }.expect("it can be adopted");
    let late = region
        .map(&Request::bytes(page.bytes()), RW, 0)
        .expect("a page");
    assert!(
        space.contains_range(late),
        "{late:?} lies outside what was adopted"
    );
    // SAFETY: mapped above.
    unsafe { region.protect(early, Access::Read) }.expect("early pages can be protected");
    // SAFETY: readable still.
    assert!(unsafe { is_all(early, 0x21) });
    // SAFETY: no other code uses it.
    unsafe { region.release(early) }.expect("early pages go where they came from");
    // SAFETY: no other code uses it.
    unsafe { region.unmap(late) }.expect("late pages can go");
    drop(region);
    // SAFETY: reserved above.
    unsafe { p.release(space) }.expect("it goes");
    Outcome::Passed
}

pub(super) fn mappings_shrink_and_grow_in_place<P: Provider + Copy>(p: P) -> Outcome {
    let lent = Lent::new(p, 32).expect("a small region can be lent");
    let region = &lent.region;
    let range = region
        .map(&Request::bytes(lent.bytes(4)), RW, 5)
        .expect("pages");
    // SAFETY: mapped just now.
    unsafe { fill(range, 0x31) };
    // SAFETY: this case's memory.
    let longer = unsafe { region.resize(range, lent.bytes(8), RW) }.expect("there is room");
    assert_eq!(longer, lent.part(0, 8));
    // SAFETY: mapped.
    assert!(unsafe { is_all(lent.part(0, 4), 0x31) }, "the old part");
    // SAFETY: mapped.
    assert!(unsafe { is_all(lent.part(4, 4), 0) }, "the new part");
    assert_eq!(region.query(lent.at(7)).map(|r| r.tag), Some(5));
    // SAFETY: this case's memory.
    let shorter = unsafe { region.resize(longer, lent.bytes(2), RW) }.expect("it shrinks");
    assert_eq!(shorter, lent.part(0, 2));
    assert_eq!(region.statistics().used, lent.bytes(2));
    let other = Request::bytes(lent.bytes(1)).place(Place::Exact(lent.at(3)));
    region.map(&other, RW, 0).expect("a page");
    // SAFETY: refused.
    let taken = unsafe { region.resize(shorter, lent.bytes(4), RW) }.map_err(|e| e.kind());
    assert_eq!(taken, Err(ErrorKind::Taken));
    assert_eq!(region.statistics().used, lent.bytes(3), "nothing changed");
    Outcome::Passed
}

pub(super) fn dual_mappings_lie_in_it<P: Provider + Copy>(p: P) -> Outcome {
    if !p.capabilities().contains(Capabilities::DUAL) {
        return Outcome::Skipped("no dual mappings");
    }
    let lent = Lent::new(p, 64).expect("a small region can be lent");
    let region = &lent.region;
    for leave in [Leave::Hole, Leave::Reserved] {
        let request = DualRequest::bytes(lent.bytes(4));
        // SAFETY: no target is a range of this case's.
        let mapping = unsafe { region.map_dual(&request) };
        let mapping = mapping.expect("the provider has dual mappings");
        for view in [mapping.rw(), mapping.rx()] {
            assert!(lent.range.contains_range(view), "{view:?} lies outside");
            let state = region.query(view.addr()).map(|r| r.state);
            assert_eq!(state, Some(PageState::Dual));
            // SAFETY: refused, since it is a view.
            let refused = unsafe { region.unmap(view) }.map_err(|e| e.kind());
            assert_eq!(refused, Err(ErrorKind::Taken));
        }
        // SAFETY: the writable view is this case's.
        unsafe { fill(mapping.rw(), 0x90) };
        // SAFETY: the view is mapped, and no other code writes to it now.
        let same = unsafe { is_all(mapping.rx(), 0x90) };
        assert!(same, "both views show the same");
        let views = [mapping.rw(), mapping.rx()];
        // SAFETY: no other code uses it.
        unsafe { region.unmap_dual(mapping, leave) }.expect("it can be unmapped");
        for view in views {
            let state = region.query(view.addr()).map(|r| r.state);
            let expected = (leave == Leave::Reserved).then_some(PageState::Reserved);
            assert_eq!(state, expected);
            if leave == Leave::Reserved {
                // SAFETY: reserved, and used by no other code.
                unsafe { region.release(view) }.expect("a reservation can go");
            }
        }
        assert_eq!(region.statistics().used, 0);
    }
    Outcome::Passed
}
