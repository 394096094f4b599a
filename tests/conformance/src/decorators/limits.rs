//! The limits of a provider that counts.

use super::{counted::count, ledger::Ledger};
use crate::{
    Outcome,
    dual::need_dual,
    harness::{Region, Views, expect_refused},
};
use hostmem_core::{
    counted::Limits,
    provider::{Capabilities, DualRequest, ErrorKind, PageProvider, Provider, Request},
};

pub(super) fn reserved_limit_is_exact<P: Provider + Copy>(p: P) -> Outcome {
    let page = p.page_size().bytes();
    let counted = count(
        p,
        Limits {
            reserved: 10 * page,
            ..Limits::NONE
        },
    );
    let mut ledger = Ledger::new(&counted);
    assert!(ledger.reserve_pages(6), "six of ten");
    assert!(!ledger.reserve_pages(5), "eleven of ten");
    assert!(
        !ledger.reserve(&Request::bytes(4 * page).guards(1, 0)),
        "guards are counted"
    );
    assert!(
        ledger.reserve(&Request::bytes(2 * page).guards(page, 1)),
        "ten of ten"
    );
    assert!(!ledger.reserve_pages(1), "not one more");
    let over = counted.reserve(&Request::bytes(page));
    expect_refused(
        over,
        &[ErrorKind::Exhausted],
        "a reservation over the limit",
    );
    ledger.check("a reservation over the limit", false);
    assert!(ledger.commit(0, 0..6), "committing takes no addresses");
    assert!(ledger.release(0, 1..3), "release succeeds");
    assert!(
        ledger.reserve_pages(2),
        "what was released can be reserved again"
    );
    assert!(!ledger.reserve_pages(1), "and no more");
    ledger.close();
    Outcome::Passed
}

pub(super) fn memory_limit_is_exact<P: Provider + Copy>(p: P) -> Outcome {
    let page = p.page_size().bytes();
    let counted = count(
        p,
        Limits {
            memory: 6 * page,
            ..Limits::NONE
        },
    );
    let mut ledger = Ledger::new(&counted);
    assert!(ledger.reserve_pages(20), "addresses are not memory");
    assert!(ledger.commit(0, 0..4), "four of six");
    assert!(!ledger.commit(0, 4..7), "seven of six");
    assert!(ledger.commit(0, 5..7), "six of six");
    assert!(!ledger.commit(0, 10..11), "not one more");
    assert!(ledger.decommit(0, 1..3), "two go");
    if p.capabilities().contains(Capabilities::DUAL) {
        assert!(!ledger.map(3), "dual memory is memory: seven of six");
        assert!(ledger.map(2), "counted once for both views: six of six");
        assert!(!ledger.commit(0, 10..11), "not one more");
        assert!(!ledger.map_into(0, 10..11), "nor so");
        ledger.unmap_reserved(0);
    }
    assert!(
        ledger.commit(0, 10..12),
        "what was given back can be had again"
    );
    assert!(!ledger.commit(0, 12..13), "and no more");
    ledger.close();
    Outcome::Passed
}

pub(super) fn errors_of_bad_requests_come_before_limits<P: Provider + Copy>(p: P) -> Outcome {
    let counted = count(
        p,
        Limits {
            reserved: 0,
            memory: 0,
        },
    );
    let what = "a bad request to a provider without anything left";
    for request in [
        Request::bytes(0),
        Request::bytes(usize::MAX),
        Request::bytes(1).align(3),
    ] {
        expect_refused(
            counted.reserve(&request),
            &[ErrorKind::InvalidArgument],
            what,
        );
    }
    need_dual!(p);
    for len in [0, 1, usize::MAX] {
        let result = Views::refused(&counted, &DualRequest::bytes(len));
        expect_refused(result, &[ErrorKind::InvalidArgument], what);
    }
    let unlimited = count(p, Limits::NONE);
    let _held = Region::committed(&unlimited, 1);
    let result = Views::refused(&unlimited, &DualRequest::bytes(usize::MAX));
    expect_refused(
        result,
        &[ErrorKind::InvalidArgument],
        "an overflowing length beside memory",
    );
    Outcome::Passed
}
