//! A provider that counts.

use super::ledger::Ledger;
use crate::{
    Outcome, SplitMix64,
    dual::need_dual,
    harness::{Views, expect_refused},
};
use core::ops::Range;
use hostmem_core::{
    counted::{Counted, Limits},
    page::Access,
    provider::{
        Capabilities, DualMapProvider, DualRequest, Error, ErrorKind, Leave, Provider, Request,
    },
    sim::{Calls, Faulty},
};

pub(super) fn count<P: Provider + Copy>(p: P, limits: Limits) -> Counted<P> {
    let counted = Counted::new(p, "test", limits).expect("a small arena can be reserved");
    assert_eq!(counted.name(), "test", "the name is the one given");
    assert_eq!(counted.limits(), limits, "the limits are those given");
    assert_eq!(
        counted.counters(),
        Default::default(),
        "nothing is counted at first"
    );
    assert_eq!(
        (counted.calls(), counted.failures()),
        (0, 0),
        "nothing was called at first"
    );
    counted
}

pub(super) fn counters_follow_a_script<P: Provider + Copy>(p: P) -> Outcome {
    let counted = count(p, Limits::NONE);
    let mut ledger = Ledger::new(&counted);
    let page = p.page_size().bytes();
    assert!(
        ledger.reserve(&Request::bytes(8 * page).guards(1, page)),
        "guards are counted"
    );
    assert!(ledger.commit(0, 1..5), "a small commit succeeds");
    assert!(
        ledger.protect(0, 2..3, Access::Read),
        "protecting counts nothing"
    );
    assert!(
        ledger.decommit(0, 3..7),
        "only what was committed is counted off"
    );
    assert!(ledger.decommit(0, 3..7), "and only once");
    assert!(ledger.release(0, 2..4), "half of it was committed");
    assert!(ledger.commit(0, 4..9), "a small commit succeeds");
    assert!(ledger.release(0, 0..2), "the rest of the first commit");
    assert!(ledger.reserve_pages(3), "a small reservation succeeds");
    if p.capabilities().contains(Capabilities::DUAL) {
        assert!(ledger.map(2), "the capability is a promise");
        assert!(ledger.map_into(1, 0..2), "reservations can be replaced");
        ledger.unmap_reserved(0);
        ledger.unmap(0);
        assert!(ledger.map(5), "the capability is a promise");
        let works = ledger.purge(0);
        assert_eq!(
            works,
            p.capabilities().contains(Capabilities::PURGE_DUAL),
            "as promised"
        );
    }
    ledger.close();
    Outcome::Passed
}

fn some_pages(random: &mut SplitMix64, len: usize) -> Range<usize> {
    let first = random.below(len);
    first..random.between(first + 1, len)
}

/// Makes one random call, if what it starts from is there.
fn step<P: Provider + Copy>(ledger: &mut Ledger<'_, P>, random: &mut SplitMix64, dual: bool) {
    let choice = random.below(if dual { 14 } else { 10 });
    if ledger.regions.is_empty() || (choice < 2 && ledger.regions.len() < 24) {
        ledger.reserve_pages(random.between(1, 12));
        return;
    }
    let at = random.below(ledger.regions.len());
    let region = &ledger.regions[at];
    let pages = some_pages(random, region.len());
    let (reserved, committed, owned) = (
        region.is_reserved(pages.clone()),
        region.is_committed(pages.clone()),
        region.is_owned(pages.clone()),
    );
    match choice {
        0..5 if reserved => assert!(ledger.commit(at, pages), "a small commit succeeds"),
        5 if committed => assert!(ledger.protect(at, pages, Access::Read), "less is granted"),
        6..8 if owned => assert!(ledger.decommit(at, pages), "decommit succeeds"),
        8..10 if owned => assert!(ledger.release(at, pages), "release succeeds"),
        10 => assert!(
            ledger.map(random.between(1, 4)),
            "the capability is a promise"
        ),
        11 if reserved => assert!(ledger.map_into(at, pages), "reservations can be replaced"),
        12.. if !ledger.views.is_empty() => {
            let views = random.below(ledger.views.len());
            if choice == 12 {
                ledger.unmap(views)
            } else {
                ledger.unmap_reserved(views)
            }
        }
        _ => {}
    }
}

pub(super) fn counters_follow_random_calls<P: Provider + Copy>(p: P) -> Outcome {
    let dual = p.capabilities().contains(Capabilities::DUAL);
    for seed in 0..4 {
        let counted = count(p, Limits::NONE);
        let mut random = SplitMix64::new(seed);
        let mut ledger = Ledger::new(&counted);
        for _ in 0..400 {
            step(&mut ledger, &mut random, dual);
        }
        ledger.close();
    }
    Outcome::Passed
}

pub(super) fn bad_calls_count_as_failures_only<P: Provider + Copy>(p: P) -> Outcome {
    let counted = count(p, Limits::NONE);
    let mut ledger = Ledger::new(&counted);
    assert!(ledger.reserve_pages(4), "a small reservation succeeds");
    let used = ledger.regions[0].at(1);
    let one = Request::bytes(1);
    for request in [
        Request::bytes(0),
        Request::bytes(usize::MAX),
        one.align(3),
        one.place(hostmem_core::provider::Place::Exact(used)),
    ] {
        assert!(!ledger.reserve(&request), "{request:?} must be refused");
    }
    if p.capabilities().contains(Capabilities::DUAL) {
        for len in [0, 1] {
            let refused = Views::refused(&counted, &DualRequest::bytes(len));
            expect_refused(
                refused,
                &[ErrorKind::InvalidArgument],
                "a dual mapping of a bad length",
            );
            ledger.check("a refused map_dual", false);
        }
    }
    ledger.close();
    Outcome::Passed
}

pub(super) fn lost_views_are_no_longer_counted<P: Provider + Copy>(p: P) -> Outcome {
    need_dual!(p);
    let faulty = Faulty::new(p).with_error(Error::of(ErrorKind::RangeLost));
    let counted = count(&faulty, Limits::NONE);
    let len = p.page_size().bytes();
    // SAFETY: neither target is a range of the caller's.
    let mapping = unsafe { counted.map_dual(&DualRequest::bytes(len)) };
    let mapping = mapping.expect("the capability is a promise");
    faulty.only(Calls::UNMAP_DUAL);
    faulty.fail_nth(0);
    // SAFETY: the mapping came from this provider, and no other code uses it.
    let (token, error) =
        unsafe { counted.unmap_dual(mapping, Leave::Hole) }.expect_err("made to fail");
    assert_eq!(error.kind(), ErrorKind::RangeLost, "the error is passed on");
    // In truth nothing was lost: the views go back to where they came from.
    // SAFETY: the mapping came from `p`, below the decorators, and no other code uses it.
    let unmapped = unsafe { p.unmap_dual(token, Leave::Hole) };
    assert!(unmapped.is_ok(), "unmapping succeeds");
    // The token was only to be forgotten, so it is never counted off later.
    assert_eq!(
        counted.counters().dual.now,
        0,
        "views that were lost are no longer held"
    );
    Outcome::Passed
}
