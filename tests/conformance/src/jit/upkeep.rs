//! Blocks as they are told of, and giving memory back.

use super::{
    adapted, make,
    model::{Model, cause},
    need_jit,
};
use crate::{Outcome, SplitMix64};
use alloc::vec::Vec;
use core::slice;
use hostmem_core::{
    jit::{CodeBlock, JitAllocator, JitConfig, Reset, SpanInfo},
    provider::{Capabilities, ErrorKind, Placement, Provider},
    sim::{Calls, Faulty},
};

pub(super) fn blocks_add_up_to_the_statistics<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let config = JitConfig::new().pools(3).block_size(64 << 10, 128 << 10);
    let mut model = Model::new(make(p, config).expect("an allocator can be made"));
    assert_eq!(model.jit.blocks().count(), 0, "a new allocator has none");
    let mut random = SplitMix64::new(0xb10c);
    for step in 0..600 {
        if random.below(5) < 3 {
            let size = random.between(1, 5000);
            model.alloc(size, step).expect("small spans can be had");
        } else if !model.live.is_empty() {
            model.release(random.below(model.live.len()));
        }
        if step % 10 == 0 {
            model.expect_blocks();
        }
    }
    // Half way through, blocks come and go; the iterator goes on by address.
    let all: Vec<CodeBlock> = model.jit.blocks().collect();
    assert!(all.len() > 3, "the spans need several blocks");
    let mut blocks = model.jit.blocks();
    let first = blocks.next().expect("there are several");
    // SAFETY: no other code uses the spans, and no other call is under way.
    unsafe { model.jit.reset(Reset::Hard) };
    assert_eq!(
        (first, blocks.next()),
        (all[0], None),
        "the others are gone"
    );
    Outcome::Passed
}

pub(super) fn unused_pages_go_back_and_serve_again<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    if !p.capabilities().contains(Capabilities::PURGE_DUAL) {
        let jit = make(p, JitConfig::new()).expect("an allocator can be made");
        let span = jit.alloc(100).expect("a small span can be had");
        assert_eq!(jit.decommit_unused(), 0, "a host that cannot is not asked");
        jit.release(span).expect("an owned span is taken back");
        return Outcome::Skipped("pages of dual mappings cannot be given back");
    }
    let page = p.page_size().bytes();
    let mut model = Model::new(make(p, JitConfig::new()).expect("an allocator can be made"));
    for round in 0..3 {
        for seed in 1..200 {
            model.alloc(page / 2 + 100, seed).expect("spans can be had");
        }
        model.alloc(16 * page, 0x3333).expect("spans can be had");
        let large = model.live.pop().expect("just allocated");
        let gone: SpanInfo = large.info();
        model.release_taken(large);
        let before = model.jit.statistics();
        let bytes = model.jit.decommit_unused();
        assert!(bytes >= 15 * page, "round {round}: only {bytes} went back");
        assert!(bytes <= before.unused(), "{bytes} of {before:?}");
        assert_eq!(model.jit.statistics(), before, "no block and no span goes");
        model.expect_all_intact();
        let inside = gone.rx.addr().get().next_multiple_of(page) - gone.rx.addr().get();
        // SAFETY: the released span lies in a block that stays mapped as long as others live in it,
        // and no other code writes there.
        let bytes = unsafe { slice::from_raw_parts(gone.rx.as_ptr(), gone.len) };
        assert!(
            bytes[inside..][..15 * page].iter().all(|&b| b == 0),
            "round {round}: old code is there still"
        );
        model.alloc(16 * page, 0x4444).expect("they serve again");
        model.expect_all_intact();
        for n in 0..60 {
            model.release(n);
        }
        model.decommit(p.capabilities());
    }
    model.expect_blocks();
    model.release_all();
    model.decommit(p.capabilities());
    Outcome::Passed
}

pub(super) fn pages_without_memory_stay_free<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    if !p.capabilities().contains(Capabilities::PURGE_DUAL) {
        return Outcome::Skipped("pages of dual mappings cannot be given back");
    }
    let page = p.page_size().bytes();
    for pools in [1, 3] {
        let faulty = Faulty::new(p);
        faulty.only(Calls::REFILL_DUAL);
        // One block, so that no other serves instead.
        let config = JitConfig::new().pools(pools).limit(32 * page.max(4096));
        let config = config.block_size((32 * page).max(64 << 10), (32 * page).max(64 << 10));
        let jit = JitAllocator::<_, P>::on(&faulty, p, adapted(p, config));
        let mut model = Model::new(jit.expect("an allocator can be made"));
        model.alloc(page / 2, 1).expect("there is memory");
        model.alloc(8 * page, 2).expect("there is memory");
        model.release(1);
        assert_eq!(faulty.calls(), 0, "nothing was given back yet");
        assert!(model.jit.decommit_unused() >= 7 * page, "it goes back");
        faulty.fail_randomly(0, 1);
        let before = model.jit.statistics();
        for size in [20 * page, 8 * page, 8 * page, 3 * page] {
            for placed in [false, true] {
                let result = if placed {
                    model.alloc_with(size, Placement::ANYWHERE, 3)
                } else {
                    model.alloc(size, 3)
                };
                let error = result.expect_err("the host has no memory");
                assert_eq!(cause(error), Some(ErrorKind::Exhausted), "{error:?}");
                assert_eq!(model.jit.statistics(), before, "the pages stay free");
            }
        }
        assert!(faulty.failures() > 0, "it was asked");
        faulty.fail_none();
        model.alloc(8 * page, 4).expect("now it has");
        model.alloc(page, 5).expect("now it has");
        let calls = faulty.calls();
        model.release(1);
        model.alloc(8 * page, 6).expect("they have it still");
        assert_eq!(faulty.calls(), calls, "what has memory is not asked for");
        // Twice given back is given back.
        model.release_all();
        model.decommit(p.capabilities());
        model.decommit(p.capabilities());
        for seed in 0..8 {
            model.alloc(2 * page, seed).expect("there is memory");
        }
        model.expect_all_intact();
        model.reset(Reset::Soft);
        model.decommit(p.capabilities());
        model.alloc(4 * page, 7).expect("there is memory");
        model.expect_blocks();
        model.release_all();
    }
    Outcome::Passed
}
