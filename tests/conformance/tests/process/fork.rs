//! P8 for dual mappings: what a bare child has, and what `fork_child_dual` makes of it.

use super::{
    POLICIES,
    child::{self, Turns},
    coded::Coded,
    fault::{Touch, faults},
    no_dual_code, no_lost_views, skip_for, strategies,
};
use hostmem_conformance::Outcome;
use hostmem_core::{
    page::PageRange,
    provider::{DualRequest, DualSteps, ErrorKind, Fork, Provider},
};
use std::ptr::NonNull;

/// Says whether a forked child that touches `place` faults.
#[track_caller]
fn faults_in_child(touch: Touch, place: NonNull<u8>) -> bool {
    // SAFETY: the cases pass places with code, and look afterwards at what a write did.
    unsafe { faults(touch, || place) }
}

/// Writes code in turns with a child, who writes only if it may, and sees that each follows the
/// other's last word.
#[track_caller]
fn expect_same_pages<P: Provider + Copy>(coded: &Coded<P>, child_writes: bool) {
    const VALUES: [u16; 3] = [10, 20, 30];
    let last_word = |value: u16| if child_writes { value + 1 } else { value };
    let before = coded.run();
    let (mut turns, mut childs_turns) = Turns::new();
    let child = child::spawn(move || {
        assert_eq!(coded.run(), before, "the child begins with what was there");
        childs_turns.give();
        for value in VALUES {
            childs_turns.wait();
            coded.publish();
            let seen = coded.run();
            assert_eq!(
                seen,
                u32::from(value),
                "the child's view follows the parent"
            );
            if child_writes {
                coded.put(last_word(value));
            }
            childs_turns.give();
        }
    });
    turns.wait();
    for value in VALUES {
        coded.put(value);
        turns.give();
        turns.wait();
        coded.publish();
        let seen = coded.run();
        assert_eq!(
            seen,
            u32::from(last_word(value)),
            "the parent's code after the child's turn"
        );
    }
    child.expect_success();
}

pub(super) fn a_bare_child_has_no_writable_view<P: Provider + Copy>(p: P) -> Outcome {
    skip_for!(no_dual_code(p));
    skip_for!(no_lost_views());
    for fork in [Fork::Detach, Fork::ChildLosesRw] {
        let coded = Coded::map(p, fork, 5);
        for place in coded.rw_places() {
            for touch in [Touch::Write, Touch::Read] {
                assert!(
                    faults_in_child(touch, place),
                    "{fork:?}: {touch:?} through rw"
                );
            }
        }
        let reopened = || {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let (start, len) = (coded.rw().start(), coded.rw().len_bytes());
            // Some systems refuse, others find nothing to change there.
            // SAFETY: in a child; if anything is there, it is the view.
            unsafe { libc::mprotect(start.as_ptr().cast(), len, access) };
            start
        };
        // SAFETY: as in faults_in_child.
        let faulted = unsafe { faults(Touch::Write, reopened) };
        assert!(faulted, "{fork:?}: the child got the writable view back");
        assert_eq!(
            coded.run(),
            5,
            "{fork:?}: children changed the parent's code"
        );
        expect_same_pages(&coded, false);
        coded.unmap();
    }
    Outcome::Passed
}

pub(super) fn a_bare_child_can_lose_both_views<P: Provider + Copy>(p: P) -> Outcome {
    skip_for!(no_dual_code(p));
    skip_for!(no_lost_views());
    let coded = Coded::map(p, Fork::ChildLosesBoth, 5);
    for place in [coded.rw_places(), coded.rx_places()].into_iter().flatten() {
        for touch in [Touch::Write, Touch::Read] {
            assert!(
                faults_in_child(touch, place),
                "{touch:?} of a view that is to be lost"
            );
        }
    }
    assert_eq!(coded.run(), 5, "children changed the parent's code");
    coded.unmap();
    Outcome::Passed
}

pub(super) fn a_bare_child_can_share_both_views<P: Provider + Copy>(p: P) -> Outcome {
    skip_for!(no_dual_code(p));
    let coded = Coded::map(p, Fork::Share, 5);
    expect_same_pages(&coded, true);
    coded.unmap();
    Outcome::Passed
}

pub(super) fn views_of_every_strategy_fork_as_asked<P>(p: P) -> Outcome
where
    P: Provider + DualSteps + Copy,
{
    skip_for!(no_dual_code(p));
    skip_for!(no_lost_views());
    for (step, request) in strategies(p) {
        for fork in POLICIES {
            let request = DualRequest { fork, ..request };
            // Which strategies work, another case says.
            let Ok(coded) = Coded::map_by(p, step, &request, 5) else {
                continue;
            };
            let (lost_rw, lost_rx) = fork.lost_views();
            for (places, lost) in [(coded.rw_places(), lost_rw), (coded.rx_places(), lost_rx)] {
                for place in places {
                    let faulted = faults_in_child(Touch::Read, place);
                    assert_eq!(faulted, lost, "{step}, {fork:?}: {place:?} is lost");
                }
            }
            if !lost_rx {
                expect_same_pages(&coded, !lost_rw);
            }
            coded.unmap();
        }
    }
    Outcome::Passed
}

/// Says whether nothing is mapped at `at`.
fn is_hole(at: NonNull<u8>) -> bool {
    // SAFETY: writes nothing to memory; it fails where none is mapped, which is what it is made
    // for.
    unsafe { libc::msync(at.as_ptr().cast(), 1, libc::MS_ASYNC) == -1 }
}

/// Yields the views of a mapping, and whether children lose them.
fn views<P: Provider + Copy>(coded: &Coded<P>) -> [(PageRange, bool); 2] {
    let (lost_rw, lost_rx) = coded.mapping().fork().lost_views();
    [(coded.rw(), lost_rw), (coded.rx(), lost_rx)]
}

pub(super) fn lost_views_are_reserved_again<P: Provider + Copy>(p: P) -> Outcome {
    skip_for!(no_dual_code(p));
    skip_for!(no_lost_views());
    for fork in POLICIES {
        let coded = Coded::map(p, fork, 5);
        child::check(|| {
            for (view, lost) in views(&coded) {
                assert_eq!(
                    is_hole(view.start()),
                    lost,
                    "{fork:?}: a hole in a bare child"
                );
            }
            // SAFETY: the only thread of a forked child, once.
            let done = unsafe { p.fork_child_dual(coded.mapping()) };
            assert_eq!(done, Ok(()), "{fork:?}: nothing lies where the views were");
            for (view, lost) in views(&coded) {
                assert!(!is_hole(view.start()), "{fork:?}: {view:?} is not reserved");
                let faulted = faults_in_child(Touch::Read, view.start());
                assert_eq!(faulted, lost, "{fork:?}: reading {view:?} faulted");
            }
            if !fork.lost_views().1 {
                assert_eq!(coded.run(), 5, "{fork:?}: the code is still there");
            }
        });
        assert_eq!(
            coded.run(),
            5,
            "{fork:?}: the child changed the parent's code"
        );
        coded.unmap();
    }
    Outcome::Passed
}

pub(super) fn lost_addresses_that_were_taken_are_reported<P: Provider + Copy>(p: P) -> Outcome {
    skip_for!(no_dual_code(p));
    skip_for!(no_lost_views());
    for fork in POLICIES {
        let coded = Coded::map(p, fork, 5);
        for (view, _) in views(&coded).into_iter().filter(|(_, lost)| *lost) {
            child::check(|| {
                let page = p.page_size().bytes();
                // SAFETY: inside the view, which is longer than a page.
                let at = unsafe { view.start().add(view.len_bytes() - page) };
                let access = libc::PROT_READ | libc::PROT_WRITE;
                let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED;
                // SAFETY: the child has lost the view, so nothing is replaced.
                let got = unsafe { libc::mmap(at.as_ptr().cast(), page, access, flags, -1, 0) };
                assert_eq!(got, at.as_ptr().cast(), "a page can be had there");
                // SAFETY: mapped just now, and writable.
                unsafe { at.write(77) };
                // SAFETY: the only thread of a forked child, once.
                let done = unsafe { p.fork_child_dual(coded.mapping()) };
                let kind = done.map_err(|error| error.kind());
                assert_eq!(
                    kind,
                    Err(ErrorKind::RangeLost),
                    "{fork:?}: a page was mapped there"
                );
                // SAFETY: mapped above. Were it replaced, this reads something else, or faults.
                let byte = unsafe { at.read_volatile() };
                assert_eq!(byte, 77, "{fork:?}: the page was replaced");
            });
        }
        coded.unmap();
    }
    Outcome::Passed
}
