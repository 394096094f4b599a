//! Alignment, guards, exact places and hints.

use crate::{
    Outcome,
    harness::{Region, expect_refused, undisturbed},
    report::or_skip,
};
use alloc::vec::Vec;
use hostmem_core::{
    page::AddressRange,
    provider::{Commit, ErrorKind, PageProvider, Place, Request},
};

const TAKEN: &[ErrorKind] = &[ErrorKind::Taken];

/// Alignments are tried up to this, where the host has room for them.
const MAX_ALIGN: usize = 1 << 30;

/// Releases a fresh reservation, whose addresses are then most probably free.
fn free_range<P: PageProvider + Copy>(p: P, pages: usize) -> AddressRange {
    let mut region = Region::pages(p, pages);
    let addresses = region.range().addresses();
    region.release(0..pages).expect("release succeeds");
    addresses
}

pub(super) fn bodies_are_aligned<P: PageProvider + Copy>(p: P) -> Outcome {
    let page = p.page_size().bytes();
    let mut align = 1;
    while align <= MAX_ALIGN {
        for guard in [0, 1, page + 1] {
            let request = Request::bytes(page + 1).align(align).guards(guard, 0);
            let result = or_skip!(Region::reserve(p, &request), "no room for large alignments");
            // Region has checked the alignment.
            let mut region = result.expect("a host with room grants it");
            let body = guard.div_ceil(page)..region.len();
            assert!(
                region.at(body.start).is_multiple_of(align),
                "the body is aligned"
            );
            region
                .commit(body.clone(), Commit::READ_WRITE)
                .expect("a small commit succeeds");
            region.expect_zero(body.clone());
            region.fill(body, 1);
        }
        align *= 2;
    }
    Outcome::Passed
}

pub(super) fn guards_surround_the_body<P: PageProvider + Copy>(p: P) -> Outcome {
    let page = p.page_size().bytes();
    for (before, after) in [(1, 0), (0, 1), (page, page), (3 * page + 1, 2 * page)] {
        let request = Request::bytes(2 * page).guards(before, after);
        let mut region = Region::reserve(p, &request).expect("a small reservation succeeds");
        let first = before.div_ceil(page);
        assert_eq!(
            region.len(),
            first + 2 + after.div_ceil(page),
            "guards are whole pages"
        );
        let body = first..first + 2;
        region
            .commit(body.clone(), Commit::READ_WRITE)
            .expect("the body can be committed");
        region.fill(body.clone(), 2);
        region.decommit(body.clone()).expect("and decommitted");
        region
            .commit(body.clone(), Commit::READ_WRITE)
            .expect("and committed again");
        region.expect_zero(body);
        let all = 0..region.len();
        region
            .release(all)
            .expect("guards are released with the rest");
    }
    Outcome::Passed
}

pub(super) fn exact_takes_a_free_place<P: PageProvider + Copy>(p: P) -> Outcome {
    undisturbed("an exact reservation of free addresses", || {
        let place = free_range(p, 8).start();
        let page = p.page_size().bytes();
        for (offset, pages) in [(0, 8), (2, 3)] {
            let base = place + offset * page;
            let request = Request::bytes(pages * page).place(Place::Exact(base));
            match Region::reserve(p, &request) {
                Ok(region) => assert_eq!(region.addr(), base, "an exact place is exact"),
                Err(e) if e.kind() == ErrorKind::Taken => return None,
                Err(e) => panic!("an exact reservation of free addresses failed: {e}"),
            }
        }
        Some(Outcome::Passed)
    })
}

pub(super) fn exact_never_replaces<P: PageProvider + Copy>(p: P) -> Outcome {
    let mut region = Region::pages(p, 8);
    region
        .commit(2..6, Commit::READ_WRITE)
        .expect("a small commit succeeds");
    region.fill(2..4, 21);
    region.fill(4..6, 22);
    let page = region.page();
    for (first, pages) in [(2, 4), (3, 1), (0, 1), (0, 8), (5, 2), (7, 1)] {
        let request = Request::bytes(pages * page).place(Place::Exact(region.at(first)));
        expect_refused(p.reserve(&request), TAKEN, "exact on a used place");
        region.expect_pattern(2..4, 21);
        region.expect_pattern(4..6, 22);
    }
    // A hole of two pages: what begins or ends in it, but does not fit, is refused too.
    region.release(4..6).expect("release succeeds");
    for (first, pages) in [(4, 3), (3, 2), (3, 4), (5, 2)] {
        let request = Request::bytes(pages * page).place(Place::Exact(region.at(first)));
        expect_refused(p.reserve(&request), TAKEN, "exact on a partly used place");
        region.expect_pattern(2..4, 21);
    }
    region
        .commit(6..8, Commit::READ_WRITE)
        .expect("the neighbours' states are as before");
    region.expect_zero(6..8);
    Outcome::Passed
}

pub(super) fn exact_never_replaces_what_others_mapped<P: PageProvider + Copy>(p: P) -> Outcome {
    let page = p.page_size();
    let local = 0x5a_u8;
    let heap: Vec<u8> = alloc::vec![0x5a; 64];
    let code: fn(P) -> Outcome = exact_never_replaces_what_others_mapped::<P>;
    let code_address = code as *const () as usize;
    for address in [
        (&raw const local).addr(),
        heap.as_ptr().addr(),
        code_address,
    ] {
        let request = Request::bytes(1).place(Place::Exact(page.round_down(address)));
        expect_refused(p.reserve(&request), TAKEN, "exact on a page of the program");
    }
    assert!(
        local == 0x5a && heap.iter().all(|&b| b == 0x5a),
        "the program's memory is intact"
    );
    Outcome::Passed
}

pub(super) fn hint_is_taken_when_free<P: PageProvider + Copy>(p: P) -> Outcome {
    undisturbed("a hint at a free place is taken", || {
        let place = free_range(p, 4);
        let request = Request::bytes(p.page_size().bytes()).place(Place::Hint(place.start()));
        let region = Region::reserve(p, &request).expect("a hint is no reason to fail");
        (region.addr() == place.start()).then_some(Outcome::Passed)
    })
}

pub(super) fn hint_gives_way<P: PageProvider + Copy>(p: P) -> Outcome {
    let mut used = Region::committed(p, 4);
    used.fill(0..4, 31);
    let one = Request::bytes(used.page());
    let window = free_range(p, 64);
    let hint = |place| one.place(Place::Hint(place));
    for request in [
        hint(used.addr()),
        hint(used.at(3)),
        hint(used.addr() + 1),
        hint(usize::MAX),
        hint(used.addr()).align(16 * used.page()),
        hint(used.addr()).guards(used.page(), 0),
        hint(used.addr()).within(window),
    ] {
        // Region has checked the alignment and the window.
        let region = Region::reserve(p, &request).expect("a hint is no reason to fail");
        assert!(
            !region.range().overlaps(used.range()),
            "a hint never replaces"
        );
        used.expect_pattern(0..4, 31);
    }
    Outcome::Passed
}
