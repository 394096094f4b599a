//! A provider that keeps to a range.

use crate::{
    Outcome, SplitMix64,
    dual::need_dual,
    harness::{Region, Views, expect_refused, undisturbed},
};
use alloc::vec::Vec;
use hostmem_core::{
    page::AddressRange,
    provider::{
        DualRequest, ErrorKind, PageProvider, Place, Placement, Provider, Request, Target, Within,
    },
};

const OUTSIDE: &[ErrorKind] = &[ErrorKind::OutsideRange];

/// Narrows to addresses of which most are probably free: 64 pages.
fn narrow<P: Provider + Copy>(p: P) -> Within<P> {
    let mut region = Region::pages(p, 64);
    region.release(0..64).expect("release succeeds");
    Within::new(p, region.range().addresses())
}

#[track_caller]
fn expect_inside<P: Provider + Copy>(within: Within<P>, region: &Region<Within<P>>) {
    let (range, limits) = (region.range(), within.range());
    assert!(
        limits.contains_range(range.addresses()),
        "{range:?} lies outside {limits:?}"
    );
}

pub(super) fn nothing_outside_is_returned<P: Provider + Copy>(p: P) -> Outcome {
    let mut random = SplitMix64::new(0x0071);
    undisturbed("reservations within a range", || {
        let within = narrow(p);
        let page = within.page_size().bytes();
        let mut kept = Vec::new();
        for _ in 0..200 {
            let place = match random.below(4) {
                0 => Place::Anywhere,
                1 => Place::Near(random.next_usize()),
                2 => Place::Hint(random.next_usize()),
                _ => Place::Near(within.range().start() + random.below(64) * page),
            };
            let request = Request::bytes(random.between(1, 3) * page).place(place);
            match Region::reserve(within, &request) {
                Ok(region) => {
                    expect_inside(within, &region);
                    kept.push(region);
                }
                Err(e) => assert_eq!(e.kind(), ErrorKind::Exhausted, "{request:?}"),
            }
            if kept.len() > 30 {
                kept.swap_remove(random.below(30));
            }
        }
        let pages: usize = kept.iter().map(Region::len).sum();
        (pages > 0).then_some(Outcome::Passed)
    })
}

pub(super) fn requests_are_narrowed<P: Provider + Copy>(p: P) -> Outcome {
    undisturbed("reservations in the common part of two ranges", || {
        let within = narrow(p);
        let page = within.page_size().bytes();
        let (start, last) = (within.range().start(), within.range().last());
        let request = Request::bytes(page).within(AddressRange::new(0, start + 2 * page - 1)?);
        let kept = [
            Region::reserve(within, &request),
            Region::reserve(within, &request),
        ];
        for region in kept.iter().flatten() {
            expect_inside(within, region);
            assert!(
                region.addr() < start + 2 * page,
                "the request's own range holds too"
            );
        }
        let full = within.reserve(&request);
        expect_refused(
            full,
            &[ErrorKind::Exhausted],
            "two pages cannot be had three times",
        );
        let all = Request::bytes(page).place(Place::Hint(last - page + 1));
        let hinted = Region::reserve(within, &all).ok()?;
        let taken = kept.iter().flatten().count() == 2;
        (taken && hinted.addr() == last - page + 1).then_some(Outcome::Passed)
    })
}

pub(super) fn impossible_places_are_refused<P: Provider + Copy>(p: P) -> Outcome {
    let region = Region::pages(p, 16);
    let page = region.page();
    let inner = AddressRange::from_len(region.at(4), 8 * page).expect("not empty");
    let within = Within::new(p, inner);
    assert_eq!(within.range(), inner, "the range is the one given");
    let one = Request::bytes(page);
    let disjoint = AddressRange::from_len(region.addr(), 4 * page).expect("not empty");
    for (request, what) in [
        (
            one.place(Place::Exact(region.at(3))),
            "exact below the range",
        ),
        (
            one.place(Place::Exact(region.at(12))),
            "exact behind the range",
        ),
        (
            Request::bytes(2 * page).place(Place::Exact(region.at(11))),
            "exact across its end",
        ),
        (
            one.guards(0, 1).place(Place::Exact(region.at(11))),
            "a guard outside the range",
        ),
        (
            one.within(disjoint),
            "a window that has nothing in common with the range",
        ),
    ] {
        expect_refused(within.reserve(&request), OUTSIDE, what);
    }
    let taken = within.reserve(&one.place(Place::Exact(region.at(5))));
    expect_refused(taken, &[ErrorKind::Taken], "exact on a used place inside");
    let large = within.reserve(&Request::bytes(9 * page));
    expect_refused(large, &[ErrorKind::Exhausted], "more than the range has");
    let invalid = within.reserve(&Request::bytes(0));
    expect_refused(invalid, &[ErrorKind::InvalidArgument], "a length of zero");
    Outcome::Passed
}

pub(super) fn dual_views_keep_inside<P: Provider + Copy>(p: P) -> Outcome {
    need_dual!(p);
    let outside = Region::pages(p, 4);
    let len = 2 * outside.page();
    undisturbed("dual mappings within a range", || {
        let within = narrow(p);
        let mut kept = Vec::new();
        for _ in 0..64 {
            match Views::map(within, &DualRequest::bytes(len)) {
                Ok(views) => {
                    for view in [views.rw(), views.rx()] {
                        let inside = within.range().contains_range(view.addresses());
                        assert!(inside, "{view:?} lies outside {:?}", within.range());
                    }
                    kept.push(views);
                }
                Err(e) => {
                    assert_eq!(
                        e.kind(),
                        ErrorKind::Exhausted,
                        "a full range is no other error"
                    );
                    break;
                }
            }
        }
        assert!(
            kept.len() <= 16,
            "64 pages hold 16 mappings of twice two pages"
        );
        let exact = Placement {
            place: Place::Exact(outside.addr()),
            ..Placement::ANYWHERE
        };
        let into = Target::Into(outside.part(&(0..2)));
        let request = DualRequest::bytes(len);
        for target in [Target::Find(exact), into] {
            for request in [
                DualRequest {
                    rw: target,
                    ..request
                },
                DualRequest {
                    rx: target,
                    ..request
                },
            ] {
                expect_refused(
                    Views::refused(within, &request),
                    OUTSIDE,
                    "a view outside the range",
                );
            }
        }
        (!kept.is_empty()).then_some(Outcome::Passed)
    })
}
