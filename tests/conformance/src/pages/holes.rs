//! The search for holes, on a playground: a reservation with holes in it, so that everything that
//! the search can find there is known.

use crate::{
    Outcome, SplitMix64,
    harness::{Region, expect_refused, undisturbed},
};
use core::ops::Range;
use hostmem_core::{
    page::AddressRange,
    provider::{ErrorKind, PageProvider, Place, Placement, Request},
};

/// Pages of the playground.
const PAGES: usize = 256;
/// Its holes.
const HOLES: [Range<usize>; 5] = [10..12, 40..44, 100..101, 128..136, 200..210];

fn playground<P: PageProvider + Copy>(p: P) -> Region<P> {
    let mut ground = Region::pages(p, PAGES);
    for hole in HOLES {
        ground
            .release(hole)
            .expect("a part of a reservation can be released");
    }
    ground
}

/// Returns the page that `addr`, which lies in the playground, is the start of.
fn page_at<P: PageProvider + Copy>(ground: &Region<P>, addr: usize) -> usize {
    (addr - ground.addr()) / ground.page()
}

fn fits(first: usize, pages: usize) -> bool {
    HOLES
        .iter()
        .any(|hole| hole.start <= first && first + pages <= hole.end)
}

pub(super) fn windows_are_kept_and_can_be_full<P: PageProvider + Copy>(p: P) -> Outcome {
    undisturbed("reservations in a window", || {
        let ground = playground(p);
        let one = Request::bytes(ground.page());
        let window = ground.range().addresses();
        // Ends that are no page boundaries are rounded inwards.
        let odd = AddressRange::new(ground.at(40) + 1, ground.at(44) - 2).expect("not empty");
        let between = Region::reserve(p, &one.within(odd)).ok()?;
        let at = page_at(&ground, between.addr());
        assert!(
            (41..43).contains(&at),
            "only pages 41 and 42 lie wholly in the window, got {at}"
        );
        drop(between);
        let mut kept = alloc::vec::Vec::new();
        for _ in 0..HOLES.iter().map(Range::len).sum() {
            let region = Region::reserve(p, &one.within(window)).ok()?;
            assert!(
                fits(page_at(&ground, region.addr()), 1),
                "only holes are given out"
            );
            kept.push(region);
        }
        let full = p.reserve(&one.within(window));
        expect_refused(
            full,
            &[ErrorKind::Exhausted],
            "a reservation in a full window",
        );
        let freed = kept.pop()?.addr();
        let again = Region::reserve(p, &one.within(window)).ok()?;
        assert_eq!(
            again.addr(),
            freed,
            "the only hole of the window is found again"
        );
        Some(Outcome::Passed)
    })
}

pub(super) fn near_takes_the_nearest_hole<P: PageProvider + Copy>(p: P) -> Outcome {
    let seed = 0xa_ec0d;
    let mut random = SplitMix64::new(seed);
    for _ in 0..48 {
        let (anchor, pages) = (random.between(64, 192), random.between(1, 6));
        let align = 1 << random.below(3);
        undisturbed(
            "a reservation near an anchor lands in the nearest hole",
            || {
                let ground = playground(p);
                let near = Request::bytes(pages * ground.page())
                    .place(Place::Near(ground.at(anchor)))
                    .within(ground.range().addresses())
                    .align(align * ground.page());
                let aligned =
                    |first: &usize| ground.at(*first).is_multiple_of(near.placement.align);
                let nearest = (0..PAGES)
                    .filter(|&first| fits(first, pages))
                    .filter(aligned)
                    .map(|first| first.abs_diff(anchor))
                    .min();
                match (Region::reserve(p, &near), nearest) {
                    (Ok(region), Some(distance)) => {
                        let at = page_at(&ground, region.addr());
                        (at.abs_diff(anchor) == distance).then_some(())
                    }
                    (Err(e), _) => {
                        (nearest.is_none() && e.kind() == ErrorKind::Exhausted).then_some(())
                    }
                    (Ok(_), None) => None,
                }
            },
        );
    }
    Outcome::Passed
}

pub(super) fn near_keeps_its_reach<P: PageProvider + Copy>(p: P) -> Outcome {
    let page = p.page_size().bytes();
    // Anchors that callers really have: code, a stack, and both ends of the address space.
    let local = 0_u8;
    let code: fn(P) -> Outcome = near_keeps_its_reach::<P>;
    let anchors = [
        (&raw const local).addr(),
        code as *const () as usize,
        0,
        usize::MAX,
    ];
    for anchor in anchors {
        for pages in [1, 16] {
            let request = Request::bytes(pages * page).place(Place::Near(anchor));
            if let Err(e) = Region::reserve(p, &request) {
                panic!(
                    "{pages} pages near {anchor:#x}: somewhere there is a nearest hole, but {e}"
                );
            }
        }
    }
    // In reach are eight pages on either side of the anchor, all in use: nothing farther is given.
    let ground = Region::pages(p, 32);
    let reach = Placement::near(ground.at(16), 8 * page);
    let result = p.reserve(&Request::bytes(page).placement(reach));
    expect_refused(
        result,
        &[ErrorKind::Exhausted],
        "a reservation where all in reach is in use",
    );
    Outcome::Passed
}
