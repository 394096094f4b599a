//! Blocks: when they come, how large they are, and when they go.

use super::{adapted, make, model::Model, need_jit};
use crate::{Outcome, SplitMix64};
use alloc::vec::Vec;
use hostmem_core::{
    counted::{Counted, Limits},
    fork::around_fork,
    jit::{JitAllocator, JitConfig, JitError, JitStatistics, Span},
    provider::{ErrorKind, Provider},
};

/// Spans that one empty block of 64 KiB cannot hold.
const MANY: usize = 3000;

fn count<P: Provider + Copy>(p: P, name: &'static str) -> Counted<P> {
    Counted::new(p, name, Limits::NONE).expect("a small arena can be reserved")
}

pub(super) fn lifo_release_leaves_at_most_one_block<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let code = count(p, "code");
    let config = adapted(p, JitConfig::new().block_size(64 << 10, 64 << 10));
    let jit = JitAllocator::<_, P>::on(&code, p, config).expect("an allocator can be made");
    for _ in 0..3 {
        let mut spans: Vec<Span> = Vec::new();
        for n in 0..MANY {
            spans.push(jit.alloc(8 + n % 500).expect("small spans can be had"));
        }
        let full = jit.statistics();
        assert!(full.blocks > 1, "the spans need several blocks: {full:?}");
        assert_eq!(
            code.counters().dual.now,
            full.reserved,
            "all that is mapped is counted"
        );
        while let Some(span) = spans.pop() {
            jit.release(span).expect("an owned span is taken back");
        }
        let left = jit.statistics();
        assert!(
            left.blocks <= 1,
            "at most one empty block is kept: {left:?}"
        );
        assert_eq!((left.spans, left.used), (0, 0), "nothing is live");
        assert_eq!(
            code.counters().dual.now,
            left.reserved,
            "the other blocks are unmapped"
        );
    }
    drop(jit);
    assert_eq!(
        code.counters().dual.now,
        0,
        "a dropped allocator keeps nothing"
    );
    Outcome::Passed
}

pub(super) fn an_empty_allocator_works_as_new<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let config = JitConfig::new().block_size(64 << 10, 64 << 10);
    let mut model = Model::new(make(p, config).expect("an allocator can be made"));
    let mut random = SplitMix64::new(0xe3e);
    let mut first = None;
    for round in 0..4 {
        for n in 0..500 {
            model
                .alloc(random.between(1, 300), n)
                .expect("small spans can be had");
        }
        model.expect_all_intact();
        model.release_all();
        let JitStatistics {
            blocks,
            spans,
            used,
            reserved,
            ..
        } = model.jit.statistics();
        let now = (blocks, spans, used, reserved);
        assert_eq!(
            *first.get_or_insert(now),
            now,
            "round {round} leaves what the first left"
        );
    }
    Outcome::Passed
}

/// Allocates until the next block is mapped; returns its length. The spans leak into the allocator.
fn next_block<P: Provider + Copy>(jit: &JitAllocator<P>) -> usize {
    let before = jit.statistics();
    loop {
        let _span = jit.alloc(1000).expect("small spans can be had");
        let now = jit.statistics();
        if now.blocks > before.blocks {
            return now.reserved - before.reserved;
        }
    }
}

pub(super) fn blocks_double_up_to_their_bound<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let config = JitConfig::new().block_size(64 << 10, 256 << 10);
    let jit = make(p, config).expect("an allocator can be made");
    let page = p.page_size().bytes();
    for len in [64 << 10, 128 << 10, 256 << 10, 256 << 10] {
        assert_eq!(
            next_block(&jit),
            len.max(page),
            "blocks double up to their bound"
        );
    }
    Outcome::Passed
}

pub(super) fn a_large_span_does_not_change_the_next_block<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let config = JitConfig::new().block_size(64 << 10, 4 << 20);
    let (plain, with_large) = (make(p, config), make(p, config));
    let plain = plain.expect("an allocator can be made");
    let with_large = with_large.expect("an allocator can be made");
    assert_eq!(
        next_block(&plain),
        next_block(&with_large),
        "both begin alike"
    );
    // As large as this host grants, a gibibyte at most.
    let sizes = [1 << 30, 256 << 20, 32 << 20];
    let large = sizes
        .into_iter()
        .find_map(|size| with_large.alloc(size).ok());
    let Some(large) = large else {
        return Outcome::Skipped("no room for a large span");
    };
    let middle = with_large.query(large.rx().addr().get() + large.len_bytes() / 2);
    assert_eq!(
        middle.map(|s| s.len),
        Some(large.len_bytes()),
        "the large span is found whole"
    );
    for _ in 0..3 {
        assert_eq!(
            next_block(&plain),
            next_block(&with_large),
            "the large span changed nothing"
        );
    }
    with_large
        .release(large)
        .expect("an owned span is taken back");
    Outcome::Passed
}

pub(super) fn freed_memory_is_used_again<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let mut model = Model::new(make(p, JitConfig::new()).expect("an allocator can be made"));
    for seed in 0..200 {
        model.alloc(256, seed).expect("small spans can be had");
    }
    let before = model.jit.statistics();
    let mut random = SplitMix64::new(0x4ee);
    for seed in 0..2000 {
        let n = random.below(model.live.len());
        let freed = model.live[n].rx();
        model.release(n);
        model.alloc(256, seed).expect("small spans can be had");
        let last = model.live.last().expect("just allocated");
        assert!(last.rx() <= freed, "the lowest hole is used first");
    }
    assert_eq!(
        model.jit.statistics(),
        before,
        "a steady state takes no more memory"
    );
    model.expect_all_intact();
    model.release_all();
    Outcome::Passed
}

pub(super) fn metadata_is_bounded<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let config = JitConfig::new()
        .block_size(64 << 10, 64 << 10)
        .metadata(64 << 10);
    let jit = make(p, config).expect("an allocator can be made");
    let mut model = Model::new(jit);
    let mut refused = None;
    for seed in 0..2000 {
        if let Err(error) = model.alloc(60 << 10, seed) {
            refused = Some(error);
            break;
        }
    }
    match refused {
        Some(JitError::Metadata(e)) => assert_eq!(e.kind(), ErrorKind::Exhausted, "at the bound"),
        Some(JitError::Map(_)) => return Outcome::Skipped("code ran out before its metadata"),
        other => panic!("64 KiB of metadata cannot describe 2000 blocks: {other:?}"),
    }
    let bound = (64_usize << 10).next_multiple_of(p.page_size().bytes());
    assert!(
        model.jit.statistics().metadata <= bound,
        "the bound is a bound"
    );
    model.expect_all_intact();
    model.release(0);
    model
        .alloc(60 << 10, 1)
        .expect("after a release there is room again");
    model.release_all();
    Outcome::Passed
}

pub(super) fn code_and_metadata_come_from_their_providers<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let (code, data) = (count(p, "code"), count(p, "metadata"));
    let jit = JitAllocator::<_, _>::on(&code, &data, adapted(p, JitConfig::new()));
    let jit = jit.expect("an allocator can be made");
    assert_eq!(code.calls(), 0, "no code is mapped before it is needed");
    assert_eq!(data.calls(), 0, "nor is metadata reserved");
    let mut model = Model::new(jit);
    for seed in 0..300 {
        model.alloc(700, seed).expect("small spans can be had");
    }
    let found = model.jit.statistics();
    assert_eq!(
        code.counters().dual.now,
        found.reserved,
        "code comes from its provider"
    );
    assert_eq!(code.counters().committed.now, 0, "and nothing else does");
    assert_eq!(
        data.counters().committed.now,
        found.metadata,
        "metadata comes from its own"
    );
    assert_eq!(data.counters().dual.now, 0, "and no code does");
    drop(model);
    for counted in [&code, &data] {
        let left = counted.counters();
        let left = [left.reserved.now, left.committed.now, left.dual.now];
        assert_eq!(
            left,
            [0; 3],
            "a dropped allocator keeps nothing of {}",
            counted.name()
        );
    }
    Outcome::Passed
}

pub(super) fn fork_hooks_without_a_fork_change_nothing<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let data = count(p, "metadata");
    let jit = JitAllocator::<P, _>::on(p, &data, adapted(p, JitConfig::new()));
    let mut model = Model::new(jit.expect("an allocator can be made"));
    for seed in 0..100 {
        let counters = data.counters();
        // SAFETY: no process is cloned, and the closure says so.
        let in_child = unsafe { around_fork(&[&model.jit], &[], || false) };
        assert_eq!(in_child, Ok(false), "the hooks succeed");
        assert_eq!(
            data.counters().reserved.now,
            counters.reserved.now,
            "the copy is gone"
        );
        assert_eq!(
            data.counters().committed.now,
            counters.committed.now,
            "the copy is gone"
        );
        model.alloc(500, seed).expect("small spans can be had");
        model.expect_all_intact();
    }
    model.release_all();
    Outcome::Passed
}
