//! Random calls, beside an array that knows every page.

use super::ops::{Order, Setup, Tally, check, random_ops};
use crate::Outcome;
use hostmem_core::provider::Provider;

/// Calls of each run.
const STEPS: usize = 3000;

/// Calls of one allocator in a long run: enough for its metadata to grow after the first time.
const SHARE: usize = 50_000;

pub(super) fn random_calls_match_a_page_array<P: Provider + Copy>(p: P) -> Outcome {
    for (seed, order) in (0x4e61..).zip([Order::Lowest, Order::Highest, Order::Recent]) {
        let setup = Setup {
            order,
            ..Setup::SMALL
        };
        let ops = random_ops(seed, setup.pages, false).take(STEPS / 3);
        let tally = check(p, &setup, ops, "without faults");
        assert_eq!((tally.pages, tally.metadata), (0, 0), "nothing fails");
    }
    Outcome::Passed
}

pub(super) fn random_calls_match_a_page_array_while_others_fail<P: Provider + Copy>(
    p: P,
) -> Outcome {
    let ops = random_ops(0x4e64, Setup::SMALL.pages, true).take(STEPS / 3);
    let tally = check(p, &Setup::SMALL, ops, "while pages cannot be had");
    assert!(tally.pages > 10, "{tally:?}");
    // So little metadata that changes fail for want of it.
    let setup = Setup {
        metadata: 40 << 10,
        ..Setup::SMALL
    };
    let ops = random_ops(0x4e65, setup.pages, true).take(STEPS / 3);
    let tally = check(p, &setup, ops, "with little metadata");
    let little = p.page_size().bytes() <= setup.metadata;
    assert!(tally.used_up > 0 || !little, "{tally:?}");
    Outcome::Passed
}

/// Makes that many random calls of many thousand pages, beside an array that knows every page, with
/// another seed and order each time that an allocator has had its share; with calls of both its
/// providers failing in between, if so.
///
/// # Panics
///
/// As [`check`].
pub fn stress<P: Provider + Copy>(p: P, calls: usize, faults: bool, what: &str) -> Tally {
    let orders = [Order::Lowest, Order::Highest, Order::Recent];
    let mut all = Tally::default();
    for (seed, first) in (0x4e70..).zip((0..calls).step_by(SHARE)) {
        let setup = Setup {
            order: orders[first / SHARE % orders.len()],
            pages: 8192,
            // Where calls fail, every other allocator may also use its metadata up.
            metadata: if faults && first / SHARE % 2 == 1 {
                64 << 10
            } else {
                16 << 20
            },
            stride: 1000,
        };
        let ops = random_ops(seed, setup.pages, faults).take(SHARE.min(calls - first));
        let tally = check(p, &setup, ops, what);
        all.errors += tally.errors;
        all.pages += tally.pages;
        all.metadata += tally.metadata;
        all.used_up += tally.used_up;
    }
    all
}
