//! Dual mappings that cannot be made.

use super::need_dual;
use crate::{
    Outcome,
    harness::{Region, Views, expect_refused},
};
use hostmem_core::{
    page::AddressRange,
    provider::{
        Capabilities, Commit, DualMapProvider, DualRequest, ErrorKind, PageProvider, PageWish,
        Place, Placement, Target,
    },
};

pub(super) fn find(place: Place) -> Target {
    Target::Find(Placement {
        place,
        ..Placement::ANYWHERE
    })
}

pub(super) fn bad_requests_are_refused<P>(p: P) -> Outcome
where
    P: PageProvider + DualMapProvider + Copy,
{
    need_dual!(p);
    let page = p.page_size().bytes();
    let mut region = Region::pages(p, 8);
    let two = DualRequest::bytes(2 * page);
    let into = |first: usize, pages: usize| Target::Into(region.part(&(first..first + pages)));
    let aligned = |align| {
        Target::Find(Placement {
            align,
            ..Placement::ANYWHERE
        })
    };
    let high = 1 << (usize::BITS - 1);
    for (request, what) in [
        (DualRequest::bytes(0), "a length of zero"),
        (DualRequest::bytes(1), "a length of one byte"),
        (DualRequest::bytes(page + 8), "a length of a page and a bit"),
        (DualRequest::bytes(usize::MAX), "the largest length"),
        (DualRequest::bytes(high), "a length over isize::MAX"),
        (
            DualRequest {
                rw: into(0, 1),
                ..two
            },
            "a writable target that is too short",
        ),
        (
            DualRequest {
                rx: into(0, 3),
                ..two
            },
            "an executable target that is too long",
        ),
        (
            DualRequest {
                rw: into(0, 2),
                rx: into(0, 2),
                ..two
            },
            "targets that are the same",
        ),
        (
            DualRequest {
                rw: into(0, 2),
                rx: into(1, 2),
                ..two
            },
            "targets that overlap",
        ),
        (
            DualRequest {
                rw: aligned(0),
                ..two
            },
            "an alignment of zero",
        ),
        (
            DualRequest {
                rx: aligned(3 * page),
                ..two
            },
            "an alignment that is no power of two",
        ),
        (
            DualRequest {
                rw: find(Place::Exact(region.addr() + 1)),
                ..two
            },
            "a misaligned place",
        ),
        (
            DualRequest {
                rx: find(Place::Exact(usize::MAX - page + 1)),
                ..two
            },
            "a wrapping place",
        ),
    ] {
        let result = Views::refused(p, &request);
        expect_refused(result, &[ErrorKind::InvalidArgument], what);
    }
    let window = Placement {
        within: AddressRange::from_len(region.at(4), 2 * page).expect("not empty"),
        ..Placement {
            place: Place::Exact(region.at(3)),
            ..Placement::ANYWHERE
        }
    };
    for request in [
        DualRequest {
            rw: Target::Find(window),
            ..two
        },
        DualRequest {
            rx: Target::Find(window),
            ..two
        },
    ] {
        let result = Views::refused(p, &request);
        expect_refused(
            result,
            &[ErrorKind::OutsideRange],
            "an exact place outside its window",
        );
    }
    region
        .commit(0..8, Commit::READ_WRITE)
        .expect("the reservation is as before");
    region.expect_zero(0..8);
    Outcome::Passed
}

pub(super) fn used_places_are_refused<P>(p: P) -> Outcome
where
    P: PageProvider + DualMapProvider + Copy,
{
    need_dual!(p);
    let mut region = Region::committed(p, 8);
    region.fill(0..8, 1);
    let request = DualRequest::bytes(2 * region.page());
    let used = find(Place::Exact(region.at(2)));
    for request in [
        DualRequest {
            rw: used,
            ..request
        },
        DualRequest {
            rx: used,
            ..request
        },
    ] {
        let result = Views::refused(p, &request);
        expect_refused(result, &[ErrorKind::Taken], "a view on a used place");
        region.expect_pattern(0..8, 1);
    }
    let near = Target::Find(Placement::within(region.range().addresses()));
    for request in [
        DualRequest {
            rw: near,
            ..request
        },
        DualRequest {
            rx: near,
            ..request
        },
    ] {
        let result = Views::refused(p, &request);
        expect_refused(
            result,
            &[ErrorKind::Exhausted],
            "a view in a window that is in use",
        );
        region.expect_pattern(0..8, 1);
    }
    Outcome::Passed
}

pub(super) fn failure_leaves_reservations_reserved<P>(p: P) -> Outcome
where
    P: PageProvider + DualMapProvider + Copy,
{
    need_dual!(p);
    let mut region = Region::pages(p, 8);
    let target = Target::Into(region.part(&(2..4)));
    let other = Target::Into(region.part(&(5..7)));
    let used = find(Place::Exact(region.at(0)));
    let request = DualRequest::bytes(2 * region.page());
    // No host has pages of that size.
    let pages = PageWish::Large {
        bytes: 1 << (usize::BITS - 2),
        or_base: false,
    };
    for (request, what) in [
        (
            DualRequest {
                rw: target,
                rx: used,
                ..request
            },
            "a used place for the executable view",
        ),
        (
            DualRequest {
                rw: used,
                rx: target,
                ..request
            },
            "a used place for the writable view",
        ),
        (
            DualRequest {
                rw: target,
                rx: other,
                pages,
                ..request
            },
            "pages of an odd size",
        ),
    ] {
        assert!(
            Views::refused(p, &request).is_err(),
            "{what}: was not refused"
        );
        let taken = p.reserve(
            &hostmem_core::provider::Request::bytes(region.page())
                .place(Place::Exact(region.at(2))),
        );
        expect_refused(taken, &[ErrorKind::Taken], "a target after the failure");
        region
            .commit(2..7, Commit::READ_WRITE)
            .expect("the targets are still reserved");
        region.expect_zero(2..7);
        region.fill(2..7, 1);
        region.decommit(2..7).expect("and can be decommitted");
    }
    Outcome::Passed
}

pub(super) fn no_mappings_without_the_capability<P>(p: P) -> Outcome
where
    P: PageProvider + DualMapProvider + Copy,
{
    if p.capabilities().contains(Capabilities::DUAL) {
        return Outcome::Skipped("the provider has the capability");
    }
    let result = Views::refused(p, &DualRequest::bytes(p.page_size().bytes()));
    expect_refused(
        result,
        &[ErrorKind::Unsupported],
        "a dual mapping without the capability",
    );
    Outcome::Passed
}
