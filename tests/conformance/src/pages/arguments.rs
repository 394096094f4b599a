//! Requests that cannot be met.

use crate::{
    Outcome,
    harness::{Region, expect_refused},
};
use hostmem_core::{
    page::AddressRange,
    provider::{ErrorKind, PageProvider, Place, Placement, Request},
};

const HIGHEST_BIT: usize = 1 << (usize::BITS - 1);

pub(super) fn bad_requests_are_refused<P: PageProvider + Copy>(p: P) -> Outcome {
    let page = p.page_size().bytes();
    // A place that the case owns, so that nothing can land there by accident.
    let region = Region::pages(p, 8);
    let base = region.at(4);
    let one = Request::bytes(page);
    let exact = |place| one.place(Place::Exact(place));
    let window = |len| AddressRange::from_len(base, len).expect("the region lies there");
    let invalid = [
        (Request::bytes(0), "a length of zero"),
        (
            Request::bytes(0).guards(page, page),
            "a length of zero between guards",
        ),
        (
            Request::bytes(usize::MAX),
            "a length that overflows when rounded up",
        ),
        (Request::bytes(HIGHEST_BIT), "a length over isize::MAX"),
        (
            Request::bytes(isize::MAX.unsigned_abs()),
            "a length that is rounded up to over isize::MAX",
        ),
        (one.guards(usize::MAX, 0), "a leading guard that overflows"),
        (one.guards(0, usize::MAX), "a trailing guard that overflows"),
        (
            one.guards(HIGHEST_BIT, HIGHEST_BIT),
            "guards that overflow together",
        ),
        (one.align(0), "an alignment of zero"),
        (one.align(3), "an alignment that is no power of two"),
        (
            one.align(page + 1),
            "an alignment of more than a page that is no power of two",
        ),
        (one.align(HIGHEST_BIT), "an alignment over isize::MAX"),
        (exact(base + 1), "a misaligned exact place"),
        (
            exact(region.at(5)).align(HIGHEST_BIT >> 1),
            "an exact place against its alignment",
        ),
        (
            exact(usize::MAX - page + 1),
            "an exact place whose end wraps",
        ),
        (
            Request::bytes(2 * page).place(Place::Exact(usize::MAX - page + 1)),
            "beyond the end",
        ),
    ];
    for (request, what) in invalid {
        expect_refused(p.reserve(&request), &[ErrorKind::InvalidArgument], what);
    }
    let outside = [
        (
            exact(base).within(window(page - 1)),
            "an exact place that does not fit its window",
        ),
        (
            exact(region.at(3)).within(window(2 * page)),
            "an exact place below its window",
        ),
        (
            exact(region.at(6)).within(window(2 * page)),
            "an exact place behind its window",
        ),
        (
            exact(base).guards(0, 1).within(window(page)),
            "a guard outside the window",
        ),
    ];
    for (request, what) in outside {
        expect_refused(p.reserve(&request), &[ErrorKind::OutsideRange], what);
    }
    Outcome::Passed
}

pub(super) fn impossible_sizes_are_refused<P: PageProvider + Copy>(p: P) -> Outcome {
    let page = p.page_size();
    let region = Region::pages(p, 4);
    let most = page.round_down(isize::MAX.unsigned_abs());
    let small = AddressRange::from_len(region.addr(), 3 * page.bytes()).expect("not empty");
    let one = Request::bytes(page.bytes());
    let too_much = [
        (Request::bytes(most), "the largest length there is"),
        (
            one.align(HIGHEST_BIT >> 1)
                .place(Place::Near(region.addr())),
            "the largest alignment",
        ),
        (one.guards(most / 2, most / 4), "guards as large as that"),
        (
            Request::bytes(4 * page.bytes()).within(small),
            "more than the window has",
        ),
        (
            one.within(AddressRange::new(0, 0).expect("one byte")),
            "a window of one byte at null",
        ),
        (
            one.within(AddressRange::new(usize::MAX, usize::MAX).expect("one byte")),
            "at the top",
        ),
    ];
    for (request, what) in too_much {
        expect_refused(p.reserve(&request), &[ErrorKind::Exhausted], what);
    }
    let near_null = Placement {
        within: AddressRange::ALL,
        ..Placement::near(0, 0)
    };
    if let Ok(low) = Region::reserve(p, &one.placement(near_null)) {
        assert_ne!(low.addr(), 0, "the null page was reserved");
    }
    Outcome::Passed
}
