//! Where views go, on a host whose pages are numbers.
#![expect(
    clippy::single_range_in_vec_init,
    reason = "one range of pages is what is meant"
)]

extern crate std;

mod host;

use super::*;
use crate::provider::Fork;
use core::ptr::{NonNull, without_provenance_mut};
use host::{Act, Asked, BASE, Host};
use std::vec::Vec;

const PAGE: PageSize = PageSize::KIB_4;
const BYTES: usize = PAGE.bytes();
fn range(page: usize, pages: usize) -> PageRange {
    let start = NonNull::new(without_provenance_mut(BASE + page * BYTES)).expect("not null");
    PageRange::new(start, pages * BYTES, PAGE).expect("whole pages")
}

fn pages_of(range: PageRange) -> core::ops::Range<usize> {
    let first = (range.addr() - BASE) / BYTES;
    first..first + range.len_bytes() / BYTES
}

fn window(page: usize, pages: usize) -> Placement {
    Placement::within(range(page, pages).addresses())
}

const FAIL: Act = Act::Fail(ErrorKind::Denied);

fn request(pages: usize, least: usize, rw: Placement, rx: Placement) -> DualRequest<'static> {
    DualRequest {
        min_len: Some(least * BYTES),
        rw: Target::Find(rw),
        rx: Target::Find(rx),
        ..DualRequest::bytes(pages * BYTES)
    }
}

#[test]
fn no_strategy_is_tried_without_a_place() {
    let anywhere = Placement::ANYWHERE;
    let exact = |page| Placement {
        place: Place::Exact(range(page, 1).addr()),
        ..anywhere
    };
    let cases = [
        // A window that is full, or has too short a hole; an exact place in use; one outside.
        (window(0, 8), ErrorKind::Exhausted),
        (window(4, 7), ErrorKind::Exhausted),
        (exact(3), ErrorKind::Taken),
        (exact(7), ErrorKind::Taken),
        (
            Placement {
                within: range(0, 4).addresses(),
                ..exact(9)
            },
            ErrorKind::OutsideRange,
        ),
    ];
    for (placement, kind) in cases {
        for view in [DualView::Rw, DualView::Rx] {
            let host = Host::new(64, &[0..8], &[]);
            let before = host.used();
            let (rw, rx) = match view {
                DualView::Rw => (placement, anywhere),
                DualView::Rx => (anywhere, placement),
            };
            let error = host
                .map(&request(8, 4, rw, rx))
                .expect_err("it has no place");
            assert_eq!((error.kind(), error.unplaced()), (kind, Some(view)));
            assert!(!error.is_shortage(), "less would not do either");
            assert_eq!(error.steps().count(), 0);
            let asked = host.asked();
            let walks = asked.iter().filter(|asked| **asked == Asked::Walk).count();
            assert!(walks <= 1, "{asked:?}");
            assert!(!asked.iter().any(|asked| matches!(asked, Asked::Step(..))));
            assert_eq!(host.used(), before, "all was given back");
            let text = std::format!("{error}");
            assert!(
                text.contains(&std::format!("no place for the {view}: ")),
                "{text}"
            );
        }
    }
}

#[test]
fn strategies_share_the_places_that_were_found_first() {
    let host = Host::new(
        64,
        &[0..8],
        &[FAIL, Act::Fail(ErrorKind::Exhausted), Act::Map],
    );
    let wanted = request(4, 4, window(0, 32), window(32, 32));
    let mapping = host.map(&wanted).expect("the third one works");
    assert_eq!(pages_of(mapping.rw()), 8..12);
    assert_eq!(pages_of(mapping.rx()), 32..36);
    let (memfd, shm, directory) = (DualStep::Memfd, DualStep::DevShm, DualStep::Directory(0));
    let steps = [memfd, shm, directory].map(|step| Asked::Step(step, 4));
    let places = [
        Asked::Walk,
        Asked::Reserve(4),
        Asked::Walk,
        Asked::Reserve(4),
    ];
    assert_eq!(host.asked(), [&places[..], &steps].concat());
    // None works: what was reserved goes back.
    let acts = [FAIL, Act::Fail(ErrorKind::Exhausted), FAIL];
    let host = Host::new(64, &[0..8], &acts);
    let before = host.used();
    let error = host.map(&wanted).expect_err("none works");
    assert_eq!((error.kind(), error.unplaced()), (ErrorKind::Denied, None));
    assert!(error.is_shortage(), "one of them had too little");
    assert_eq!(error.steps().count(), 3);
    assert_eq!(host.used(), before);
}

#[test]
fn both_views_are_as_long_as_the_shorter_hole() {
    // Holes of 6 pages in one window, of 3 in the other.
    let used = [6..32, 35..64];
    for (rw, rx) in [(0, 32), (32, 0)] {
        let host = Host::new(64, &used, &[]);
        let wanted = request(8, 2, window(rw, 32), window(rx, 32));
        let mapping = host.map(&wanted).expect("there is room for three");
        assert_eq!(mapping.len_bytes(), 3 * BYTES);
        assert_eq!(mapping.rw().len_bytes(), mapping.rx().len_bytes());
        assert_eq!(
            host.used().len(),
            64 - 9 + 6,
            "the rest of the longer hole is free"
        );
    }
    // One hole serves both, whatever its length.
    for hole in 2..20 {
        let host = Host::new(64, &[0..4, 4 + hole..64], &[]);
        let wanted = request(8, 1, window(0, 64), window(0, 64));
        let mapping = host.map(&wanted).expect("there is room for two pages");
        // Half of it; of one that is longer than one view, no less than half a view.
        let pages = if hole < 8 {
            hole / 2
        } else {
            (hole - 8).clamp(4, 8)
        };
        assert_eq!(mapping.len_bytes(), pages * BYTES, "{hole} pages");
        assert!(!mapping.rw().overlaps(mapping.rx()));
    }
    let host = Host::new(64, &[0..4, 5..64], &[]);
    let before = host.used();
    let wanted = request(8, 1, window(0, 64), window(0, 64));
    let error = host.map(&wanted).expect_err("one page is too little");
    assert_eq!(error.unplaced(), Some(DualView::Rx));
    assert_eq!(host.used(), before);
    // The caller's range and the length of the request are as they are.
    let host = Host::new(64, &[0..8, 12..64], &[]);
    let into = DualRequest {
        rw: Target::Into(range(0, 8)),
        ..request(8, 1, window(0, 64), window(0, 64))
    };
    let error = host.map(&into).expect_err("four pages are left");
    assert_eq!(error.unplaced(), Some(DualView::Rx));
}

#[test]
fn a_place_that_was_lost_is_found_anew_but_the_callers_is_told_of() {
    // The one that the call had reserved is somebody else's, so it stays in use.
    let host = Host::new(64, &[], &[Act::Lose, Act::Map]);
    let wanted = request(4, 4, Placement::ANYWHERE, window(32, 32));
    let mapping = host
        .map(&wanted)
        .expect("the second strategy finds another place");
    assert_eq!(pages_of(mapping.rx()), 36..40);
    // Until there is none.
    let host = Host::new(64, &[40..64], &[Act::Lose, Act::Lose, Act::Lose]);
    let error = host.map(&wanted).expect_err("both are lost");
    assert_eq!(error.unplaced(), Some(DualView::Rx));
    assert_eq!((error.lost(), error.steps().count()), (None, 2));
    // The caller's own.
    let own = range(32, 4);
    let host = Host::new(64, &[32..36], &[FAIL, Act::Lose, Act::Map]);
    let into = DualRequest {
        rx: Target::Into(own),
        ..request(4, 4, window(0, 32), window(0, 0x10))
    };
    let error = host.map(&into).expect_err("it is lost");
    assert_eq!(
        (error.lost(), error.kind()),
        (Some(own), ErrorKind::RangeLost)
    );
    assert_eq!(
        host.used(),
        [32, 33, 34, 35],
        "the other view's place went back"
    );
}

#[test]
fn a_strategy_that_wants_a_hole_gets_one_where_the_place_was() {
    let wanted = request(4, 2, window(0, 16), window(32, 16));
    let holes = |used: &[core::ops::Range<usize>], acts: &[Act]| Host {
        holes: true,
        ..Host::new(64, used, acts)
    };
    let host = holes(&[], &[Act::Map]);
    let mapping = host.map(&wanted).expect("it works");
    assert_eq!(
        (mapping.step(), pages_of(mapping.rx())),
        (DualStep::RemapDup, 32..36)
    );
    // Another strategy after it has a reservation again.
    let host = holes(&[], &[FAIL, Act::Map]);
    let mapping = host.map(&wanted).expect("the second one works");
    assert_eq!(
        (mapping.step(), pages_of(mapping.rx())),
        (DualStep::Memfd, 32..36)
    );
    // Somebody gets in between, and keeps what they got.
    let host = holes(&[], &[Act::Taken, Act::Taken, Act::Map]);
    let mapping = host.map(&wanted).expect("there is more room");
    assert_eq!(
        (mapping.step(), pages_of(mapping.rx())),
        (DualStep::RemapDup, 40..44)
    );
    let host = holes(&[40..64], &[Act::Taken, Act::Taken]);
    let error = host.map(&wanted).expect_err("others took all of it");
    assert_eq!(error.unplaced(), Some(DualView::Rx), "{error}");
    assert_eq!(host.used(), (32..64).collect::<Vec<_>>(), "theirs stays");
    // A window that is full is full before anything is tried.
    let host = holes(&[32..48], &[]);
    let error = host.map(&wanted).expect_err("it is full");
    assert_eq!(
        (error.unplaced(), error.steps().count()),
        (Some(DualView::Rx), 0)
    );
}

#[test]
fn large_pages_are_not_tried_where_none_fits() {
    let bytes = 8 * BYTES;
    let wish = |or_base, at: Placement| DualRequest {
        pages: PageWish::Large { bytes, or_base },
        ..request(16, 8, at, Placement::ANYWHERE)
    };
    // From an odd page on there is no room for two large pages, but for one.
    let host = Host::new(128, &[0..1, 17..64], &[FAIL, Act::Map]);
    let error = host
        .map(&wish(true, window(0, 64)))
        .map(|mapping| mapping.len_bytes());
    assert_eq!(
        error,
        Ok(bytes),
        "one large page, whose strategy fails, and then the host's"
    );
    let host = Host::new(128, &[0..1, 15..64], &[Act::Map]);
    let mapping = host
        .map(&wish(true, window(0, 64)))
        .expect("pages of the host");
    assert_eq!(mapping.step(), DualStep::Memfd);
    assert_eq!(mapping.len_bytes(), 14 * BYTES);
    let host = Host::new(128, &[0..1, 15..64], &[]);
    let error = host
        .map(&wish(false, window(0, 64)))
        .expect_err("only large pages would do");
    assert_eq!(
        (error.unplaced(), error.steps().count()),
        (Some(DualView::Rw), 0)
    );
}
