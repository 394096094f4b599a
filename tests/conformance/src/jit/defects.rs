//! What other allocators of executable memory got wrong, each as the behaviour to have instead.
//! Those that take a process of their own are in the tests of this system.

use super::{
    calls::{GRANULE, with_spans},
    make,
    model::Model,
    need_jit, retention,
};
use crate::{Outcome, SplitMix64, code};
use alloc::vec::Vec;
use core::slice;
use hostmem_core::{
    arch,
    counted::{Counted, Limits},
    jit::{Fill, JitAllocator, JitConfig, JitError, JitStatistics, Reset, Span},
    provider::{Capabilities, Provider},
    sim::{Calls, Faulty},
};

pub(super) fn a_double_release_frees_no_neighbour<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let (model, freed) = with_spans(p);
    // SAFETY: no span starts there any more.
    let again = unsafe { model.jit.release_at(freed) };
    assert_eq!(again, Err(JitError::NotLive), "a double release");
    for live in &model.live {
        model.expect_query(live.rx());
    }
    model.expect_all_intact();
    model.expect_statistics();
    Outcome::Passed
}

pub(super) fn releasing_inside_a_span_frees_nothing<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let (model, _) = with_spans(p);
    let rx = model.live[0].rx();
    for offset in [1, GRANULE - 1, GRANULE, 2 * GRANULE, 4 * GRANULE - 1] {
        // SAFETY: no span starts there.
        let inside = unsafe { model.jit.release_at(rx + offset) };
        assert_eq!(inside, Err(JitError::Interior), "{offset} bytes inside");
        model.expect_query(rx + offset);
        model.expect_statistics();
    }
    // Nothing of it is given out again.
    let other = model.jit.alloc(GRANULE).expect("a small span can be had");
    let start = other.rx().addr().get();
    assert!(
        !(rx..rx + 4 * GRANULE).contains(&start),
        "{other:?} lies in a live span"
    );
    model.expect_all_intact();
    Outcome::Passed
}

pub(super) fn a_query_inside_a_span_finds_all_of_it<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let mut model = Model::new(make(p, JitConfig::new()).expect("an allocator can be made"));
    for size in [1, 64, 65, 640, 64 * 64, 64 * 1000, 3 << 20] {
        model.alloc(size, 1).expect("spans can be had");
        let span = model.live.last().expect("just allocated").info();
        let step = (span.len / 97).max(1);
        for offset in (0..span.len).step_by(step).chain([span.len - 1]) {
            let found = model.jit.query(span.rx.addr().get() + offset);
            assert_eq!(found, Some(span), "{offset} bytes inside");
        }
    }
    Outcome::Passed
}

pub(super) fn padding_belongs_to_no_span<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let (model, _) = with_spans(p);
    let block = model.jit.blocks().next().expect("the spans lie in a block");
    for addr in block.rx.addr()..block.rx.addr() + GRANULE {
        assert_eq!(model.jit.query(addr), None, "padding is no span");
        // SAFETY: no span starts there.
        let released = unsafe { model.jit.release_at(addr) };
        assert_eq!(released, Err(JitError::NotLive), "nor can it be released");
    }
    model.expect_statistics();
    model.expect_all_intact();
    Outcome::Passed
}

pub(super) fn lifo_release_with_immediate_release_unmaps_every_block<P: Provider + Copy>(
    p: P,
) -> Outcome {
    need_jit!(p);
    let config = JitConfig::new()
        .block_size(64 << 10, 64 << 10)
        .immediate_release(true);
    retention::last_in_first_out(p, config, 1000, "last in, first out");
    Outcome::Passed
}

pub(super) fn a_tail_freed_last_then_first_serves_again<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    // Spans with and without a bin, in a block that is full but for what they leave.
    for granules in [3, 100, 300] {
        let config = JitConfig::new()
            .block_size(256 << 10, 256 << 10)
            .limit(256 << 10);
        let jit = make(p, config).expect("an allocator can be made");
        let mut spans: Vec<Span> = Vec::new();
        while let Ok(span) = jit.alloc(granules * GRANULE) {
            spans.push(span);
            assert!(spans.len() <= 4096, "more than the limit is given out");
        }
        let last = spans.pop().expect("several were allocated");
        let first = spans.pop().expect("several were allocated");
        let start = first.rx();
        jit.release(last).expect("an owned span is taken back");
        jit.release(first).expect("an owned span is taken back");
        let both = jit.alloc(2 * granules * GRANULE);
        let both = both.expect("there is room without another block");
        assert_eq!(both.rx(), start, "what was freed serves again, as one");
    }
    Outcome::Passed
}

pub(super) fn a_reset_leaves_no_stale_counters<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    for how in [Reset::Hard, Reset::Soft] {
        let jit = make(p, JitConfig::new()).expect("an allocator can be made");
        for round in 0..3 {
            let spans: Vec<Span> = (1..400)
                .map(|n| jit.alloc(n).expect("small spans can be had"))
                .collect();
            drop(spans); // They are lost to the reset.
            // SAFETY: no other code uses the spans, and no other call is under way.
            unsafe { jit.reset(how) };
            let left = jit.statistics();
            let blocks: usize = jit.blocks().map(|b| b.rx.len_bytes()).sum();
            let mut expected = JitStatistics::default();
            expected.blocks = jit.blocks().count();
            expected.reserved = blocks;
            expected.metadata = left.metadata;
            assert_eq!(left, expected, "round {round}, {how:?}");
            assert_eq!(left.unused(), blocks, "all that is left is unused");
        }
    }
    Outcome::Passed
}

pub(super) fn a_soft_reset_leaves_no_code_where_there_is_a_pattern<P: Provider + Copy>(
    p: P,
) -> Outcome {
    need_jit!(p);
    let config = JitConfig::new().fill(Fill::Pattern(0x5a5a_5a5a));
    let mut model = Model::new(make(p, config).expect("an allocator can be made"));
    for seed in 0..100 {
        model.alloc(400, seed).expect("small spans can be had");
    }
    let before = model.jit.blocks().next().expect("the spans lie in a block");
    model.reset(Reset::Soft);
    let after = model.jit.blocks().next().expect("one is kept");
    assert_eq!(before.rx, after.rx, "the same block");
    // SAFETY: the block is mapped and readable, and no other code writes to it.
    let bytes = unsafe { slice::from_raw_parts(after.rx.start().as_ptr(), after.rx.len_bytes()) };
    assert!(bytes.iter().all(|&b| b == 0x5a), "old code is there still");
    Outcome::Passed
}

pub(super) fn a_batch_takes_effect<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    if !p.capabilities().contains(Capabilities::CORE_SYNC) {
        return Outcome::Skipped("cores cannot be synchronized");
    }
    let faulty = Faulty::new(p);
    faulty.only(Calls::SYNC_CORES);
    let jit = JitAllocator::<_, P>::on(&faulty, p, JitConfig::new());
    let jit = jit.expect("an allocator can be made");
    let mut spans: Vec<Span> = (0..10)
        .map(|_| jit.alloc(64).expect("small spans can be had"))
        .collect();
    // One at a time each write of old code takes a barrier; together they take one.
    for span in &mut spans {
        jit.write(span, 0, &[1; 8]).expect("it can be written");
        jit.write(span, 0, &[2; 8]).expect("it can be written");
    }
    // Where CPUs fetch ahead, fresh memory takes one too.
    let each = 10 + 10 * u64::from(arch::FETCHES_AHEAD);
    assert_eq!(faulty.calls(), each, "one by one");
    let mut batch = jit.batch();
    for span in &mut spans {
        batch.write(span, 0, &[3; 8]).expect("it can be written");
    }
    assert_eq!(faulty.calls(), each, "none before the end");
    batch.finish().expect("the barrier works");
    assert_eq!(faulty.calls(), each + 1, "together");
    Outcome::Passed
}

pub(super) fn replaced_code_is_told_to_all_cores<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    if !p.capabilities().contains(Capabilities::CORE_SYNC) {
        return Outcome::Skipped("cores cannot be synchronized");
    }
    let Some(function) = code::returning(5) else {
        return Outcome::Skipped("no code is known for this CPU");
    };
    let faulty = Faulty::new(p);
    faulty.only(Calls::SYNC_CORES);
    let jit = JitAllocator::<_, P>::on(&faulty, p, JitConfig::new());
    let jit = jit.expect("an allocator can be made");
    for barriers in 0..5 {
        let mut span = jit.alloc(64).expect("a small span can be had");
        jit.write(&mut span, 0, function.bytes())
            .expect("it can be written");
        // The same granule each time: only the first found it untouched.
        let barriers = barriers + u64::from(arch::FETCHES_AHEAD);
        assert_eq!(faulty.calls(), barriers, "a barrier where code was before");
        // SAFETY: the allocator published the code of `returning` at the start of the span.
        assert_eq!(unsafe { code::call(span.rx()) }, 5, "the code runs");
        jit.release(span).expect("an owned span is taken back");
    }
    Outcome::Passed
}

pub(super) fn live_spans_never_overlap_under_churn<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    // Sizes around the borders of granules, words of bits, pools and bins; the model looks for
    // overlaps in both views.
    let config = JitConfig::new().granularity(16).pools(3);
    let mut model = Model::new(make(p, config).expect("an allocator can be made"));
    let mut random = SplitMix64::new(0xc4);
    for step in 0..6000 {
        if model.live.len() < 300 && random.below(9) < 5 {
            let around = 16 << random.below(10);
            let size = around + random.below(3) - 1;
            model.alloc(size, step).expect("small spans can be had");
        } else if !model.live.is_empty() {
            model.release(random.below(model.live.len()));
        }
    }
    model.expect_all_intact();
    model.expect_blocks();
    Outcome::Passed
}

pub(super) fn shrinking_overwrites_no_live_code<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    for fill in [Fill::Keep, Fill::Trap] {
        let config = JitConfig::new().fill(fill);
        let mut model = Model::new(make(p, config).expect("an allocator can be made"));
        for seed in 0..200 {
            model.alloc(700, seed).expect("small spans can be had");
        }
        let mut random = SplitMix64::new(0x541);
        for _ in 0..600 {
            let n = random.below(model.live.len());
            let len = random.between(1, model.live[n].len());
            model.shrink(n, len);
            model.alloc(60, len as u64).expect("small spans can be had");
        }
        model.expect_all_intact();
        model.expect_blocks();
    }
    Outcome::Passed
}

pub(super) fn empty_blocks_are_unmapped<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let code = Counted::<P>::new(p, "code", Limits::NONE).expect("a small arena");
    let config = super::adapted(p, JitConfig::new().block_size(64 << 10, 64 << 10));
    let jit = JitAllocator::<_, P>::on(&code, p, config).expect("an allocator can be made");
    for _ in 0..20 {
        let spans: Vec<Span> = (0..500)
            .map(|_| jit.alloc(900).expect("small spans can be had"))
            .collect();
        for span in spans {
            jit.release(span).expect("an owned span is taken back");
        }
        let page = p.page_size().bytes();
        let kept = (64 << 10).max(page);
        assert!(code.counters().dual.now <= kept, "what is empty goes");
    }
    Outcome::Passed
}
