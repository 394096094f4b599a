//! The states of pages.

use crate::{Outcome, SplitMix64, harness::Region};
use alloc::{collections::BTreeMap, vec::Vec};
use hostmem_core::provider::{Commit, PageProvider, Request};

pub(super) fn pages_are_reserved_committed_written_and_released_again<P: PageProvider + Copy>(
    p: P,
) -> Outcome {
    let mut region = Region::pages(p, 4);
    let got = region
        .commit(0..4, Commit::READ_WRITE)
        .expect("a small commit succeeds");
    assert_eq!(
        got,
        p.page_size(),
        "host pages were asked for, and must be reported"
    );
    region.expect_zero(0..4);
    region.fill(0..4, 1);
    region.expect_pattern(0..4, 1);
    region.decommit(0..4).expect("decommit succeeds");
    region
        .commit(0..4, Commit::READ_WRITE)
        .expect("a decommitted range can be committed again");
    region.expect_zero(0..4);
    region.release(0..4).expect("release succeeds");
    Outcome::Passed
}

pub(super) fn parts_change_state_by_themselves<P: PageProvider + Copy>(p: P) -> Outcome {
    let mut region = Region::pages(p, 8);
    region
        .commit(1..3, Commit::READ_WRITE)
        .expect("a part can be committed");
    region
        .commit(3..7, Commit::READ_WRITE)
        .expect("and the part behind it");
    for page in 1..7 {
        region.fill(page..page + 1, page as u64);
    }
    region
        .decommit(2..5)
        .expect("a part across two commits can be decommitted");
    for page in [1, 5, 6] {
        region.expect_pattern(page..page + 1, page as u64);
    }
    region
        .commit(2..5, Commit::READ_WRITE)
        .expect("and committed again");
    region.expect_zero(2..5);
    region
        .commit(7..8, Commit::READ_WRITE)
        .expect("the last page too");
    region
        .commit(0..1, Commit::READ_WRITE)
        .expect("and the first");
    region.expect_zero(7..8);
    region.expect_zero(0..1);
    region.expect_pattern(5..6, 5);
    Outcome::Passed
}

pub(super) fn parts_are_released_by_themselves<P: PageProvider + Copy>(p: P) -> Outcome {
    let mut region = Region::committed(p, 9);
    for page in 0..9 {
        region.fill(page..page + 1, page as u64);
    }
    region
        .release(3..5)
        .expect("the middle of a reservation can be released");
    region.release(0..1).expect("its beginning");
    region.release(8..9).expect("its end");
    for page in [1, 2, 5, 6, 7] {
        region.expect_pattern(page..page + 1, page as u64);
    }
    region
        .decommit(5..7)
        .expect("what is left changes state as before");
    region
        .release(5..7)
        .expect("reserved pages can be released");
    region.expect_pattern(7..8, 7);
    Outcome::Passed
}

pub(super) fn reserved_pages_can_be_decommitted<P: PageProvider + Copy>(p: P) -> Outcome {
    let mut region = Region::pages(p, 4);
    region
        .decommit(0..4)
        .expect("decommit starts from reserved pages too");
    region
        .commit(1..2, Commit::READ_WRITE)
        .expect("they can still be committed");
    region.fill(1..2, 7);
    region.decommit(0..4).expect("and from a mixture");
    region
        .commit(0..4, Commit::READ_WRITE)
        .expect("which can all be committed");
    region.expect_zero(0..4);
    Outcome::Passed
}

pub(super) fn memory_that_comes_back_reads_zero<P: PageProvider + Copy>(p: P) -> Outcome {
    let mut region = Region::pages(p, 16);
    let mut random = SplitMix64::new(0x5eed);
    for round in 0..64 {
        let first = random.below(16);
        let pages = first..random.between(first + 1, 16);
        region.decommit(pages.clone()).expect("decommit succeeds");
        region
            .commit(pages.clone(), Commit::READ_WRITE)
            .expect("a small commit succeeds");
        region.expect_zero(pages.clone());
        region.fill(pages, round);
    }
    Outcome::Passed
}

pub(super) fn reservations_do_not_overlap<P: PageProvider + Copy>(p: P) -> Outcome {
    let mut random = SplitMix64::new(0x1a9);
    let mut regions = BTreeMap::new();
    for round in 0..400 {
        let region = Region::pages(p, random.between(1, 4));
        let range = region.range();
        let below = regions.range(..range.end()).next_back();
        let overlap = below.is_some_and(|(_, r): (_, &Region<P>)| r.range().overlaps(range));
        assert!(!overlap, "{range:?} overlaps an earlier reservation");
        regions.insert(range.addr(), region);
        if round % 3 == 2 {
            let addresses: Vec<usize> = regions.keys().copied().collect();
            regions.remove(&addresses[random.below(addresses.len())]);
        }
    }
    Outcome::Passed
}

pub(super) fn names_and_dumps_are_accepted<P: PageProvider + Copy>(p: P) -> Outcome {
    let len = 2 * p.page_size().bytes();
    // Linux refuses brackets, backslashes and more than 80 bytes; callers need not know that.
    let long =
        c"a name that is much longer than any host that keeps names at all is known to keep of it";
    for name in [c"hostmem: test", c"", c"[odd] \\ $name`", long] {
        for request in [
            Request::bytes(len).name(name),
            Request::bytes(len).guards(1, 1).name(name),
        ] {
            for request in [request, request.exclude_from_dump()] {
                let mut region = Region::reserve(p, &request).expect("a name is no reason to fail");
                let body = request.guards.before..request.guards.before + 2;
                region
                    .commit(body.clone(), Commit::READ_WRITE)
                    .expect("nor is it for a commit");
                region.expect_zero(body.clone());
                region.fill(body.clone(), 3);
                region.decommit(body.clone()).expect("nor for a decommit");
                region
                    .commit(body.clone(), Commit::READ_WRITE)
                    .expect("nor for a second commit");
                region.expect_zero(body);
            }
        }
    }
    Outcome::Passed
}
