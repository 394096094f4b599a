//! The policy on hosts with pages of any size, with every state checked and every call failing
//! once.

use super::{MIB, OS};
use hostmem::{
    OsProvider,
    page::PageSize,
    provider::{Error, ErrorKind, PageProvider, Place, Request},
    region::{ClaimRequest, GuardedStack, claim},
    sim::{Calls, Faulty, Policy, Sim, SimState},
};

const PAGES: [PageSize; 3] = [PageSize::KIB_4, PageSize::KIB_16, PageSize::KIB_64];

fn host(page: PageSize) -> Sim<OsProvider> {
    Sim::new(OS, Policy::new(page).space(64 * MIB)).expect("a small host")
}

/// Reserves every `step`th page of a host, so that there are gaps.
fn scatter(host: &Sim<OsProvider>, step: usize) -> usize {
    let (space, page) = (host.space(), host.page_size().bytes());
    let pages = (space.addr()..space.end()).step_by(step * page);
    let taken = pages.map(|at| host.reserve(&Request::bytes(1).place(Place::Exact(at))));
    taken.filter_map(Result::ok).count()
}

fn request(host: &Sim<OsProvider>) -> ClaimRequest {
    ClaimRequest::range(host.space().addresses()).spare(0)
}

#[test]
fn r13_all_of_a_small_host_is_claimed_and_given_back() {
    for page in PAGES {
        let host = host(page);
        let taken = scatter(&host, 10);
        let fingerprint = host.fingerprint();
        let mut slots = vec![None; 4096];
        let mut claim = claim(&host, &request(&host), &mut slots).expect("valid");
        assert_eq!(host.pages_in_use(), 64 * MIB / page.bytes());
        assert_eq!(claim.ranges().count(), taken);
        assert!(claim.report().settled);
        let reserved = |at: usize| host.page_state(at) == SimState::Reserved;
        assert!(claim.usable().all(|range| reserved(range.addr())));
        // SAFETY: no other code uses the claim.
        unsafe { claim.give_back() }.expect("all can go");
        assert_eq!(host.fingerprint(), fingerprint);
        assert_eq!(host.take_misuse(), None);
    }
}

#[test]
fn a_call_that_fails_costs_nothing_but_its_gap() {
    for kind in [ErrorKind::Exhausted, ErrorKind::Taken, ErrorKind::Denied] {
        for n in 0..40 {
            let host = host(PageSize::KIB_4);
            scatter(&host, 1000);
            let fingerprint = host.fingerprint();
            let faulty = Faulty::new(&host).with_error(Error::os(kind, 99));
            faulty.only(Calls::RESERVE);
            faulty.fail_nth(n);
            let mut slots = vec![None; 256];
            let mut claim = claim(&faulty, &request(&host), &mut slots).expect("valid");
            let listed: usize = claim.ranges().map(|c| c.range.len_bytes()).sum();
            let free = host.space().len_bytes() - host.pages_in_use() * 4096;
            let all = claim.report().missed.bytes == 0;
            assert_eq!(free == 0, all, "what is missing is reported");
            assert!(all, "the next scan makes up for it: {:?}", claim.report());
            assert!(listed > 0);
            // SAFETY: no other code uses the claim.
            unsafe { claim.give_back() }.expect("all can go");
            assert_eq!(host.fingerprint(), fingerprint, "call {n}");
            assert_eq!(host.take_misuse(), None);
        }
    }
}

#[test]
fn a_stack_is_mapped_between_guards_or_not_at_all() {
    for page in PAGES {
        let host = host(page);
        let before = host.fingerprint();
        let faulty = Faulty::new(&host);
        for n in 0..2 {
            faulty.fail_nth(n);
            let error = GuardedStack::new(&faulty, MIB, 1).expect_err("a call failed");
            assert_eq!(error.errno(), Some(12));
            assert_eq!(host.fingerprint(), before);
        }
        for bad in [0, usize::MAX] {
            let error = GuardedStack::new(&faulty, bad, 1).expect_err("no such length");
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
        let stack = GuardedStack::new(&faulty, MIB, page.bytes() + 1).expect("there is room");
        let (range, whole) = (stack.range(), stack.range_with_guards());
        assert_eq!(range.addr() - whole.addr(), 2 * page.bytes());
        assert_eq!(whole.end() - range.end(), 2 * page.bytes());
        assert_eq!(host.page_state(range.addr()), SimState::Committed);
        assert_eq!(host.page_state(range.end() - 1), SimState::Committed);
        assert_eq!(host.page_state(range.addr() - 1), SimState::Guard);
        assert_eq!(host.page_state(range.end()), SimState::Guard);
        faulty.fail_nth(0);
        // SAFETY: no thread runs on it.
        let (stack, error) = unsafe { stack.release() }.expect_err("the call failed");
        assert_eq!((error.errno(), stack.range()), (Some(12), range));
        // SAFETY: no thread runs on it.
        unsafe { stack.release() }.expect("now it can go");
        assert_eq!(host.fingerprint(), before);
        assert_eq!(host.take_misuse(), None);
    }
}

#[test]
fn what_cannot_be_released_stays_in_the_claim() {
    let host = host(PageSize::KIB_4);
    scatter(&host, 1000);
    let before = host.fingerprint();
    let faulty = Faulty::new(&host);
    faulty.only(Calls::RELEASE);
    let mut slots = vec![None; 256];
    let mut claim = claim(&faulty, &request(&host), &mut slots).expect("valid");
    let ranges = claim.ranges().count();
    faulty.fail_nth(3);
    // SAFETY: no other code uses the claim.
    let error = unsafe { claim.give_back() }.expect_err("the fourth cannot go");
    assert_eq!(error.errno(), Some(12));
    assert_eq!(claim.ranges().count(), 1, "of {ranges}");
    // SAFETY: no other code uses the claim.
    unsafe { claim.give_back() }.expect("now it can");
    assert_eq!(claim.ranges().count(), 0);
    assert_eq!(host.fingerprint(), before);
}
