//! Queues that refuse, that cannot be made, that are forked, and that go.

use super::{
    need_jit,
    retire::{alloc, allocator, count, queue, spans},
};
use crate::Outcome;
use hostmem_core::{
    fork::{ForkHooks, around_fork},
    jit::{JitError, Refused, Reset, RetireConfig, RetireQueue},
    provider::{Error, ErrorKind, Provider},
    sim::Faulty,
};

pub(super) fn spans_of_others_come_back<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let (jit, other) = (allocator(p), allocator(p));
    let queue = queue(p, &jit, 10, 1);
    let Refused { span, error } = queue.retire(alloc(&other)).expect_err("a foreign span");
    assert_eq!(error, JitError::NotOwned);
    other
        .release(span)
        .expect("the token that came back is good");
    // What a reset takes, the allocator does not take back.
    queue.retire(alloc(&jit)).expect("there is room");
    // SAFETY: no other code uses the span, nor has.
    unsafe { jit.reset(Reset::Hard) };
    let fresh = alloc(&jit);
    assert_eq!(queue.reclaim(), spans(0), "there is nothing to release");
    let after = queue.statistics();
    assert_eq!((after.waiting, after.refused), (spans(0), 1));
    let found = jit.query(fresh.rx().addr().get());
    assert_eq!(found, Some(fresh.info()), "and nothing else was released");
    jit.release(fresh).expect("an owned span is taken back");
    Outcome::Passed
}

pub(super) fn a_queue_that_goes_releases_everything<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let (code, data) = (allocator(p), count(p));
    let queue = RetireQueue::<_, _>::on(&code, &data, RetireConfig::new());
    let queue = queue.expect("a queue can be made");
    let metadata = queue.statistics().metadata;
    assert_eq!(metadata, data.counters().committed.now);
    let busy = queue.register().expect("one of 64");
    for _ in 0..RetireConfig::new().max_waiting() {
        queue.retire(alloc(&code)).expect("there is room");
    }
    let refused = queue.retire(alloc(&code)).expect_err("no more").span;
    code.release(refused).expect("an owned span is taken back");
    assert_eq!(
        queue.statistics().metadata,
        metadata,
        "all of it was there from the start"
    );
    drop(busy);
    drop(queue);
    assert_eq!(code.statistics().spans, 0, "what waited is released");
    let left = data.counters();
    assert_eq!((left.reserved.now, left.committed.now), (0, 0), "leaked");
    // One that owns its allocator.
    let queue = RetireQueue::<_, _>::on(code, p, RetireConfig::new());
    let queue = queue.expect("a queue can be made");
    let span = alloc(queue.allocator());
    queue.retire(span).expect("there is room");
    Outcome::Passed
}

pub(super) fn queues_that_cannot_be_made_leave_nothing<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let (code, data) = (allocator(p), count(p));
    let faulty = Faulty::new(&data).with_error(Error::os(ErrorKind::Denied, 12));
    let fails_at = |n| {
        faulty.fail_nth(n);
        let made = RetireQueue::<_, _>::on(&code, &faulty, RetireConfig::new());
        // What dropping gives back cannot be tried again, so nothing may fail there.
        faulty.fail_none();
        let error = made.map(drop).err()?;
        let metadata = matches!(error, JitError::Metadata(e) if e.kind() == ErrorKind::Denied);
        assert!(metadata, "call {n}: {error}");
        let left = data.counters();
        assert_eq!((left.reserved.now, left.committed.now), (0, 0), "call {n}");
        Some(error)
    };
    let failures = (0..).map_while(fails_at).count();
    assert!(
        (2..10).contains(&failures),
        "it reserves and commits, in {failures} calls"
    );
    Outcome::Passed
}

pub(super) fn fork_hooks_keep_the_executors_that_are_named<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let jit = allocator(p);
    let queue = queue(p, &jit, 10, 3);
    let (mine, blocked) = (queue.register(), queue.register());
    let (mine, blocked) = (mine.expect("one of 3"), blocked.expect("one of 3"));
    let gone = queue.register().expect("one of 3");
    blocked.offline();
    queue.retire(alloc(&jit)).expect("there is room");
    let before = queue.statistics();
    // SAFETY: no process is cloned, and the closure says so.
    let in_child = unsafe { around_fork(&[&queue.forking(&[&mine]), &jit], &[], || false) };
    assert_eq!(in_child, Ok(false), "the hooks succeed");
    assert_eq!(queue.statistics(), before, "a parent goes on as before");
    let own = [&mine, &blocked];
    let hooks = queue.forking(&own);
    hooks.fork_prepare().expect("it takes a lock");
    // SAFETY: no other thread knows the queue, as in a child, and this answers fork_prepare.
    unsafe { hooks.fork_child() }.expect("it needs nothing");
    let after = queue.statistics();
    assert_eq!((after.executors, after.online), (2, 1), "one is gone");
    // The token of one that is gone says nothing for whoever has its slot.
    let new = queue.register().expect("one of 3");
    queue.retire(alloc(&jit)).expect("there is room");
    gone.quiescent();
    gone.offline();
    mine.quiescent();
    assert_eq!(queue.reclaim(), spans(1), "the new one came after it");
    assert_eq!(queue.reclaim(), spans(0), "it runs the second");
    drop(gone);
    assert_eq!(queue.reclaim(), spans(0), "it still does");
    assert_eq!(queue.statistics().executors, 3);
    blocked.online();
    new.quiescent();
    assert_eq!(queue.reclaim(), spans(1), "all have passed");
    Outcome::Passed
}
