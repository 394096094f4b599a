//! J11: what is retired waits for the executors that it must wait for, and for no others.

use super::{JitProvider, adapted, live::pattern, make, need_jit, retire_ends, retire_model};
use crate::{Case, Outcome, code, report};
use alloc::vec::Vec;
use core::slice;
use hostmem_core::{
    counted::{Counted, Limits},
    jit::{JitAllocator, JitConfig, JitError, Reclaimed, Refused, RetireConfig, RetireQueue, Span},
    provider::Provider,
};

const GRANULE: usize = 64;

/// Operations in the random case, and executors, more than slots for them.
const OPS: usize = 4000;

/// Yields the cases.
pub(super) fn cases<P: Provider + Copy>() -> impl Iterator<Item = Case<P>> {
    report::cases!("jit::retire", P:
        self::without_executors_nothing_waits,
        self::code_waits_for_every_executor_online,
        self::an_offline_executor_holds_nothing_back,
        self::at_the_bound_nothing_is_reused,
        self::executors_are_bounded,
        self::addresses_can_be_retired,
        retire_ends::spans_of_others_come_back,
        retire_ends::a_queue_that_goes_releases_everything,
        retire_ends::queues_that_cannot_be_made_leave_nothing,
        retire_ends::fork_hooks_keep_the_executors_that_are_named,
        self::retired_code_runs_until_it_is_released,
        self::random_schedules_match_the_oracle,
    )
}

type Queue<'a, P> = RetireQueue<&'a JitAllocator<P>, P>;

pub(super) fn allocator<P: JitProvider>(p: P) -> JitAllocator<P> {
    make(p, JitConfig::new().granularity(GRANULE)).expect("an allocator can be made")
}

pub(super) fn queue<P: JitProvider>(
    p: P,
    jit: &JitAllocator<P>,
    waiting: usize,
    executors: usize,
) -> Queue<'_, P> {
    let config = RetireConfig::new().waiting(waiting).executors(executors);
    RetireQueue::on(jit, p, config).expect("a small queue can be made")
}

pub(super) fn alloc<P: JitProvider>(jit: &JitAllocator<P>) -> Span {
    jit.alloc(GRANULE).expect("a small span can be had")
}

pub(super) fn spans(count: u64) -> Reclaimed {
    Reclaimed {
        spans: count,
        bytes: count * GRANULE as u64,
    }
}

/// Counts what a queue takes for its book-keeping.
pub(super) fn count<P: JitProvider>(p: P) -> Counted<P> {
    Counted::new(p, "retire", Limits::NONE).expect("a small arena can be reserved")
}

pub(super) fn without_executors_nothing_waits<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let jit = allocator(p);
    let queue = queue(p, &jit, 10, 2);
    assert_eq!(queue.reclaim(), spans(0), "nothing was retired");
    for _ in 0..10 {
        queue.retire(alloc(&jit)).expect("there is room");
    }
    assert_eq!(queue.statistics().waiting, spans(10));
    assert_eq!(jit.statistics().spans, 10, "what waits is live");
    assert_eq!(queue.reclaim(), spans(10), "no executor runs it");
    assert_eq!(queue.reclaim(), spans(0), "once");
    let after = queue.statistics();
    assert_eq!((after.waiting, after.reclaimed), (spans(0), spans(10)));
    assert_eq!(jit.statistics().spans, 0);
    Outcome::Passed
}

pub(super) fn code_waits_for_every_executor_online<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let jit = allocator(p);
    let queue = queue(p, &jit, 10, 3);
    let (first, second) = (queue.register(), queue.register());
    let (first, second) = (first.expect("one of 3"), second.expect("one of 3"));
    // A quiescent point before the retirement is none for it.
    first.quiescent();
    let old = alloc(&jit);
    let info = old.info();
    queue.retire(old).expect("there is room");
    assert_eq!(queue.reclaim(), spans(0), "no executor has passed");
    first.quiescent();
    first.quiescent();
    assert_eq!(queue.reclaim(), spans(0), "one of two has passed");
    assert_eq!(jit.query(info.rx.addr().get()), Some(info), "it is live");
    // One that comes while the span waits cannot run it, and is not waited for.
    let third = queue.register().expect("one of 3");
    let new = alloc(&jit);
    queue.retire(new).expect("there is room");
    second.quiescent();
    assert_eq!(queue.reclaim(), spans(1), "the first span: all have passed");
    assert_eq!(jit.query(info.rx.addr().get()), None, "it is gone");
    third.quiescent();
    assert_eq!(queue.reclaim(), spans(0), "the first executor has not");
    first.quiescent();
    assert_eq!(queue.reclaim(), spans(1), "now it has");
    let after = queue.statistics();
    assert_eq!((after.executors, after.online), (3, 3));
    assert_eq!((after.waiting, after.reclaimed), (spans(0), spans(2)));
    drop((first, second, third));
    assert_eq!(queue.statistics().executors, 0);
    Outcome::Passed
}

pub(super) fn an_offline_executor_holds_nothing_back<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let jit = allocator(p);
    let queue = queue(p, &jit, 100, 2);
    let blocked = queue.register().expect("one of 2");
    blocked.offline();
    for _ in 0..100 {
        queue.retire(alloc(&jit)).expect("there is room");
    }
    assert_eq!(queue.statistics().online, 0);
    assert_eq!(queue.reclaim(), spans(100), "it is in the kernel");
    queue.retire(alloc(&jit)).expect("there is room");
    // Offline it runs nothing, so these say nothing, and do not bring it back.
    blocked.offline();
    blocked.quiescent();
    assert_eq!(queue.statistics().online, 0);
    // Back, it cannot come to what was retired before.
    blocked.online();
    assert_eq!(queue.reclaim(), spans(1), "it was retired before");
    queue.retire(alloc(&jit)).expect("there is room");
    // Online it is already, and may be running code: no quiescent point.
    blocked.online();
    assert_eq!(queue.reclaim(), spans(0), "it is online again");
    blocked.offline();
    assert_eq!(queue.reclaim(), spans(1), "it went offline again");
    Outcome::Passed
}

pub(super) fn at_the_bound_nothing_is_reused<P: Provider + Copy>(p: P) -> Outcome {
    const BOUND: usize = 50;
    need_jit!(p);
    let jit = allocator(p);
    let queue = queue(p, &jit, BOUND, 1);
    let busy = queue.register().expect("one of 1");
    let mut waiting = Vec::new();
    for n in 0..BOUND as u64 {
        let mut span = alloc(&jit);
        let bytes = pattern(span.len_bytes(), n);
        jit.write(&mut span, 0, &bytes).expect("the span is ours");
        waiting.push((span.info(), bytes));
        queue.retire(span).expect("there is room");
    }
    let mut late = alloc(&jit);
    for _ in 0..3 {
        let before = (queue.statistics(), jit.statistics());
        let Refused { span, error } = queue.retire(late).expect_err("as many wait as may");
        assert_eq!(error, JitError::QueueFull);
        late = span;
        let rx = late.rx().addr().get();
        // SAFETY: the span is ours, and the call is refused.
        let by_address = unsafe { queue.retire_at(rx) };
        assert_eq!(by_address, Err(JitError::QueueFull));
        assert_eq!(queue.reclaim(), spans(0), "the executor is in one of them");
        let after = (queue.statistics(), jit.statistics());
        assert_eq!(after, before, "a refused call changed something");
    }
    let others: Vec<Span> = (0..BOUND).map(|_| alloc(&jit)).collect();
    for (info, bytes) in &waiting {
        let overlap = others.iter().any(|other| other.rx() == info.rx);
        assert!(!overlap, "{info:?} waits and is given out");
        assert_eq!(jit.query(info.rx.addr().get()), Some(*info));
        // SAFETY: the span waits, so it is live and readable, and no other code writes to it.
        let found = unsafe { slice::from_raw_parts(info.rx.as_ptr(), info.len) };
        assert_eq!(found, bytes, "{info:?} waits and was written to");
    }
    busy.quiescent();
    queue.retire(late).expect("the queue makes room by itself");
    let after = queue.statistics();
    assert!(after.reclaimed.spans > 0);
    assert_eq!(
        after.waiting.spans + after.reclaimed.spans,
        BOUND as u64 + 1
    );
    busy.quiescent();
    queue.reclaim();
    assert_eq!(queue.statistics().reclaimed, spans(BOUND as u64 + 1));
    others
        .into_iter()
        .for_each(|span| jit.release(span).expect("an owned span is taken back"));
    assert_eq!(jit.statistics().spans, 0);
    Outcome::Passed
}

pub(super) fn executors_are_bounded<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let jit = allocator(p);
    let queue = queue(p, &jit, 10, 3);
    for _ in 0..5 {
        let all: Vec<_> = (0..3)
            .map(|_| queue.register().expect("one of 3"))
            .collect();
        let refused = queue.register().expect_err("three are registered");
        assert_eq!(refused, JitError::TooManyExecutors);
        assert_eq!(queue.statistics().executors, 3);
        queue.retire(alloc(&jit)).expect("there is room");
        assert_eq!(queue.reclaim(), spans(0), "three are online");
        drop(all);
        assert_eq!(queue.reclaim(), spans(1), "those that are gone are no more");
    }
    for config in [
        RetireConfig::new().waiting(0),
        RetireConfig::new().waiting(usize::MAX),
        RetireConfig::new().executors(0),
        RetireConfig::new().executors(usize::MAX),
    ] {
        let refused = Queue::on(&jit, p, config).expect_err("out of range");
        let wrong = config.check().expect_err("out of range");
        assert_eq!(refused, JitError::Config(wrong));
    }
    Outcome::Passed
}

pub(super) fn addresses_can_be_retired<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let jit = allocator(p);
    let queue = queue(p, &jit, 10, 1);
    let busy = queue.register().expect("one of 1");
    let rx = jit
        .alloc(3 * GRANULE)
        .expect("a small span can be had")
        .rx()
        .addr()
        .get();
    let before = queue.statistics();
    for (addr, error) in [
        (0, JitError::NotOwned),
        (usize::MAX, JitError::NotOwned),
        (rx + 1, JitError::Interior),
        (rx + GRANULE, JitError::Interior),
        (rx + 3 * GRANULE, JitError::NotLive),
    ] {
        // SAFETY: no span starts there.
        assert_eq!(unsafe { queue.retire_at(addr) }, Err(error), "{addr:#x}");
        assert_eq!(queue.statistics(), before, "a refused call changed it");
    }
    // SAFETY: the span starts there, and its token is gone.
    unsafe { queue.retire_at(rx) }.expect("the span is live");
    // SAFETY: the call is refused.
    let again = unsafe { queue.retire_at(rx) };
    assert_eq!(again, Err(JitError::NotLive), "it waits already");
    let waits = Reclaimed {
        spans: 1,
        bytes: 3 * GRANULE as u64,
    };
    assert_eq!(queue.statistics().waiting, waits);
    assert_eq!(queue.reclaim(), spans(0));
    busy.quiescent();
    assert_eq!(queue.reclaim(), waits);
    // SAFETY: no span starts there any more.
    let gone = unsafe { queue.retire_at(rx) };
    assert_eq!(gone, Err(JitError::NotLive));
    Outcome::Passed
}

pub(super) fn retired_code_runs_until_it_is_released<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let jit = allocator(p);
    let queue = queue(p, &jit, 20, 1);
    let me = queue.register().expect("one of 1");
    let mut last: Option<(Span, u16)> = None;
    for value in 0..500 {
        let Some(function) = code::returning(value) else {
            return Outcome::Skipped("no code is known for this CPU");
        };
        let mut span = alloc(&jit);
        jit.write(&mut span, 0, function.bytes())
            .expect("it can be written");
        if let Some((old, value)) = last.replace((span, value)) {
            let rx = old.rx();
            queue.retire(old).expect("there is room");
            queue.reclaim();
            // What would be written there, had it been released.
            let mut other = alloc(&jit);
            let others = code::returning(60_000).expect("known above");
            jit.write(&mut other, 0, others.bytes())
                .expect("it can be written");
            // SAFETY: the function waits for this executor.
            assert_eq!(unsafe { code::call(rx) }, u32::from(value));
            jit.release(other).expect("an owned span is taken back");
        }
        if value % 7 == 0 {
            me.quiescent();
        }
        queue.reclaim();
    }
    assert!(jit.statistics().spans <= 8, "released all along");
    let (last, _) = last.expect("the loop ran");
    jit.release(last).expect("an owned span is taken back");
    Outcome::Passed
}

pub(super) fn random_schedules_match_the_oracle<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    for seed in 0..4 {
        let config = adapted(p, JitConfig::new().granularity(GRANULE));
        retire_model::check_retire(p, config, OPS, seed);
    }
    Outcome::Passed
}
