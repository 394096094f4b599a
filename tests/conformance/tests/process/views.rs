//! P4: code written through one view runs in the other, and each refuses what the other is for.

use super::{
    POLICIES, child,
    coded::Coded,
    fault::{Touch, faults},
    no_dual_code, remark, skip_for, strategies,
};
use core::mem::ManuallyDrop;
use hostmem_conformance::Outcome;
use hostmem_core::provider::{DualStep, DualSteps, Provider};

#[derive(Clone, Copy, Debug)]
enum View {
    Rw,
    Rx,
}

/// Holds views to P4. Each child maps its own, since a fork may take them away.
#[track_caller]
fn expect_p4<P: Provider + Copy>(map: impl Fn(u16) -> Coded<P>, what: &dyn core::fmt::Debug) {
    child::check(|| {
        let coded = map(7);
        for value in [7, 0, u16::MAX] {
            coded.put(value);
            let returned = coded.run();
            assert_eq!(returned, u32::from(value), "{what:?}: the newest code runs");
        }
    });
    for (view, touch, forbidden) in [
        (View::Rw, Touch::Read, false),
        (View::Rw, Touch::Write, false),
        (View::Rw, Touch::Execute, true),
        (View::Rx, Touch::Read, false),
        (View::Rx, Touch::Write, true),
        (View::Rx, Touch::Execute, false),
    ] {
        for n in 0..2 {
            let make = || {
                // The views stay until the child is gone.
                let coded = ManuallyDrop::new(map(7));
                match view {
                    View::Rw => coded.rw_places()[n],
                    View::Rx => coded.rx_places()[n],
                }
            };
            // SAFETY: the child's own, with code there.
            let faulted = unsafe { faults(touch, make) };
            assert_eq!(
                faulted, forbidden,
                "{what:?}: {touch:?} through {view:?} faulted"
            );
        }
    }
}

pub(super) fn each_view_refuses_what_the_other_is_for<P: Provider + Copy>(p: P) -> Outcome {
    skip_for!(no_dual_code(p));
    for fork in POLICIES {
        expect_p4(|value| Coded::map(p, fork, value), &fork);
    }
    Outcome::Passed
}

pub(super) fn views_of_every_strategy_refuse_what_the_other_is_for<P>(p: P) -> Outcome
where
    P: Provider + DualSteps + Copy,
{
    skip_for!(no_dual_code(p));
    let mut works = false;
    for (step, request) in strategies(p) {
        match Coded::map_by(p, step, &request, 7) {
            Err(error) => remark(format_args!("no {step}: {error}")),
            Ok(coded) => {
                coded.unmap();
                let map = |value| {
                    let coded = Coded::map_by(p, step, &request, value);
                    coded.expect("what could be mapped once can be mapped again")
                };
                expect_p4(map, &step);
                remark(format_args!("{step}"));
                works = true;
            }
        }
    }
    assert!(works, "the capability promises a strategy that works");
    Outcome::Passed
}

/// A view of memory that was opened for reading, or mapped for no more, stays so.
pub(super) fn executable_views_cannot_be_made_writable<P>(p: P) -> Outcome
where
    P: Provider + DualSteps + Copy,
{
    skip_for!(no_dual_code(p));
    let mut checked = false;
    for (step, request) in strategies(p) {
        // Some can by design: a duplicate may become what its source may.
        if matches!(step, DualStep::RemapDup | DualStep::Provider) {
            remark(format_args!("{step}: no such promise"));
            continue;
        }
        let Ok(coded) = Coded::map_by(p, step, &request, 7) else {
            continue;
        };
        child::check(|| {
            let (start, len) = (coded.rx().start().as_ptr(), coded.rx().len_bytes());
            for access in [libc::PROT_WRITE, libc::PROT_READ | libc::PROT_WRITE] {
                // SAFETY: in a child, which uses the view in no way that this could forbid.
                let done = unsafe { libc::mprotect(start.cast(), len, access) };
                assert_eq!(done, -1, "{step}: the executable view was made writable");
            }
            assert_eq!(coded.run(), 7, "{step}: a refusal changes nothing");
        });
        coded.unmap();
        checked = true;
    }
    if checked {
        Outcome::Passed
    } else {
        Outcome::Skipped("no strategy that works here is known to promise it")
    }
}
