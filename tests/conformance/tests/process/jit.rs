//! P8 for the JIT allocator: what children have that were forked with its hooks, and without.

use super::{
    child::{self, Child, Turns},
    no_dual_code, no_lost_views, skip_for,
};
use hostmem::OsLock;
use hostmem_conformance::{
    Outcome,
    code::{self, Code},
};
use hostmem_core::{
    fork::around_fork,
    jit::{JitAllocator, JitConfig, JitError, Span},
    provider::{DualSteps, Fork, Provider},
};
use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

type Jit<P> = JitAllocator<P, P, OsLock>;

fn function(value: u16) -> Code {
    code::returning(value).expect("the case is skipped on other CPUs")
}

pub(super) fn allocator<P: Provider + Copy>(p: P, config: JitConfig) -> Jit<P> {
    JitAllocator::on(p, p, config).expect("the configuration is valid")
}

/// Allocates a span with a function that returns `value`.
#[track_caller]
pub(super) fn place<P: Provider + Copy>(jit: &Jit<P>, value: u16) -> Span {
    let span = jit.alloc(function(value).bytes().len());
    let mut span = span.expect("a small span can be had");
    replace(jit, &mut span, value);
    span
}

#[track_caller]
fn replace<P: Provider + Copy>(jit: &Jit<P>, span: &mut Span, value: u16) {
    let written = jit.write(span, 0, function(value).bytes());
    written.expect("an owned span can be written");
}

/// Runs a span, and returns what it returns.
pub(super) fn returned(span: &Span) -> u32 {
    // SAFETY: the cases write whole functions of `returning` to every span.
    unsafe { code::call(span.rx()) }
}

/// Runs `run` in a child that is forked with the allocator's hooks around it.
#[track_caller]
pub(super) fn hooked_fork<P: Provider + Copy>(jit: &Jit<P>, run: impl FnOnce()) -> Child {
    let mut child = None;
    let fork = || {
        child = child::fork();
        child.is_none()
    };
    // SAFETY: fork clones the process once, and its child has one thread.
    match unsafe { around_fork(&[jit], &[], fork) } {
        Ok(true) => child::finish(run),
        Err(error) if error.in_child => child::finish(|| panic!("{error}")),
        Ok(false) => child.expect("in the parent, there is one"),
        Err(error) => panic!("{error}"),
    }
}

pub(super) fn bare_children_run_and_query_code<P: Provider + Copy>(p: P) -> Outcome {
    skip_for!(no_dual_code(p));
    for fork in [Fork::Detach, Fork::ChildLosesRw, Fork::Share] {
        let jit = allocator(p, JitConfig::new().fork(fork));
        let span = place(&jit, 7);
        child::check(|| {
            let found = jit.query(span.rx().addr().get());
            assert_eq!(
                found.map(|info| info.rx),
                Some(span.rx()),
                "{fork:?}: a query"
            );
            assert_eq!(returned(&span), 7, "{fork:?}: in the child");
        });
        assert_eq!(returned(&span), 7, "{fork:?}: in the parent");
        jit.release(span).expect("released once");
    }
    Outcome::Passed
}

pub(super) fn parent_and_child_do_not_see_each_others_writes<P: Provider + Copy>(p: P) -> Outcome {
    skip_for!(no_dual_code(p));
    skip_for!(no_lost_views());
    let jit = allocator(p, JitConfig::new());
    let mut span = place(&jit, 1);
    let (mut turns, mut childs_turns) = Turns::new();
    let (childs_jit, childs_span) = (&jit, &mut span);
    let child = hooked_fork(&jit, move || {
        assert_eq!(returned(childs_span), 1, "a copy of the parent's code");
        replace(childs_jit, childs_span, 2);
        childs_turns.give();
        childs_turns.wait();
        let seen = returned(childs_span);
        assert_eq!(seen, 2, "the parent wrote the child's code");
    });
    turns.wait();
    assert_eq!(returned(&span), 1, "the child wrote the parent's code");
    replace(&jit, &mut span, 3);
    turns.give();
    child.expect_success();
    assert_eq!(returned(&span), 3, "the parent's code is its own");
    jit.release(span).expect("released once");
    Outcome::Passed
}

pub(super) fn a_child_of_a_child_detaches_again<P: Provider + Copy>(p: P) -> Outcome {
    skip_for!(no_dual_code(p));
    skip_for!(no_lost_views());
    let jit = allocator(p, JitConfig::new());
    let mut span = place(&jit, 1);
    let child = hooked_fork(&jit, || {
        replace(&jit, &mut span, 2);
        let grandchild = hooked_fork(&jit, || {
            assert_eq!(returned(&span), 2, "a copy of the child's code");
            replace(&jit, &mut span, 3);
            assert_eq!(returned(&span), 3, "a copy of its own");
        });
        grandchild.expect_success();
        assert_eq!(returned(&span), 2, "the grandchild wrote the child's code");
    });
    child.expect_success();
    assert_eq!(returned(&span), 1, "a descendant wrote the parent's code");
    jit.release(span).expect("released once");
    Outcome::Passed
}

/// Sees what a child has of a span that was allocated under `fork`.
#[track_caller]
fn expect_in_child<P>(p: P, fork: Fork, found: bool, writable: Result<(), JitError>)
where
    P: Provider + Copy,
{
    let jit = allocator(p, JitConfig::new().fork(fork));
    let mut span = place(&jit, 1);
    let child = hooked_fork(&jit, || {
        let query = jit.query(span.rx().addr().get());
        assert_eq!(query.is_some(), found, "{fork:?}: a query finds the span");
        let written = jit.write(&mut span, 0, function(2).bytes());
        assert_eq!(written, writable, "{fork:?}: a write to the span");
        // New spans are the child's own, and never in pages that the parent sees.
        let new = place(&jit, 9);
        assert_eq!(returned(&new), 9, "{fork:?}: the child's own code");
        assert_ne!(new.rx(), span.rx(), "{fork:?}: the child's own place");
        if found {
            assert_ne!(returned(&span), 9, "{fork:?}: the parent's span changed");
        }
    });
    child.expect_success();
    let expected = if writable.is_ok() { 2 } else { 1 };
    assert_eq!(returned(&span), expected, "{fork:?}: the parent's code");
    jit.release(span).expect("released once");
}

pub(super) fn other_policies_say_what_the_child_lost<P: Provider + Copy>(p: P) -> Outcome {
    skip_for!(no_dual_code(p));
    skip_for!(no_lost_views());
    expect_in_child(p, Fork::ChildLosesRw, true, Err(JitError::ReadOnly));
    expect_in_child(p, Fork::ChildLosesBoth, false, Err(JitError::NotOwned));
    Outcome::Passed
}

pub(super) fn sharing_children_write_the_parents_code<P: Provider + Copy>(p: P) -> Outcome {
    skip_for!(no_dual_code(p));
    expect_in_child(p, Fork::Share, true, Ok(()));
    Outcome::Passed
}

/// Forks of the long case. On Linux a test of the library's own makes ten thousand.
const FORKS: u16 = 300;
/// Threads that allocate meanwhile.
const THREADS: u16 = 4;
/// Spans of the forking thread, which each child looks at and writes over.
const KEPT: u16 = 10;
/// What a child writes over them, and no other code does.
const CHILDS: u16 = 60_000;

/// Raises a flag when it goes, so that no thread waits forever for threads of a case that failed.
pub(super) struct RaiseOnDrop<'a>(pub(super) &'a AtomicBool);

impl Drop for RaiseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Allocates, runs and releases until it is told to stop.
fn allocate<P: Provider + Copy>(
    jit: &Jit<P>,
    thread: u16,
    stop: &AtomicBool,
    rounds: &AtomicUsize,
) {
    /// Live spans of a thread.
    const LIVE: usize = 20;
    let mut spans = Vec::new();
    let mut value = 10_000 + thread;
    while !stop.load(Ordering::Relaxed) {
        value = 10_000 + (value - 10_000 + THREADS) % 40_000;
        let span = place(jit, value);
        assert_eq!(returned(&span), u32::from(value), "a thread's new span");
        spans.push((span, value));
        if spans.len() > LIVE {
            let (span, value) = spans.swap_remove(usize::from(value) % LIVE);
            assert_eq!(returned(&span), u32::from(value), "a thread's old span");
            jit.release(span).expect("released once");
        }
        rounds.fetch_add(1, Ordering::Relaxed);
        // There may be fewer cores than threads, and the forking one is to get on.
        thread::yield_now();
    }
    for (span, _) in spans {
        jit.release(span).expect("released once");
    }
}

/// What a child does with code that it owns.
fn use_detached<P: Provider + Copy>(jit: &Jit<P>, kept: &mut [Span], first: u16) {
    for (span, value) in kept.iter().zip(first..) {
        assert_eq!(
            returned(span),
            u32::from(value),
            "the child sees what was there"
        );
        let inside = span.rx().addr().get() + span.len_bytes() - 1;
        let found = jit.query(inside).map(|info| info.rx);
        assert_eq!(found, Some(span.rx()), "the child's query");
    }
    for span in kept.iter_mut() {
        replace(jit, span, CHILDS);
        assert_eq!(returned(span), u32::from(CHILDS), "the child's write");
    }
    let new = place(jit, CHILDS + 1);
    assert_eq!(
        returned(&new),
        u32::from(CHILDS) + 1,
        "the child's new span"
    );
    jit.release(new).expect("released once");
}

pub(super) fn detached_children_of_allocating_threads_own_a_private_copy<P>(p: P) -> Outcome
where
    P: Provider + DualSteps + Copy,
{
    skip_for!(no_dual_code(p));
    skip_for!(no_lost_views());
    let jit = &allocator(p, JitConfig::new());
    let stop = &AtomicBool::new(false);
    let rounds: [AtomicUsize; THREADS as usize] = Default::default();
    thread::scope(|scope| {
        let _stop = RaiseOnDrop(stop);
        for (thread, rounds) in (0..).zip(&rounds) {
            scope.spawn(move || {
                let _stop = RaiseOnDrop(stop);
                allocate(jit, thread, stop, rounds);
            });
        }
        let mut kept: Vec<Span> = (0..KEPT).map(|n| place(jit, n)).collect();
        let mut first = 0;
        for n in 0..FORKS {
            // No fork is without the threads, however few cores there are and whoever else uses
            // them.
            let rounds = &rounds[usize::from(n % THREADS)];
            let before = rounds.load(Ordering::Relaxed);
            while rounds.load(Ordering::Relaxed) == before {
                assert!(!stop.load(Ordering::Relaxed), "fork {n}: a thread failed");
                thread::yield_now();
            }
            let child = hooked_fork(jit, || use_detached(jit, &mut kept, first));
            // At once, while the child still copies: it must see what was there before.
            first = n * KEPT;
            for (span, value) in kept.iter_mut().zip(first..) {
                replace(jit, span, value);
            }
            child.expect_success();
            for (span, value) in kept.iter().zip(first..) {
                let value = u32::from(value);
                assert_eq!(
                    returned(span),
                    value,
                    "fork {n}: the child wrote the parent's code"
                );
            }
        }
        for span in kept {
            jit.release(span).expect("released once");
        }
    });
    assert_eq!(jit.statistics().spans, 0, "every span was released");
    super::remark(format_args!("{FORKS} forks, {THREADS} threads"));
    Outcome::Passed
}
