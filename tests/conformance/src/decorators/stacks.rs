//! Decorated providers keep the promises of the plain one.

use super::counted::count;
use crate::{Outcome, dual, pages};
use hostmem_core::{
    counted::{Counted, Counters, Limits},
    page::AddressRange,
    provider::{Provider, Within},
    sim::Faulty,
};

/// Runs the cases of pages and dual mappings. What the plain provider skips, this skips.
fn holds<P: Provider + Copy>(p: P) -> Outcome {
    let cases = pages::cases()
        .chain(pages::map_cases())
        .chain(dual::cases())
        .chain(dual::map_cases());
    for case in cases {
        case.run(p);
    }
    Outcome::Passed
}

#[track_caller]
fn expect_empty<P: Provider + Copy>(counted: &Counted<P>) {
    let Counters {
        reserved,
        committed,
        dual,
    } = counted.counters();
    assert_eq!(
        [reserved.now, committed.now, dual.now],
        [0; 3],
        "the cases leak nothing"
    );
    assert!(counted.calls() > counted.failures(), "some calls succeeded");
}

pub(super) fn through_a_reference<P: Provider + Copy>(p: P) -> Outcome {
    let once = &p;
    let twice = &once;
    holds(twice)
}

pub(super) fn through_dyn_provider<P: Provider + Copy>(p: P) -> Outcome {
    let erased: &dyn Provider = &p;
    holds(erased)
}

pub(super) fn through_within<P: Provider + Copy>(p: P) -> Outcome {
    holds(Within::new(p, AddressRange::ALL))
}

pub(super) fn through_counted<P: Provider + Copy>(p: P) -> Outcome {
    let counted = count(p, Limits::NONE);
    holds(&counted);
    expect_empty(&counted);
    Outcome::Passed
}

pub(super) fn through_faulty<P: Provider + Copy>(p: P) -> Outcome {
    holds(&Faulty::new(p))
}

pub(super) fn through_a_stack<P: Provider + Copy>(p: P) -> Outcome {
    let inner = count(p, Limits::NONE);
    let faulty = Faulty::new(&inner);
    let outer = count(Within::new(&faulty, AddressRange::ALL), Limits::NONE);
    // The outer one has its book-keeping from then on.
    holds(&outer);
    let before = inner.counters();
    holds(&outer);
    expect_empty(&outer);
    assert_eq!(
        inner.counters().dual.now,
        before.dual.now,
        "both counters agree"
    );
    assert_eq!(
        inner.counters().reserved.now,
        before.reserved.now,
        "both counters agree"
    );
    Outcome::Passed
}
